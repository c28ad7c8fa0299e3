"""How good a model is: its loss on texts it has not seen, and what its own texts are like, model beside model."""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from enrich import job
from enrich.catalog import Catalog, RoleOptions
from enrich.categories import Categories
from enrich.config import RunConfig
from enrich.engine.loading import find_model
from enrich.finetune import PairDataset, measure, read_pairs
from enrich.product import Product
from enrich.quality.words import colors_in, head_noun, materials_in, stem, words_of

_SPAN = 5  # words; a copied span is a run of these
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one catalog, or on one category of it. Shares are of its texts; None: nothing to count.

    loss is in nats per token of the catalog's own descriptions, end-of-text among them, bits_per_byte comparable across
    tokenizers. distinct_n is the number of different n-grams of words over all texts divided by that of all n-grams (Li
    et al. 2016). The shares of own colours, materials and numbers are of those that the texts name: how many of them
    stand in the row. longest_copy is the mean, over texts, of the longest run of words whose every five stand together
    in a training text.
    """

    model: str
    category: str
    texts: int
    loss: float | None
    perplexity: float | None
    bits_per_byte: float | None
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    stops_itself: float | None
    ends_on_sentence: float | None
    names_head_noun: float | None
    says_given_color: float | None
    says_given_material: float | None
    own_colors: float | None
    own_materials: float | None
    own_numbers: float | None
    repeats: float | None
    mean_words: float | None
    longest_copy: float | None
    tokens_per_second: float | None


@dataclass(frozen=True)
class _Written:
    """A product, its category and what a model wrote for it."""

    product: Product
    category: str
    text: str
    finish_reason: str
    flags: tuple[str, ...]


def evaluate(
    models: Sequence[str], catalog: Path, *, num_texts: int = 500, training: Path | None = None
) -> list[Evaluation]:
    """Evaluate models on a catalog that has descriptions, none of which they should have seen.

    The loss is over all its texts, the rest over those that each model writes for its first `num_texts` rows. For each
    model there is one evaluation of all, then one a category.
    """
    spans = _spans(_descriptions(training)) if training else None
    return [evaluation for model in models for evaluation in _evaluate(model, catalog, num_texts, spans)]


def _evaluate(model: str, catalog: Path, num_texts: int, spans: set[int] | None) -> Iterator[Evaluation]:
    losses = _losses(model, catalog)
    written, speed = _write(model, catalog, num_texts)
    yield _figures(model, "all", written, losses["all"], spans, speed)
    by_category = defaultdict(list)
    for one in written:
        by_category[one.category].append(one)
    if len(by_category) > 1:
        for category in sorted(by_category):
            yield _figures(model, category, by_category[category], losses.get(category), spans, None)


def _losses(name: str, catalog: Path) -> dict[str, dict[str, float]]:
    """Measure the loss over all texts and over those of each category."""
    files = find_model(name)
    tokenizer = AutoTokenizer.from_pretrained(files.directory)
    model = AutoModelForCausalLM.from_pretrained(files.directory, dtype=torch.float32, use_safetensors=True)
    pairs = defaultdict(list)
    for pair in read_pairs([catalog], RoleOptions(), files.template):
        pairs["all"].append(pair)
        pairs[pair.category].append(pair)
    datasets = {name: PairDataset(some, tokenizer, files.context) for name, some in pairs.items()}
    return {name: measure(model, tokenizer, dataset) for name, dataset in datasets.items() if len(dataset)}


def _write(model: str, catalog: Path, num_texts: int) -> tuple[list[_Written], float]:
    """Let the model write, as a run does, and return its texts beside their products."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "texts.parquet"
        config = RunConfig(
            str(catalog), str(output), model=model, overwrite=True, limit=num_texts, output_column="description",
            max_quarantined="100%", rules=("all=off",), max_attempts=1,
        )  # fmt: skip
        summary = job.run(config)
        rows = pl.read_parquet(output, columns=["description", "generation"]).rows(named=True)
    categories = Categories()
    products = (product for _, batch in Catalog(catalog, RoleOptions(), limit=num_texts).batches() for product in batch)
    written = [
        _Written(
            product,
            categories.of(product).name,
            row["description"],
            row["generation"]["finish_reason"],
            tuple(row["generation"]["flags"]),
        )
        for product, row in zip(products, rows, strict=True)
        if row["generation"]["status"] == "generated"
    ]
    return written, summary.tokens_per_second


