"""Arrow's reader behind ReadAhead: not far ahead, brought to its end, and what its text raises is raised."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from enrich.catalog.readahead import ReadAhead

ROW = b"1,Lamp\n"
BLOCK = 1 << 16


def reader(chunks: Iterator[bytes]) -> ReadAhead:
    return ReadAhead(chunks, BLOCK, ["id", "title"], ",", lambda _: "error")


def counted(chunks: list[bytes], read: list[int]) -> Iterator[bytes]:
    for chunk in chunks:
        read.append(len(chunk))
        yield chunk


def test_gives_every_row_in_order() -> None:
    rows = [f"{number},Lamp {number}\n".encode() for number in range(50_000)]
    with reader(iter([b"id,title\n", *rows])) as batches:
        assert batches.names == ["id", "title"]
        table = pa.Table.from_batches(list(batches))
    assert table["id"].to_pylist() == [str(number) for number in range(50_000)]


def test_reads_but_a_few_blocks_ahead_of_who_takes_the_rows() -> None:
    read: list[int] = []
    chunk = ROW * (BLOCK // len(ROW))
    with reader(counted([b"id,title\n", *[chunk] * 200], read)) as batches:
        taken = iter(batches)
        next(taken)
        before = -1
        while len(read) != before:  # until it has come to rest
            before = len(read)
            time.sleep(0.2)
        assert sum(read) < 8 * BLOCK
        assert sum(len(batch) for batch in taken) > 100 * (BLOCK // len(ROW))


@pytest.mark.slow
def test_what_reading_the_text_raises_is_raised() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"id,title\n" + ROW * 20_000
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match=r"^the disk is gone$"), reader(chunks()) as batches:
        list(batches)


def test_when_it_is_left_half_read_arrow_holds_nothing() -> None:
    for _ in range(20):
        with reader(iter([b"id,title\n", *[ROW * 10_000] * 50])) as batches:
            next(iter(batches))
            assert batches.held > 0
        assert batches.held == 0


@pytest.mark.slow
def test_a_process_may_end_in_the_midst_of_reading(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"id,title\n" + ROW * 20_000_000)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from enrich.catalog.formats import open_source\n"
        "batches = open_source(Path(sys.argv[1])).batches()\n"
        "next(batches)\n"
        "sys.exit(7)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.csv")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert {(process.communicate(timeout=60)[1], process.returncode) for process in started} == {("", 7)}
