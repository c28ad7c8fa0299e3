from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from enrich.checkpoint import Checkpoint
from enrich.errors import CheckpointMismatch
from enrich.generation import Generation, Outcome
from enrich.outcomes import OutcomeReader

FINGERPRINT = {"catalog content": "abc", "temperature": 0.7}


def open_checkpoint(directory: Path, fingerprint: dict[str, object] | None = None, **options: object) -> Checkpoint:
    return Checkpoint.open(directory, fingerprint or FINGERPRINT, run_id="run-2", commit_rows=10, **options)


def outcome(ordinal: int) -> Outcome:
    return Outcome(ordinal, f"text {ordinal}", Generation("generated", key=f"k{ordinal}", flags=("a", "b")))


def fill(directory: Path, ordinals: list[int]) -> None:
    with open_checkpoint(directory) as checkpoint:
        for ordinal in ordinals:
            checkpoint.add(outcome(ordinal))


def read(checkpoint: Checkpoint, *ends: int) -> list[list[Outcome]]:
    reader = OutcomeReader(checkpoint.outcomes())
    return [[as_outcome(row) for row in reader.take_below(end).to_pylist()] for end in ends]


def as_outcome(row: dict[str, Any]) -> Outcome:
    generation = row["generation"] | {"flags": tuple(row["generation"]["flags"])}
    return Outcome(row["ordinal"], row["text"], Generation(**generation))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet.checkpoint"


def test_what_was_added_is_found_in_order_after_reopening(directory: Path) -> None:
    fill(directory, [*range(20, 45), *range(20), 60])
    checkpoint = open_checkpoint(directory)
    assert checkpoint.num_done == checkpoint.num_listed == 46
    assert checkpoint.is_done(44)
    assert not checkpoint.is_done(45)
    assert not checkpoint.is_done(10**9)
    assert read(checkpoint, 30, 50, 70) == [
        [outcome(n) for n in range(30)],
        [outcome(n) for n in range(30, 45)],
        [outcome(60)],
    ]


def test_rows_are_committed_by_count_and_on_leaving_even_by_an_error(directory: Path) -> None:
    with pytest.raises(ValueError, match="boom"), open_checkpoint(directory) as checkpoint:
        for ordinal in range(13):
            checkpoint.add(outcome(ordinal))
        assert len(list(directory.glob("part-*.parquet"))) == 1
        raise ValueError("boom")
    assert open_checkpoint(directory).num_listed == 13


def test_rows_are_committed_by_time(directory: Path) -> None:
    with open_checkpoint(directory, commit_seconds=0.0) as checkpoint:
        checkpoint.add(outcome(0))
        assert open_checkpoint(directory).num_listed == 1


def test_the_run_id_is_that_of_the_first_run(directory: Path) -> None:
    with Checkpoint.open(directory, FINGERPRINT, run_id="run-1"):
        pass
    assert open_checkpoint(directory).run_id == "run-1"


def test_it_is_begun_when_it_is_entered(directory: Path) -> None:
    checkpoint = open_checkpoint(directory)
    assert not directory.exists()  # a run that dies before it generates leaves nothing
    with checkpoint:
        assert [path.name for path in directory.iterdir()] == ["manifest.jsonl"]


def test_another_fingerprint_is_refused_with_the_fields_that_differ(directory: Path) -> None:
    fill(directory, [1])
    with pytest.raises(CheckpointMismatch, match=r"temperature was 0\.7, is 0\.9.*--restart") as caught:
        open_checkpoint(directory, {"catalog content": "abc", "temperature": 0.9})
    assert "catalog" not in str(caught.value)
    assert open_checkpoint(directory).num_done == 1


def test_restart_drops_what_was_there(directory: Path) -> None:
    fill(directory, [1])
    assert open_checkpoint(directory, {"temperature": 1}, restart=True).num_done == 0


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_manifest_line_that_a_crash_cut_short_is_dropped(directory: Path, cut: int) -> None:
    fill(directory, list(range(10)))
    fill(directory, list(range(10, 20)))
    manifest = directory / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    checkpoint = open_checkpoint(directory)
    assert checkpoint.num_done == 10
    with checkpoint:
        checkpoint.add(outcome(15))
    again = open_checkpoint(directory)
    assert read(again, 20) == [[*(outcome(n) for n in range(10)), outcome(15)]]
    assert len(list(directory.iterdir())) == 3


