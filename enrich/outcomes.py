"""Outcomes in Arrow tables: the form in which finished rows go from where they were kept to the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from enrich.generation import GENERATION_TYPE, Outcome

OUTCOME_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("generation", GENERATION_TYPE, nullable=False),
    ]
)


def outcome_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Return outcomes as a table, in the order in which they are given."""
    rows = [{"ordinal": o.ordinal, "text": o.text, "generation": asdict(o.generation)} for o in outcomes]
    return pa.Table.from_pylist(rows, OUTCOME_SCHEMA)


class OutcomeReader:
    """Hands out outcomes in rising order of their rows, however they are spread over the tables that they come in.

    The tables must rise by their lowest ordinals. Held in memory are those that reach into the rows handed out last,
    and one more.
    """

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = (table for table in tables if len(table))
        self._ahead = next(self._tables, None)
        self._held = OUTCOME_SCHEMA.empty_table()

    def take_below(self, end: int) -> pa.Table:
        """Return the outcomes not handed out yet of the rows before `end`, in the rows' order."""
        reaching = [self._held]
        while self._ahead is not None and pc.min(self._ahead["ordinal"]).as_py() < end:
            reaching.append(self._ahead)
            self._ahead = next(self._tables, None)
        if len(reaching) > 1:
            self._held = pa.concat_tables(reaching).sort_by("ordinal")
        count = int(self._held["ordinal"].to_numpy().searchsorted(end))
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken
