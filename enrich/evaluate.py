"""How good a model is: its loss on texts it has not seen, and what its own texts are like, model beside model."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from enrich import job
from enrich.catalog import Catalog, RoleOptions
from enrich.catalog.source_text import clean
from enrich.categories import Categories
from enrich.config import RunConfig
from enrich.engine.files import ModelFiles, find_model
from enrich.engine.loading import load_model, pick_device, pick_dtype
from enrich.finetune.base import load_tokenizer
from enrich.finetune.dataset import Loss, PairDataset, figures, measure
from enrich.finetune.pairs import read_pairs
from enrich.output import read_facts
from enrich.product import Product
from enrich.quality.words import colors_in, head_noun, materials_in, stem, words_of

_SPAN = 5  # words; a copied span is a run of these
_LONGEST_VALUE = 4  # words; a text can say no more of an attribute word by word
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one catalog, or on one category of it. Shares are of its texts; None: nothing to count.

    unusable is the share of the rows for which it wrote no text of use, none or not one sentence; the other shares are
    of the `texts` that are left, so that a model with many such rows is worse than they say.
    measured is the number of the catalog's own descriptions that the loss is over, in nats per token, end-of-text among
    them; bits_per_byte and perplexity_per_byte are comparable across tokenizers. distinct_n is the number of different
    n-grams of words over all texts divided by that of all n-grams (Li et al. 2016). says_given is the share of the
    rows' attributes, of four words at most, whose words stand in the text; own_colors, own_materials and own_numbers
    are the shares, of those that the texts name, that stand in the row; strays_color and the like the shares of texts
    that name one which doesn't. longest_copy is the mean, over texts, of the longest run of words whose every five
    stand together in a training text, and longest_copy_of_all the longest of them.
    """

    model: str
    category: str
    texts: int
    unusable: float | None
    measured: int
    loss: float | None
    perplexity: float | None
    bits_per_byte: float | None
    perplexity_per_byte: float | None
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    stops_itself: float | None
    ends_on_sentence: float | None
    names_head_noun: float | None
    says_given: float | None
    says_given_color: float | None
    says_given_material: float | None
    own_colors: float | None
    own_materials: float | None
    own_numbers: float | None
    strays_color: float | None
    strays_material: float | None
    strays_number: float | None
    repeats: float | None
    mean_words: float | None
    longest_copy: float | None
    longest_copy_of_all: int | None
    tokens_per_second: float | None


@dataclass(frozen=True)
class _Written:
    """A product, its category and what a model wrote for it: an empty text if that was of no use."""

    product: Product
    category: str
    text: str
    finish_reason: str | None
    flags: tuple[str, ...]


