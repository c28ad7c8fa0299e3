"""Merging: the shards of an output, proved to be all of one run, put back into the catalog's order."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.batch_size import rows_at_once
from enrich.errors import ReconciliationError
from enrich.shard import ROW, Shard
from enrich.storage import durable

_WINDOW_ROWS = 65_536


def note_path(output: Path) -> Path:
    """Return where a merge notes what it publishes, until it has removed the shards."""
    return output.with_name(f".{output.name}.merged")


def write_note(output: Path, run_id: str | None, shards: Collection[str]) -> None:
    """Note that the output with this run's id is made of the shards with these."""
    with durable.aside(note_path(output)) as temporary:
        temporary.write_text(json.dumps({"run_id": run_id, "shards": list(shards)}), encoding="utf-8")


def read_note(output: Path) -> tuple[str | None, set[str]]:
    """Return what a merge that was killed has noted; None and nothing if there is no note."""
    try:
        note = json.loads(note_path(output).read_text(encoding="utf-8"))
        return note["run_id"], set(note["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, set()


def shards_beside(output: Path) -> dict[Shard, Path]:
    """Return the shards of an output that lie beside it, whether they make a whole or not."""
    form = re.compile(re.escape(output.stem) + r"\.shard-(\d+)-of-(\d+)" + re.escape(output.suffix))
    matches = [match for path in output.parent.iterdir() if (match := form.fullmatch(path.name))]
    return {Shard(int(match[1]), int(match[2])): output.parent / match[0] for match in matches}


def find_shards(output: Path) -> dict[Shard, Path]:
    """Find the shards of an output that lie beside it.

    Raises ReconciliationError if there are none, if they are of two splits, or if some are missing.
    """
    found = shards_beside(output)
    splits = sorted({shard.of for shard in found})
    if not found:
        raise ReconciliationError(f"{output}: there is no shard to merge, such as {Shard(1, 3).path(output).name}")
    if len(splits) > 1:
        raise ReconciliationError(
            f"{output}: shards of {splits[0]} and of {splits[1]} lie beside it; remove those that are not wanted"
        )
    missing = [shard.path(output).name for n in range(splits[0]) if (shard := Shard(n + 1, splits[0])) not in found]
    if missing:
        raise ReconciliationError(f"{output} was withheld: {', '.join(missing)} missing; run these shards first")
    return dict(sorted(found.items(), key=lambda item: item[0].number))


def check_alike(facts: dict[Path, dict[str, Any]]) -> None:
    """Raise ReconciliationError if the shards were not made of one catalog by one model with the same options."""
    first, *others = facts
    for other in others:
        one, two = facts[first].get("fingerprint", {}), facts[other].get("fingerprint", {})
        names = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]
        if names:
            raise ReconciliationError(
                f"{first.name} and {other.name} differ in {', '.join(names)}; run the older one again"
            )


def merged(paths: list[Path]) -> Iterator[pa.Table]:
    """Yield the shards' rows in the catalog's order, without the column of their places.

    Raises ReconciliationError if a row is there twice or not at all; the last rows of all can't be missed from here.
    """
    cursors = [_Cursor(path) for path in paths]
    start = end = 0
    while any(not cursor.is_done for cursor in cursors):
        tables = [cursor.take_below(start + _WINDOW_ROWS) for cursor in cursors]
        table = pa.concat_tables(tables).sort_by(ROW)
        # From where the window before ended, not from where this one starts: its last rows may be missing.
        for expected, row in enumerate(table[ROW].to_pylist(), end):
            if row != expected:
                raise ReconciliationError(
                    f"the shards do not make the whole: row {min(row, expected) + 1} is missing or there twice"
                )
        yield table.drop_columns([ROW])
        start, end = start + _WINDOW_ROWS, end + len(table)


class _Cursor:
    """Reads a shard from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False)
        self._batches = self._file.iter_batches(rows_at_once(self._file, _WINDOW_ROWS))
        self._held = pa.Table.from_batches([], self._file.schema_arrow)
        self.is_done = False
        self._fill()

    def _fill(self) -> None:
        batch = next(self._batches, None)
        if batch is not None:
            self._held = pa.concat_tables([self._held, pa.Table.from_batches([batch])]).combine_chunks()
        elif not len(self._held):
            self.is_done = True

    def take_below(self, row: int) -> pa.Table:
        """Return the next rows whose place is below `row`."""
        while not self.is_done and (not len(self._held) or self._held[ROW][-1].as_py() < row):
            before = len(self._held)
            self._fill()
            if len(self._held) == before:
                break
        places = self._held[ROW].to_numpy()
        count = int(places.searchsorted(row))
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        if not len(self._held):
            self._fill()
        return taken
