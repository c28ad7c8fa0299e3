"""The workbench: a model at hand for single texts, from a prompt that someone types or a product that they describe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from enrich import job
from enrich.categories import Categories, Category
from enrich.config import RunConfig
from enrich.engine.choice import make_engine
from enrich.engine.files import ModelFiles, find_model
from enrich.engine.forward import Forward, forward_of
from enrich.engine.loading import load_model, pick_device, pick_dtype
from enrich.engine.protocol import EngineStats, Request, SamplingParams
from enrich.engine.stopping import cut_at
from enrich.engine.streaming import stream
from enrich.engine.tokenizer import Tokenizer
from enrich.errors import ConfigError
from enrich.product import Attribute, Product
from enrich.prompts import Wording
from enrich.quality import clean_text
from enrich.quality.highlight import Piece, highlight
from enrich.rulebooks import rulebooks
from enrich.summary import Summary
from enrich.wordings import wordings

_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Draft:
    """One text that was generated: as the model wrote it, as it would be published, and what was noted of it.

    `findings` are in words, each with its weight before it.
    """

    attempt: int
    raw: str
    text: str
    flags: tuple[str, ...]
    findings: tuple[str, ...]
    accepted: bool
    finish_reason: str
    num_tokens: int
    pieces: tuple[Piece, ...]


class Workbench:
    """A model with its weights loaded, and how it is to be asked.

    Raises ModelError or ConfigError from the constructor, as a run would.
    """

    def __init__(self, model: str = "home-mini", *, revision: str | None = None, device: str = "auto") -> None:
        self.files: ModelFiles = find_model(model, revision)
        # A run's own options, for their checks and for the model's wishes.
        self._config = RunConfig("catalog.csv", model=model, revision=revision, device=device).completed(
            self.files.wished
        )
        self.params = SamplingParams(**self._config.sampling())
        self.categories = Categories(self.files.template)
        self._rulebooks = rulebooks(self.categories, {})
        self._device = pick_device(device)
        self._tokenizer = Tokenizer(self.files, chat=bool(self._config.chat))

    @cached_property
    def _model(self) -> Any:
        return load_model(self.files, self._device, pick_dtype("auto", self._device))

    @cached_property
    def _forward(self) -> Forward | None:
        return forward_of(self._model)

    @cached_property
    def _wordings(self) -> dict[Category, Wording]:
        return wordings(self.categories, chat=bool(self._config.chat))

    def product(self, title: str, category: str, attributes: str) -> Product:
        """Make a product of what a person has typed: one attribute a line, "Color: Oak".

        Raises ConfigError for a line that is no attribute.
        """
        found = []
        for number, line in enumerate(filter(None, map(str.strip, attributes.splitlines())), 1):
            name, colon, value = line.partition(":")
            if not colon or not name.strip() or not value.strip():
                raise ConfigError(f"attribute {number}, {line!r}: write name and value, such as Color: Oak")
            found.append(Attribute(name.strip(), value.strip()))
        product = Product(0, "", title.strip(), category.strip(), tuple(found), "")
        return self.categories.of(product).arrange(product)

    def prompt(self, product: Product) -> str:
        """Render a product as a run would."""
        return self._wordings[self.categories.of(product)].render(product) if product.title else ""

    def sampling(self, **wanted: float) -> SamplingParams:
        """Return how tokens are to be drawn, checked as a run's options are. Raises ConfigError."""
        checked = replace(self._config, **wanted)  # type: ignore[arg-type]
        return SamplingParams(**checked.sampling())

    def write(
        self, prompt: str, product: Product, params: SamplingParams, *, seed: int = 0, attempt: int = 1
    ) -> Iterator[str | Draft]:
        """Yield the text so far after each token, and in the end the draft."""
        request = self._request(prompt, product, params, seed, attempt)
        token_ids: list[int] = []
        for token in stream(self._model, self._tokenizer, request, params, self._forward):
            token_ids.append(token)
            yield self._decoded(prompt, request, token_ids, params)
        most = min(params.max_new_tokens, request.max_new_tokens or params.max_new_tokens)
        finish_reason = "length" if len(token_ids) == most else "stop"
        yield self._draft(prompt, request, product, params, token_ids, finish_reason)

    def attempts(
        self, prompt: str, product: Product, params: SamplingParams, *, seed: int = 0, count: int = 3
    ) -> list[Draft]:
        """Write the first attempts at a text side by side."""
        requests = [self._request(prompt, product, params, seed, number + 1) for number in range(count)]
        engine = make_engine(self._model, self._tokenizer, params, EngineStats())
        width = len(requests[0].prompt_token_ids)
        drafts: dict[int, Draft] = {}
        for index, completion in engine.generate(requests, width, _ROWS_AT_ONCE, lambda: False):
            drafts[index] = self._draft(
                prompt, requests[index], product, params, completion.token_ids, completion.finish_reason
            )
        return [drafts[index] for index in range(count)]

    def enrich(self, catalog: Path, output: Path, params: SamplingParams, *, seed: int = 0, limit: int) -> Summary:
        """Run a small catalog through the whole of `enrich run`. Raises what that raises."""
        config = replace(
            self._config, catalog=str(catalog), output=str(output), limit=limit, seed=seed, fresh=True, restart=True,
            max_quarantined="100%",
            **asdict(params),
        )  # fmt: skip
        return job.run(config, model=self._model)

    def _request(self, prompt: str, product: Product, params: SamplingParams, seed: int, attempt: int) -> Request:
        if not prompt.strip():
            raise ConfigError("there is no prompt; type one, or give the product a title")
        system = self._wordings[self.categories.of(product)].system
        token_ids = self._tokenizer.encode([prompt], [system])[0]
        room = self.files.context - params.max_new_tokens
        if len(token_ids) > room:
            raise ConfigError(
                f"the prompt has {len(token_ids):,} tokens; with {params.max_new_tokens:,} new ones there is room for"
                f" {max(room, 0):,}"
            )
        return Request(tuple(token_ids), seed, attempt)

    def _decoded(self, prompt: str, request: Request, token_ids: Sequence[int], params: SamplingParams) -> str:
        if not self.files.wishes.continues_prompt or self._config.chat:
            return cut_at(self._tokenizer.decode(token_ids), params.stop)
        return prompt + cut_at(self._tokenizer.decode_after(request.prompt_token_ids, token_ids), params.stop)

    def _draft(
        self,
        prompt: str,
        request: Request,
        product: Product,
        params: SamplingParams,
        token_ids: Sequence[int],
        finish_reason: str,
    ) -> Draft:
        raw = self._decoded(prompt, request, token_ids, params)
        cleaned = clean_text(raw, cut_off=finish_reason == "length")
        # A prompt that was typed stands for the row that there is none of.
        row = product if product.title else replace(product, title=prompt)
        verdict = self._rulebooks[self.categories.of(row)].judge(cleaned.text, row)
        return Draft(
            attempt=request.attempt,
            raw=raw,
            text=cleaned.text,
            flags=cleaned.flags,
            findings=tuple(f"{one.severity}: {one.rule}, {one.reason}" for one in verdict.failures),
            accepted=verdict.accepted,
            finish_reason=finish_reason,
            num_tokens=len(token_ids),
            pieces=highlight(cleaned.text, row),
        )
