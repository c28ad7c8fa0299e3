"""Comparing: two outputs side by side, text by text and figure by figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from enrich.errors import CatalogError
from enrich.output.drift import Profile
from enrich.product import Attribute, Product
from enrich.quality.highlight import Piece, highlight
from enrich.report.data import Figure, Flag, Histogram, Report, Row
from enrich.report.gather import gather
from enrich.report.opening import Output

_COUNTS = ("generated", "reused", "kept", "quarantined", "skipped", "pending", "retried")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two outputs."""

    output: str
    sentence: str
    model: str
    words: Histogram
    flags: dict[str, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """One product's texts in both outputs; `other` and its pieces are the second one's."""

    row: Row
    other: str
    other_pieces: tuple[Piece, ...]

    @property
    def same(self) -> bool:
        """Whether both have the same text."""
        return self.row.text == self.other


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two outputs of one catalog. In `figures`, `before` is the first output's and `now` the second's.

    `settings` are the options in which the runs differ; `pairs` a sample of the first's texts beside the second's.
    """

    first: Side
    second: Side
    figures: tuple[Figure, ...]
    settings: dict[str, tuple[Any, Any]]
    pairs: tuple[Pair, ...]
    flag_names: tuple[str, ...]


def compare(first: Output, second: Output, *, sample: int = 300, seed: int = 0) -> Comparison:
    """Compare two outputs, whose rows are matched by product id.

    Raises CatalogError if one has no ids, or if none of the products drawn from the first is in the second.
    """
    for output in (first, second):
        if output.roles.id is None:
            raise CatalogError(f"{output.path}: has no column of product ids, by which rows could be matched")
    mine, theirs = gather(first, before=second, sample=sample, seed=seed), gather(second, sample=0)
    shared = tuple(_pair(row) for row in mine.sample if row.before is not None and row.in_other)
    if mine.sample and not shared:
        raise CatalogError(f"{second.path}: has none of the products drawn from {first.path}; are the ids the same?")
    sides = _side(first, mine), _side(second, theirs)
    return Comparison(
        first=sides[0],
        second=sides[1],
        figures=_figures(first, second, mine, theirs),
        settings=_differing(first.facts["config"], second.facts["config"]),
        pairs=shared,
        flag_names=tuple(dict.fromkeys([*sides[0].flags, *sides[1].flags])),
    )


def _pair(row: Row) -> Pair:
    attributes = tuple(Attribute(name, value) for name, value in row.attributes)
    product = Product(row.row - 1, row.id, row.title, row.category, attributes, "")
    other = row.before or ""
    return Pair(row, other, highlight(other, product))


def _side(output: Output, report: Report) -> Side:
    flags: tuple[Flag, ...] = report.flags
    model = str(report.model.get("name") or output.facts["config"]["model"])
    return Side(str(output.path), report.sentence, model, report.words, {flag.name: flag.share for flag in flags})


def _figures(first: Output, second: Output, mine: Report, theirs: Report) -> tuple[Figure, ...]:
    found = [Figure("rows", mine.rows, theirs.rows)]
    counts = [(name, mine.summary.get(name, 0), theirs.summary.get(name, 0)) for name in _COUNTS]
    found += [Figure(name, one, other) for name, one, other in counts if one or other]
    found += [
        Figure("tokens per second", mine.summary["tokens_per_second"], theirs.summary["tokens_per_second"]),
        Figure("words, mean", mine.words.mean, theirs.words.mean),
        Figure("words, median", mine.words.median, theirs.words.median),
        Figure("new tokens, mean", mine.generated_tokens.mean, theirs.generated_tokens.mean),
        Figure("texts that stand twice", mine.duplicates.rows, theirs.duplicates.rows),
    ]
    ends = [
        {count.name: count.rows / max(report.words.total, 1) for count in report.finish_reasons}.get("stop", 0.0)
        for report in (mine, theirs)
    ]
    found.append(Figure("share that stopped by itself", round(ends[0], 4), round(ends[1], 4)))
    profiles = Profile.read(first.facts), Profile.read(second.facts)
    if profiles[0] and profiles[1]:
        found.append(Figure("share with a flag", profiles[0].flagged, profiles[1].flagged))
    return tuple(found)


# Where the files lie tells nothing of the texts.
_PLACES = {"catalog", "output", "report", "metrics_file", "changes", "previous"}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [name for name in {**one, **other} if name not in _PLACES and one.get(name) != other.get(name)]
    return {name: (one.get(name), other.get(name)) for name in names}
