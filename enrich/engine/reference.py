"""The reference engine: `generate` of transformers, one batch after the other.

It is the plain form that faster engines are held against. transformers does the forward passes, the cache and the
position ids of left-padded prompts; the choice of tokens is ours, hung in as a logits processor, because
transformers would draw from one global stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from enrich.engine import ranking, sampling
from enrich.engine.loading import take_over
from enrich.engine.memory import Room
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams, always
from enrich.engine.stopping import StopStrings


class ReferenceEngine:
    """Runs any causal language model of transformers."""

    pads = True

    def __init__(
        self,
        model: Any,
        end_token_id: int | None,
        params: SamplingParams,
        stats: EngineStats,
        stops: StopStrings | None = None,
        deterministic: bool = False,
    ) -> None:
        self.stats = stats
        self._stops = stops
        self._model = model
        self._params = params
        self._ends = take_over(model, end_token_id)
        self._room = Room(model, deterministic)

    def generate(
        self,
        requests: Sequence[Request],
        width: int,
        batch_rows: int,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) batch after batch; see `Engine.generate`."""
        start = 0
        while start < len(requests) and not should_stop() and may_begin():
            rows = self._room.rows(batch_rows, width + self._params.max_new_tokens)
            batch = requests[start : start + rows]
            try:
                completions = self._run(batch, width, self._room.filled(len(batch), rows), should_stop)
            except (MemoryError, RuntimeError) as error:
                self._room.shrink(len(batch), width, self._params.max_new_tokens, error)
                continue
            if should_stop():  # the batch was broken off
                return
            for offset, completion in enumerate(completions):
                yield start + offset, completion
            start += len(batch)

    @torch.inference_mode()
    def _run(
        self, batch: Sequence[Request], width: int, rows: int, should_stop: Callable[[], bool]
    ) -> list[Completion]:
        filled = [*batch, *[batch[0]] * (rows - len(batch))]
        self.stats.note_slots(rows, len(batch))
        device = self._model.device
        pad = self._ends[0] if self._ends else 0
        lengths = [len(request.prompt_token_ids) for request in filled]
        input_ids = torch.tensor(
            [[pad] * (width - n) + list(request.prompt_token_ids) for n, request in zip(lengths, filled, strict=True)]
        )
        attention_mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
        output = self._model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self._params.max_new_tokens,
                eos_token_id=self._ends or None,
                pad_token_id=pad,
            ),
            logits_processor=LogitsProcessorList([_RowStreams(filled, width, self._params, device)]),
            stopping_criteria=StoppingCriteriaList([_StopWhen(should_stop)]),
        )
        new_ids: list[list[int]] = output[:, width:].tolist()
        completions = [
            self._completion(ids[: request.max_new_tokens]) for ids, request in zip(new_ids, batch, strict=False)
        ]
        self.stats.prompt_tokens += sum(lengths[: len(batch)])
        self.stats.prefill_positions += rows * width
        self.stats.generated_tokens += sum(len(completion.token_ids) for completion in completions)
        self.stats.decode_positions += rows * (output.shape[1] - width)
        return completions

    def _completion(self, ids: list[int]) -> Completion:
        end = next((index for index, token in enumerate(ids) if token in self._ends), None)
        if self._stops is not None:
            length = self._stops.length(ids[:end], 0)
            if length is not None:
                return Completion(tuple(ids[:length]), "stop")
        return Completion(tuple(ids), "length") if end is None else Completion(tuple(ids[:end]), "stop")


class _RowStreams(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token itself and leaves it as the only possible one."""

    def __init__(self, requests: Sequence[Request], width: int, params: SamplingParams, device: torch.device) -> None:
        self._seeds = torch.tensor([request.seed for request in requests], device=device)
        self._attempts = torch.tensor([request.attempt for request in requests], device=device)
        self._width = width
        self._params = params
        self._requests = requests
        self._forbidden: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        generated = input_ids[:, self._width :]
        if not generated.shape[1]:
            mask = sampling.forbidden_mask(self._requests, scores.shape[1])
            self._forbidden = mask if mask is None else mask.to(scores.device)
        if self._forbidden is not None:
            scores = scores.masked_fill(self._forbidden, -torch.inf)
        uniforms = sampling.uniform(self._seeds, self._attempts, generated.shape[1])
        if scores.device.type != "cpu" and bool(sampling.no_numbers(scores).any()):
            raise ranking.broken()
        tokens = sampling.choose(scores.float(), generated, uniforms, self._params)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _StopWhen(StoppingCriteria):  # type: ignore[misc]
    """Breaks a batch off between two tokens."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:  # noqa: ARG002
        return torch.full((len(input_ids),), self._should_stop(), device=input_ids.device)
