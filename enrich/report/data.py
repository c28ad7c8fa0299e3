"""The data of a report: what a page shows and `--json` prints, without a word on how it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from enrich.quality.highlight import Piece


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows have something."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many of the rows fall into each bin; bin i reaches from edges[i] up to, but not into, edges[i + 1]."""

    edges: tuple[int, ...]
    rows: tuple[int, ...]
    mean: float
    median: int
    largest: int

    @property
    def total(self) -> int:
        """How many rows there are in all."""
        return sum(self.rows)


@dataclass(frozen=True, slots=True)
class Moment:
    """What was finished in one stretch of the run; `second` is where it begins, counted from the first text."""

    second: float
    rows: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast the texts came, from the times that stand beside them: texts of this run only."""

    stretch_seconds: float
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class BucketUse:
    """One token-length bucket. The shares are None where nothing was measured: texts of an earlier run.

    `padding_waste` is the share of the prompts' positions that held no token, `slot_use` the share of the decoded
    positions that held one that was wanted.
    """

    edge: int
    rows: int
    prompt_tokens: int
    generated_tokens: int
    padding_waste: float | None
    slot_use: float | None
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row in full; `row` counts from 1. `before` is the text it had, None if that is not known.

    `pieces` are the text with its facts marked, `findings` what the rules say of it, in words. `in_other` says whether
    the output that it stands beside has the product too.
    """

    row: int
    id: str
    title: str
    category: str
    attributes: tuple[tuple[str, str], ...]
    status: str
    flags: tuple[str, ...]
    attempt: int | None
    finish_reason: str | None
    prompt_tokens: int | None
    generated_tokens: int | None
    before: str | None
    text: str
    pieces: tuple[Piece, ...]
    findings: tuple[str, ...]
    in_other: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag: in how many texts, in which categories, and some of them."""

    name: str
    rows: int
    share: float
    by_category: tuple[Count, ...]
    examples: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a quarantined row's text, and what was wrong with it, in words."""

    attempt: int
    text: str
    pieces: tuple[Piece, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row without a text that could be published, with the attempts as far as they are known."""

    row: Row
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The rows without a usable text, by reason, and some of them."""

    rows: int
    reasons: tuple[Count, ...]
    examples: tuple[Quarantined, ...]


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Rows whose texts are the same but for figures, case and marks; `titles` of some of them."""

    rows: int
    text: str
    titles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Texts that stand under several products. `rows` are all rows in such groups, `groups` the largest of them.

    `near` are groups whose texts are nearly the same, among `near_texts` texts that were drawn.
    """

    texts: int
    rows: int
    num_groups: int
    groups: tuple[DuplicateGroup, ...]
    near_texts: int
    near_rows: int
    near: tuple[DuplicateGroup, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of tonight beside that of the night before."""

    name: str
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the texts are from those of the output before; `words` is that one's distribution, if it was there."""

    drift: float | None
    before_run_id: str | None
    before_finished_at: str | None
    figures: tuple[Figure, ...]
    words: Histogram | None


@dataclass(frozen=True, slots=True)
class Category:
    """One category's rows and texts."""

    name: str
    rows: int
    generated: int
    flagged: int
    quarantined: int
    mean_words: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told of an output. `statuses` add up to `rows`; `reconciles` says whether they do, and the run's too.

    `sample` are rows drawn with `sample_seed` from all that have a text of a model, and some that were kept.
    """

    output: str
    sentence: str
    reconciliation: str
    reconciles: bool
    rows: int
    statuses: tuple[Count, ...]
    summary: dict[str, Any]
    categories: tuple[Category, ...]
    throughput: Throughput
    buckets: tuple[BucketUse, ...]
    prompt_tokens: Histogram
    generated_tokens: Histogram
    words: Histogram
    finish_reasons: tuple[Count, ...]
    attempts: tuple[Count, ...]
    flags: tuple[Flag, ...]
    quarantine: Quarantine
    drift: Drift | None
    duplicates: Duplicates
    sample: tuple[Row, ...]
    sample_seed: int
    configuration: dict[str, Any]
    roles: dict[str, Any]
    model: dict[str, Any]
    versions: dict[str, str]
    finished_at: str | None
