"""Drift: how far tonight's texts are from last night's, in a few plain figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from enrich.generation import EDITED, GENERATED, QUARANTINED, REUSED


@dataclass(frozen=True)
class Profile:
    """What the generated texts of an output are like; the shares are of its rows that were to have one."""

    mean_words: float
    repeated: float  # share with a sentence that stood there twice
    flagged: float  # share with any flag
    quarantined: float

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Profile | None:
        """Return the profile in an output's facts, if it has one."""
        try:
            return cls(**{field.name: float(facts["profile"][field.name]) for field in fields(cls)})
        except (KeyError, TypeError, ValueError):
            return None

    @classmethod
    def mean(cls, parts: Sequence[tuple[Profile, int]]) -> Profile:
        """Return the profile of several files together, given each one's and its number of rows."""
        rows = max(sum(count for _, count in parts), 1)
        names = (field.name for field in fields(cls))
        return cls(**{name: sum(getattr(part, name) * count for part, count in parts) / rows for name in names})

    def as_dict(self) -> dict[str, float]:
        """Return it in JSON's types."""
        return asdict(self)

    def drift_from(self, before: Profile) -> tuple[float, str]:
        """Return the largest change and what has changed: of lengths the ratio less one, of shares the difference."""
        longer = max(self.mean_words, before.mean_words)
        shorter = min(self.mean_words, before.mean_words)
        changes = {"mean_words": longer / shorter - 1 if shorter else float(longer > 0)}
        changes |= {
            name: abs(getattr(self, name) - getattr(before, name)) for name in ("repeated", "flagged", "quarantined")
        }
        worst = max(changes, key=lambda name: changes[name])
        return changes[worst], f"{worst} was {getattr(before, worst):.4g}, is {getattr(self, worst):.4g}"


class Profiler:
    """Adds up a profile batch by batch."""

    def __init__(self) -> None:
        self._texts = self._words = self._repeated = self._flagged = self._quarantined = 0

    def add(self, texts: pa.Array, generations: pa.StructArray) -> None:
        """Count some rows; those that a person wrote, and those without a product of their own, do not count."""
        status = generations.field("status")
        self._quarantined += pc.sum(pc.equal(status, QUARANTINED), min_count=0).as_py()
        counts = pc.and_(pc.is_in(status, pa.array([GENERATED, REUSED])), pc.not_equal(texts, ""))
        texts, flags = texts.filter(counts), generations.field("flags").filter(counts)  # a null text does not count
        self._texts += len(texts)
        trimmed = pc.utf8_trim_whitespace(texts)
        words = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
        blank = pc.sum(pc.equal(trimmed, ""), min_count=0).as_py()  # which Arrow splits into one empty word
        self._words += pc.sum(words, min_count=0).as_py() - blank
        self._repeated += _with_flag(flags, pc.equal(flags.flatten(), "repeated_sentence"))
        self._flagged += _with_flag(flags, pc.not_equal(flags.flatten(), EDITED))

    def profile(self) -> Profile:
        """Return the profile of the rows so far."""
        texts, rows = max(self._texts, 1), max(self._texts + self._quarantined, 1)
        return Profile(
            round(self._words / texts, 2),
            round(self._repeated / texts, 4),
            round(self._flagged / texts, 4),
            round(self._quarantined / rows, 4),
        )


def _with_flag(flags: pa.ListArray, wanted: pa.BooleanArray) -> int:
    """Return how many rows have a flag among those wanted, of all rows' flags one after the other."""
    return len(pc.list_parent_indices(flags).filter(wanted).unique())