def _figures(
    model: str,
    category: str,
    written: Sequence[_Written],
    losses: dict[str, float] | None,
    spans: set[int] | None,
    speed: float | None,
) -> Evaluation:
    texts = [one.text for one in written]
    nouns = [(one, head_noun(one.product.title)) for one in written]
    own = {"colors": Counter[bool](), "materials": Counter[bool](), "numbers": Counter[bool]()}
    said = {"color": Counter[bool](), "material": Counter[bool]()}
    for one in written:
        source = _source(one.product)
        numbers = set(_NUMBER.findall(source))
        own["colors"].update(color in source for color in colors_in(one.text))
        own["materials"].update(material in source for material in materials_in(one.text))
        own["numbers"].update(number in numbers for number in _NUMBER.findall(one.text))
        for attribute in one.product.attributes:
            if (name := attribute.name.lower()) in said:
                said[name][_says(one.text, attribute.value)] += 1
    losses = losses or {}
    return Evaluation(
        model=model,
        category=category,
        texts=len(written),
        loss=_rounded(losses.get("loss")),
        perplexity=_rounded(losses.get("perplexity"), 2),
        bits_per_byte=_rounded(losses.get("bits_per_byte")),
        distinct_1=_distinct(texts, 1),
        distinct_2=_distinct(texts, 2),
        distinct_3=_distinct(texts, 3),
        stops_itself=_share(one.finish_reason == "stop" for one in written),
        ends_on_sentence=_share(not {"cut_to_sentence", "no_sentence_end"} & set(one.flags) for one in written),
        names_head_noun=_share(stem(noun) in set(map(stem, words_of(one.text))) for one, noun in nouns if noun),
        says_given_color=_share(said["color"].elements()),
        says_given_material=_share(said["material"].elements()),
        own_colors=_share(own["colors"].elements()),
        own_materials=_share(own["materials"].elements()),
        own_numbers=_share(own["numbers"].elements()),
        repeats=_share("repeated_sentence" in one.flags for one in written),
        mean_words=_rounded(sum(len(text.split()) for text in texts) / len(texts), 1) if texts else None,
        longest_copy=_rounded(sum(_longest_copy(text, spans) for text in texts) / len(texts), 1)
        if spans is not None and texts
        else None,
        tokens_per_second=speed,
    )


def _source(product: Product) -> str:
    return " ".join([product.title, product.category, *(attribute.value for attribute in product.attributes)]).lower()


def _says(text: str, value: str) -> bool:
    """Say whether a text has every word of an attribute's value, in any order."""
    said = set(map(stem, words_of(text)))
    return {stem(word) for word in words_of(value) if word.lower() not in ("and", "or", "of", "with")} <= said


def _share(flags: Iterable[bool]) -> float | None:
    values = list(flags)
    return round(sum(values) / len(values), 4) if values else None


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def _distinct(texts: Sequence[str], size: int) -> float | None:
    grams = [gram for text in texts for gram in _grams(text, size)]
    return round(len(set(grams)) / len(grams), 4) if grams else None


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return list(zip(*(words[start:] for start in range(size)), strict=False))


def _descriptions(path: Path) -> Iterator[str]:
    for _, products in Catalog(path, RoleOptions()).batches():
        yield from (product.description for product in products if product.description)


def _spans(texts: Iterable[str]) -> set[int]:
    return {hash(gram) for text in texts for gram in _grams(text, _SPAN)}


def _longest_copy(text: str, spans: set[int]) -> int:
    longest = run = 0
    for gram in _grams(text, _SPAN):
        run = run + 1 if hash(gram) in spans else 0
        longest = max(longest, run + _SPAN - 1 if run else 0)
    return longest


def as_table(evaluations: Sequence[Evaluation]) -> str:
    """Lay the figures out with a column for each evaluation."""
    names = [name for name in asdict(evaluations[0]) if name not in ("model", "category")]
    several = len({evaluation.model for evaluation in evaluations}) > 1
    heads = [f"{Path(one.model).name}: {one.category}" if several else one.category for one in evaluations]
    rows = [["", *heads], *([name, *(_cell(getattr(one, name)) for one in evaluations)] for name in names)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *right]))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
