"""Batches of a Parquet file are smaller where its rows are long or wide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from enrich.batch_size import rows_at_once


def test_rows_at_once_follow_the_size_of_what_is_read(tmp_path: Path) -> None:
    texts = [f"{row} " + "x" * 100_000 for row in range(1000)]
    frame = pl.DataFrame({"id": range(1000), "text": texts, "generation": [{"key": "k", "a.b": 1}] * 1000})
    frame.write_parquet(tmp_path / "long.parquet", row_group_size=100)
    with pq.ParquetFile(tmp_path / "long.parquet") as file:
        assert 500 < rows_at_once(file, 8192) < 700
        assert 500 < rows_at_once(file, 8192, ["text"]) < 700
        assert rows_at_once(file, 8192, ["id", "generation.key"]) == 8192
        assert rows_at_once(file, 10) == 10
    frame.head(0).write_parquet(tmp_path / "empty.parquet")
    with pq.ParquetFile(tmp_path / "empty.parquet") as file:
        assert rows_at_once(file, 8192) == 8192


@pytest.mark.slow
def test_one_group_of_long_cells_is_read_in_bounded_memory(tmp_path: Path) -> None:
    # 300 MB of text in a single row group; once it took 1.1 GB to make products of them.
    texts = [f"{row} " + "word " * 20_000 for row in range(3000)]
    frame = pl.DataFrame({"id": range(3000), "title": "Lamp", "description": texts})
    frame.write_parquet(tmp_path / "long.parquet", row_group_size=3000)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from enrich.catalog import Catalog, RoleOptions\n"
        "catalog = Catalog(Path(sys.argv[1]), RoleOptions())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rows = sum(len(list(products)) for _, products in catalog.batches())\n"
        "print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "long.parquet")]
    rows, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(rows) == 3000
    assert int(grown) < 600
