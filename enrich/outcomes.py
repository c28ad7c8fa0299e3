"""Outcomes in Arrow tables: the form in which finished rows go from where they were kept to the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.generation import GENERATION_TYPE, Attempt, Generation, Outcome

_FAILURE = pa.struct([("rule", pa.string()), ("severity", pa.string()), ("reason", pa.string())])
_ATTEMPT = pa.struct([("attempt", pa.int32()), ("text", pa.string()), ("failures", pa.list_(_FAILURE))])
OUTCOME_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("generation", GENERATION_TYPE, nullable=False),
        pa.field("attempts", pa.list_(_ATTEMPT)),
    ]
)


def outcome_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Return outcomes as a table, in the order in which they are given."""
    # Columns, not rows: `asdict` would copy every value that it comes by.
    records = [outcome.generation for outcome in outcomes]
    columns = [
        pa.array([outcome.ordinal for outcome in outcomes], pa.int64()),
        pa.array([outcome.text for outcome in outcomes], pa.string()),
        pa.StructArray.from_arrays(
            [pa.array([getattr(record, field.name) for record in records], field.type) for field in GENERATION_TYPE],
            fields=list(GENERATION_TYPE),
        ),
        pa.array(
            [list(map(_attempt_row, outcome.attempts)) or None for outcome in outcomes],
            OUTCOME_SCHEMA.field("attempts").type,
        ),
    ]
    return pa.Table.from_arrays(columns, schema=OUTCOME_SCHEMA)


def read_outcomes(table: pa.Table) -> Iterator[Outcome]:
    """Yield a table's outcomes, as `outcome_table` was given them."""
    for row in table.to_pylist():
        generation = row["generation"]
        generation["flags"] = tuple(generation["flags"] or ())
        attempts = tuple(map(_attempt, row["attempts"] or ()))
        yield Outcome(row["ordinal"], row["text"], Generation(**generation), attempts)


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    names = ("rule", "severity", "reason")
    failures = [dict(zip(names, failure, strict=True)) for failure in attempt.failures]
    return {"attempt": attempt.attempt, "text": attempt.text, "failures": failures}


def _attempt(row: Mapping[str, Any]) -> Attempt:
    failures = tuple((one["rule"], one["severity"], one["reason"]) for one in row["failures"])
    return Attempt(row["attempt"], row["text"], failures)


def flagged(generations: pa.StructArray, rows: np.ndarray, flag: str) -> pa.StructArray:
    """Return records with one flag more for `rows`, a bool for each, whose records do not have it yet."""
    if not rows.any():
        return generations
    fields = {field.name: generations.field(field.name) for field in GENERATION_TYPE}
    pairs = zip(fields["flags"].to_pylist(), rows.tolist(), strict=True)
    marked = [[*(old or ()), *([flag] if new and flag not in (old or ()) else ())] for old, new in pairs]
    fields["flags"] = pa.array(marked, fields["flags"].type)
    return pa.StructArray.from_arrays(list(fields.values()), fields=list(GENERATION_TYPE))


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