@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing", "foreign"])
def test_a_damaged_part_is_done_again_and_the_others_stay(directory: Path, fault: str) -> None:
    fill(directory, list(range(10)))
    fill(directory, list(range(10, 20)))
    part = sorted(directory.glob("part-*.parquet"))[0]
    raw = part.read_bytes()
    if fault == "missing":
        part.unlink()
    else:
        middle = len(raw) // 2
        flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        part.write_bytes({"truncated": raw[:-9], "flipped": flipped, "foreign": b"PAR1"}[fault])
    checkpoint = open_checkpoint(directory)
    assert [checkpoint.is_done(n) for n in (0, 9, 10, 19)] == [False, False, True, True]
    assert len(checkpoint.notes) == 1
    with checkpoint:
        for ordinal in range(10):
            checkpoint.add(outcome(ordinal))
    again = open_checkpoint(directory)
    assert again.notes == []
    assert read(again, 20) == [[outcome(n) for n in range(20)]]


def test_a_part_that_was_never_listed_does_not_count(directory: Path) -> None:
    fill(directory, list(range(10)))
    (directory / "part-000002.parquet").write_bytes(b"half")
    (directory / "part-000003.tmp").write_bytes(b"half")
    assert open_checkpoint(directory).num_done == 10
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.jsonl", "part-000001.parquet"]


def test_a_part_listed_twice_counts_once(directory: Path) -> None:
    fill(directory, list(range(10)))
    manifest = directory / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, lines[-1]]) + "\n")
    checkpoint = open_checkpoint(directory)
    assert checkpoint.num_listed == 10
    assert read(checkpoint, 10) == [[outcome(n) for n in range(10)]]


def test_a_part_name_that_leads_out_of_the_checkpoint_is_not_followed(directory: Path, tmp_path: Path) -> None:
    fill(directory, list(range(10)))
    manifest = directory / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    stray = json.loads(lines[1])
    stray["part"]["name"] = "../stray.parquet"
    manifest.write_text("\n".join([*lines, json.dumps(stray)]) + "\n")
    assert open_checkpoint(directory).num_listed == 10


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]\n", b'{"format": 1}\n', b'{"format": 2, "run_id": 1, "fingerprint": [1]}\n']
)
def test_a_manifest_that_is_none_is_refused(directory: Path, content: bytes) -> None:
    fill(directory, [1])
    (directory / "manifest.jsonl").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match="--restart"):
        open_checkpoint(directory)


def test_a_newer_format_is_refused(directory: Path) -> None:
    fill(directory, [1])
    manifest = directory / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(CheckpointMismatch, match="format 3"):
        open_checkpoint(directory)


def test_a_directory_without_a_manifest_is_begun_anew(directory: Path) -> None:
    directory.mkdir()
    (directory / "manifest.tmp").write_text("{")
    with open_checkpoint(directory) as checkpoint:
        checkpoint.add(outcome(3))
    assert open_checkpoint(directory).num_done == 1


def test_removing_leaves_nothing(directory: Path) -> None:
    fill(directory, [1])
    open_checkpoint(directory).remove()
    assert not directory.exists()


def test_a_line_that_could_not_be_written_whole_does_not_spoil_the_next(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(directory, list(range(10)))
    fsync, failures = os.fsync, iter([True])

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "manifest.jsonl" and next(failures, False):
            os.truncate(directory / "manifest.jsonl", (directory / "manifest.jsonl").stat().st_size - 40)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), open_checkpoint(directory) as checkpoint:
        for ordinal in range(10, 20):  # leaving it tries once more, and there is room now
            checkpoint.add(outcome(ordinal))
    assert open_checkpoint(directory).num_listed == 20


def test_a_run_that_died_before_it_had_done_anything_binds_nobody(directory: Path) -> None:
    fill(directory, [])
    checkpoint = open_checkpoint(directory, {"temperature": 1})
    with checkpoint:
        checkpoint.add(outcome(3))
    assert open_checkpoint(directory, {"temperature": 1}).num_done == 1


def test_the_run_that_has_begun_it_is_told(directory: Path) -> None:
    assert Checkpoint.run_id_of(directory) is None
    fill(directory, [1])
    assert Checkpoint.run_id_of(directory) == "run-2"
    (directory / "manifest.jsonl").write_bytes(b"{")
    assert Checkpoint.run_id_of(directory) is None