def evaluate(
    models: Sequence[str],
    catalog: Path,
    *,
    num_texts: int = 500,
    max_new_tokens: int | None = None,
    training: Sequence[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
) -> list[Evaluation]:
    """Evaluate models on a catalog that has descriptions, none of which they should have seen.

    The loss is over all its texts, the rest over those that each model writes for its first `num_texts` rows. For each
    model there is one evaluation of all, then one a category. Copies are looked for in the catalogs `training`.
    `max_new_tokens`, `device`, `dtype` and `seed` are those of a run.

    Raises ModelError, before anything is measured, if there is no such model.
    """
    found = [find_model(model) for model in models]
    device = pick_device(device)
    settings: dict[str, Any] = {"device": device, "dtype": pick_dtype(dtype, device), "seed": seed, "limit": num_texts}
    settings |= {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    spans = _spans(_descriptions(training)) if training else None
    return [evaluation for files in found for evaluation in _evaluate(files, catalog, settings, spans)]


def _evaluate(
    files: ModelFiles, catalog: Path, settings: dict[str, Any], spans: set[int] | None
) -> Iterator[Evaluation]:
    model = load_model(files, settings["device"], settings["dtype"])
    losses = _losses(files, model, catalog)
    written, speed = _write(files.name, model, catalog, settings)
    everything = [loss for some in losses.values() for loss in some]
    yield _figures(files.name, "all", written, everything, spans, speed)
    by_category = defaultdict(list)
    for one in written:
        by_category[one.category].append(one)
    if len(by_category) > 1:
        for category in sorted(by_category):
            yield _figures(files.name, category, by_category[category], losses.get(category, []), spans, None)


def _losses(files: ModelFiles, model: Any, catalog: Path) -> dict[str, list[Loss]]:
    """Measure the loss on each of the catalog's texts that fits the model's context, by category."""
    tokenizer = load_tokenizer(files)
    pairs = read_pairs([catalog], RoleOptions(), files.template).pairs
    dataset = PairDataset(pairs, tokenizer, files.context)
    losses = defaultdict(list)
    for place, loss in zip(dataset.kept, measure(model, tokenizer, dataset), strict=True):
        losses[pairs[place].category].append(loss)
    return losses


def _write(name: str, model: Any, catalog: Path, settings: dict[str, Any]) -> tuple[list[_Written], float]:
    """Let the model write, as a run does, and return its texts beside their products."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "texts.parquet"
        config = RunConfig(
            str(catalog), str(output), model=name, overwrite=True, output_column="description", max_quarantined="100%",
            rules=("all=off",), max_attempts=1, **settings,
        )  # fmt: skip
        summary = job.run(config, model=model)
        column = read_facts(output)["config"]["output_column"]
        rows = pl.read_parquet(output, columns=[column, "generation"]).rows(named=True)
    categories = Categories()
    whole = Catalog(catalog, RoleOptions(), limit=settings["limit"])
    products = (product for _, batch in whole.batches() for product in batch)
    written = [
        _Written(
            product,
            categories.of(product).name,
            row[column] if row["generation"]["status"] == "generated" else "",
            row["generation"]["finish_reason"],
            tuple(row["generation"]["flags"] or ()),
        )
        for product, row in zip(products, rows, strict=True)
        if product.title and row["generation"]["status"] in ("generated", "quarantined")
    ]
    return written, summary.tokens_per_second


def _figures(
    model: str,
    category: str,
    asked: Sequence[_Written],
    losses: Sequence[Loss],
    spans: set[int] | None,
    speed: float | None,
) -> Evaluation:
    written = [one for one in asked if one.text]
    texts = [one.text for one in written]
    nouns = [(one, head_noun(one.product.title)) for one in written]
    own: dict[str, list[list[bool]]] = {"colors": [], "materials": [], "numbers": []}  # by text
    said: dict[str, list[bool]] = {"": [], "color": [], "material": []}
    for one in written:
        source = _source(one.product)
        numbers = set(_NUMBER.findall(source))
        own["colors"].append([_stands_in(color, source) for color in colors_in(one.text)])
        own["materials"].append([_stands_in(material, source) for material in materials_in(one.text)])
        own["numbers"].append([number in numbers for number in _NUMBER.findall(one.text)])
        for attribute in one.product.attributes:
            if len(attribute.value.split()) <= _LONGEST_VALUE:
                says = _says(one.text, attribute.value)
                said[""].append(says)
                if (name := attribute.name.lower()) in said:
                    said[name].append(says)
    copies = [_longest_copy(text, spans) for text in texts] if spans is not None else []
    loss: dict[str, float] = figures(losses) if losses else {}
    return Evaluation(
        model=model,
        category=category,
        texts=len(written),
        unusable=_share(not one.text for one in asked),
        measured=len(losses),
        loss=_rounded(loss.get("loss")),
        perplexity=_rounded(loss.get("perplexity"), 2),
        bits_per_byte=_rounded(loss.get("bits_per_byte")),
        perplexity_per_byte=_rounded(loss.get("perplexity_per_byte")),
        distinct_1=_distinct(texts, 1),
        distinct_2=_distinct(texts, 2),
        distinct_3=_distinct(texts, 3),
        stops_itself=_share(one.finish_reason == "stop" for one in written),
        ends_on_sentence=_share(not {"cut_to_sentence", "no_sentence_end"} & set(one.flags) for one in written),
        names_head_noun=_share(stem(noun) in set(map(stem, words_of(one.text))) for one, noun in nouns if noun),
        says_given=_share(said[""]),
        says_given_color=_share(said["color"]),
        says_given_material=_share(said["material"]),
        own_colors=_share(chain.from_iterable(own["colors"])),
        own_materials=_share(chain.from_iterable(own["materials"])),
        own_numbers=_share(chain.from_iterable(own["numbers"])),
        strays_color=_share(not all(named) for named in own["colors"]),
        strays_material=_share(not all(named) for named in own["materials"]),
        strays_number=_share(not all(named) for named in own["numbers"]),
        repeats=_share("repeated_sentence" in one.flags for one in written),
        mean_words=_rounded(sum(len(text.split()) for text in texts) / len(texts), 1) if texts else None,
        longest_copy=_rounded(sum(copies) / len(copies), 1) if copies else None,
        longest_copy_of_all=max(copies, default=None),
        tokens_per_second=speed,
    )


def _source(product: Product) -> str:
    return " ".join([product.title, product.category, *(attribute.value for attribute in product.attributes)]).lower()


def _stands_in(phrase: str, source: str) -> bool:
    """Say whether a phrase's words stand in the source, one after the other: "red", but not in "covered"."""
    return re.search(rf"\b{re.escape(phrase)}\b", source) is not None


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


def _descriptions(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        for _, products in Catalog(path, RoleOptions()).batches():
            yield from (clean(product.description) for product in products if product.description)


def _spans(texts: Iterable[str]) -> set[int]:
    return {hash(gram) for text in texts for gram in _grams(text, _SPAN)}


def _longest_copy(text: str, spans: set[int]) -> int:
    longest = run = 0
    for gram in _grams(text, _SPAN):
        run = run + 1 if hash(gram) in spans else 0
        longest = max(longest, run + _SPAN - 1 if run else 0)
    return longest


def as_table(evaluations: Sequence[Evaluation]) -> str:
    """Lay the figures out: a table for each category, with a column for each model."""
    categories = dict.fromkeys(one.category for one in evaluations)
    return "\n\n".join(_table([one for one in evaluations if one.category == category]) for category in categories)


def _table(evaluations: Sequence[Evaluation]) -> str:
    names = [name for name in asdict(evaluations[0]) if name not in ("model", "category")]
    rows = [[evaluations[0].category, *(Path(one.model).name for one in evaluations)]]
    rows += [[name, *(_cell(getattr(one, name)) for one in evaluations)] for name in names]
    rows = [row for row in rows if set(row[1:]) != {"-"}]  # what was not asked for, or could not be counted
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *right]))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
