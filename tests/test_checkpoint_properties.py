"""The checkpoint under any order of rows and parts, whatever of it is lost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.checkpoint import Checkpoint
from enrich.generation import Generation, Outcome
from enrich.outcomes import OutcomeReader, outcome_table, read_outcomes

unhurried = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])

FINGERPRINT = {"catalog content": "abc"}
any_ordinals = st.lists(st.integers(0, 90), unique=True, min_size=1, max_size=60)


def outcome(ordinal: int) -> Outcome:
    return Outcome(ordinal, f"text {ordinal}", Generation("generated", key=f"{ordinal:032x}", flags=("a",)))


def opened(directory: Path, commit_rows: int = 7) -> Checkpoint:
    return Checkpoint.open(directory, FINGERPRINT, run_id="run", commit_rows=commit_rows, commit_seconds=1e9)


@contextmanager
def new_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "out.parquet.checkpoint"


def all_outcomes(checkpoint: Checkpoint, steps: list[int]) -> list[Outcome]:
    """Read what a checkpoint holds, so many rows of the catalog at a time."""
    reader, end, found = OutcomeReader(checkpoint.outcomes()), 0, []
    for step in [*steps, 1_000]:
        end += step
        rows = list(read_outcomes(reader.take_below(end)))
        assert all(row.ordinal < end for row in rows)
        found += rows
    return found


@unhurried
@given(any_ordinals, st.integers(1, 20), st.data())
def test_whatever_parts_are_lost_the_others_count_and_the_rest_is_done_again(
    ordinals: list[int], commit_rows: int, data: st.DataObject
) -> None:
    with new_directory() as directory:
        with opened(directory, commit_rows) as checkpoint:
            for ordinal in ordinals:
                checkpoint.add(outcome(ordinal))
        parts = [ordinals[start : start + commit_rows] for start in range(0, len(ordinals), commit_rows)]
        faults = data.draw(
            st.lists(
                st.sampled_from(["whole", "gone", "cut", "flipped", "empty"]), min_size=len(parts), max_size=len(parts)
            )
        )
        left: set[int] = set()
        for number, (rows, fault) in enumerate(zip(parts, faults, strict=True), 1):
            path = directory / f"part-{number:06d}.parquet"
            raw = path.read_bytes()
            if fault == "gone":
                path.unlink()
            elif fault == "whole":
                left |= set(rows)
            else:
                at = data.draw(st.integers(0, len(raw) - 1))
                flipped = raw[:at] + bytes([raw[at] ^ 0x41]) + raw[at + 1 :]
                path.write_bytes({"cut": raw[:at], "flipped": flipped, "empty": b""}[fault])
        manifest = directory / "manifest.jsonl"
        header, *listed = manifest.read_text().splitlines()
        order = data.draw(st.permutations(listed))
        manifest.write_text("\n".join([header, *order]) + "\n")
        checkpoint = opened(directory)
        assert {ordinal for ordinal in range(91) if checkpoint.is_done(ordinal)} == left
        assert checkpoint.num_done == checkpoint.num_listed == len(left)
        assert len(checkpoint.notes) == len(parts) - faults.count("whole")
        again = data.draw(st.permutations([ordinal for ordinal in ordinals if ordinal not in left]))
        with checkpoint:
            for ordinal in again:
                checkpoint.add(outcome(ordinal))
        steps = data.draw(st.lists(st.integers(1, 30), max_size=6))
        assert all_outcomes(opened(directory), steps) == [outcome(ordinal) for ordinal in sorted(ordinals)]


@unhurried
@given(any_ordinals, st.integers(1, 9), st.integers(0, 4000))
def test_a_manifest_cut_anywhere_behind_its_head_loses_whole_parts_only(
    ordinals: list[int], commit_rows: int, cut: int
) -> None:
    with new_directory() as directory:
        with opened(directory, commit_rows) as checkpoint:
            for ordinal in ordinals:
                checkpoint.add(outcome(ordinal))
        manifest = directory / "manifest.jsonl"
        raw = manifest.read_bytes()
        head = raw.index(b"\n") + 1
        manifest.write_bytes(raw[: max(head, len(raw) - cut)])
        whole = manifest.read_bytes()[head:].count(b"\n")
        checkpoint = opened(directory)
        assert checkpoint.num_done == len(ordinals[: whole * commit_rows])
        kept = {path.name for path in directory.iterdir()}
        assert kept == {"manifest.jsonl", *(f"part-{number + 1:06d}.parquet" for number in range(whole))}
        assert all(json.loads(line) for line in manifest.read_text().splitlines())


@unhurried
@given(any_ordinals, st.data())
def test_outcomes_come_in_order_however_they_are_spread_over_tables(ordinals: list[int], data: st.DataObject) -> None:
    tables: list[list[int]] = [[] for _ in range(data.draw(st.integers(1, 6)))]
    for ordinal in ordinals:
        data.draw(st.sampled_from(tables)).append(ordinal)
    rising = sorted((sorted(rows) for rows in tables if rows), key=lambda rows: rows[0])
    reader = OutcomeReader(outcome_table([outcome(ordinal) for ordinal in rows]) for rows in rising)
    end, found = 0, []
    while end <= max(ordinals):
        end += data.draw(st.integers(1, 40))
        taken = reader.take_below(end)
        assert isinstance(taken, pa.Table)
        found += taken["ordinal"].to_pylist()
        assert found == sorted(ordinal for ordinal in ordinals if ordinal < end)


@pytest.mark.parametrize("commit_rows", [1, 3])
def test_the_examples_above_have_many_parts(commit_rows: int) -> None:
    with new_directory() as directory:
        with opened(directory, commit_rows) as checkpoint:
            for ordinal in range(9):
                checkpoint.add(outcome(ordinal))
        assert len(list(directory.glob("part-*.parquet"))) == 9 // commit_rows
