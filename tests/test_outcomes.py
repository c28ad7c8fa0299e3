from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.generation import Generation, Outcome
from enrich.outcomes import OUTCOME_SCHEMA, OutcomeReader, outcome_table


def table(ordinals: list[int]) -> pa.Table:
    return outcome_table([Outcome(n, f"text {n}", Generation("generated", flags=("a",) * (n % 3))) for n in ordinals])


def test_a_table_has_every_field_of_an_outcome() -> None:
    [row] = table([7]).to_pylist()
    assert (row["ordinal"], row["text"]) == (7, "text 7")
    assert row["generation"]["status"] == "generated"
    assert row["generation"]["flags"] == ["a"]
    assert table([]).schema == OUTCOME_SCHEMA


@settings(deadline=None)  # machines may be busy
@given(st.sets(st.integers(0, 60)), st.randoms(use_true_random=False), st.lists(st.integers(0, 70), max_size=6))
def test_rows_come_in_order_however_they_are_spread_over_tables(ordinals: set[int], draw, ends: list[int]) -> None:
    parts: list[list[int]] = [[] for _ in range(draw.randint(1, 5))]
    for ordinal in ordinals:
        draw.choice(parts).append(ordinal)
    tables = [table(draw.sample(part, len(part))) for part in sorted(parts, key=lambda part: min(part, default=99))]
    reader = OutcomeReader(iter(tables))
    taken = 0
    for end in sorted(ends):
        found = reader.take_below(end)
        assert found["ordinal"].to_pylist() == sorted(n for n in ordinals if taken <= n < end)
        assert found["text"].to_pylist() == [f"text {n}" for n in found["ordinal"].to_pylist()]
        taken = end


def test_tables_are_read_when_their_rows_are_wanted() -> None:
    read: list[int] = []

    def tables() -> Iterator[pa.Table]:
        for first in range(0, 50, 10):
            read.append(first)
            yield table([*range(first, first + 10)])

    reader = OutcomeReader(tables())
    assert len(reader.take_below(15)) == 15
    assert read == [0, 10, 20]
