"""The size of a batch: how many rows of a Parquet file are read at once, so that long cells do not fill the memory."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow.parquet as pq

_MOST_BYTES = 64 << 20
_MOST_CELLS = 4 << 20  # a file of 10,000 columns is read a few hundred rows at a time


def rows_at_once(file: pq.ParquetFile, most: int, columns: Collection[str] | None = None) -> int:
    """Return how many rows to read at once: `most`, or fewer where a row group's take up more than 64 MiB.

    `columns` are those that are read. Reckoned is with the file's own word on its uncompressed size, which knows
    nothing of cells that a dictionary repeats.
    """
    metadata = file.metadata
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    named = None if columns is None else {_outermost(name) for name in columns}
    wanted = [number for number, path in enumerate(paths) if named is None or _outermost(path) in named]
    rows = min(most, _MOST_CELLS // max(len(wanted), 1))
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = sum(group.column(column).total_uncompressed_size for column in wanted)
        rows = min(rows, _MOST_BYTES * group.num_rows // max(size, 1)) if group.num_rows else rows
    return max(rows, 1)


def _outermost(name: str) -> str:
    return name.split(".")[0]  # of a nested column, or one whose own name has a dot in it, which does no harm
