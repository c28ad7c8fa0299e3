"""The state of an output from outside: what is told of one that a killed run has begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enrich.checkpoint import PROGRESS, Checkpoint
from enrich.generation import Generation, Outcome
from enrich.status import read_status


@pytest.mark.parametrize(("told", "done"), [(1, 12), (40, 40), ("?", None)])
def test_no_fewer_rows_are_done_than_are_committed(tmp_path: Path, told: object, done: int | None) -> None:
    output = tmp_path / "out.parquet"
    directory = tmp_path / "out.parquet.checkpoint"
    with Checkpoint.open(directory, {"catalog content": "abc"}, run_id="run", commit_rows=5) as checkpoint:
        for ordinal in range(12):
            checkpoint.add(Outcome(ordinal, "A text.", Generation("generated", key=f"k{ordinal}")))
    # A run notes this when a row is done, at most every two seconds: one that was killed may have noted little.
    (directory / PROGRESS).write_text(json.dumps({"rows": 100, "done": told}))
    status = read_status(output)
    assert (status.state, status.rows, status.done) == ("interrupted", 100, done)


def test_a_manifest_cut_short_still_counts_what_it_lists(tmp_path: Path) -> None:
    directory = tmp_path / "out.parquet.checkpoint"
    with Checkpoint.open(directory, {}, run_id="run", commit_rows=5) as checkpoint:
        for ordinal in range(10):
            checkpoint.add(Outcome(ordinal, "A text.", Generation("generated", key=f"k{ordinal}")))
    (directory / PROGRESS).write_text(json.dumps({"rows": 10, "done": 0}))
    manifest = directory / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    assert read_status(tmp_path / "out.parquet").done == 5
    manifest.write_bytes(b"")
    assert read_status(tmp_path / "out.parquet").done == 0
