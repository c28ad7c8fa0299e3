"""The output: the catalog's rows in their order with two more columns, published in one atomic step."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from enrich.batch_size import rows_at_once
from enrich.errors import CatalogError, ReconciliationError
from enrich.generation import GENERATED, GENERATION_TYPE, REUSED
from enrich.storage import durable

_ROW_GROUP_ROWS = 65_536
_ROW_GROUP_BYTES = 256 << 20  # in memory; wide rows make a group before they are that many
METADATA_KEY = "enrich.run"


def output_schema(source: pa.Schema, text_column: str) -> pa.Schema:
    """Return the source's schema with the text column (where it was, or at the end) and `generation` added."""
    fields = list(source)
    text_field = pa.field(text_column, pa.string())
    if text_column in source.names:
        index = source.get_field_index(text_column)
        if not (pa.types.is_string(fields[index].type) or pa.types.is_large_string(fields[index].type)):
            fields[index] = text_field
        fields[index] = fields[index].with_nullable(True)
    else:
        fields.append(text_field)
    fields.append(pa.field("generation", GENERATION_TYPE, nullable=False))
    # A catalog made of an output, by whatever tool, may still say what an earlier run said of itself.
    metadata = {name: value for name, value in (source.metadata or {}).items() if name != METADATA_KEY.encode()}
    return pa.schema(fields, metadata=metadata or None)


class _TextsDigest:
    """A hash over texts, statuses and keys, the same however the rows are cut into batches."""

    def __init__(self) -> None:
        self._states = [hashlib.sha256() for _ in range(6)]  # several times as fast as others where in hardware

    def update(self, columns: Sequence[pa.ChunkedArray]) -> None:
        """Take in the columns text, status and key of some rows."""
        for number, column in enumerate(columns):
            for chunk in column.chunks:
                array = chunk.cast(pa.large_string())
                lengths = pc.fill_null(pc.binary_length(array), -1).to_numpy(zero_copy_only=False)
                self._states[2 * number].update(np.ascontiguousarray(lengths, np.int64).data)
                whole = array.drop_null() if array.null_count else array
                _, offset_buffer, data = whole.buffers()
                if len(whole) and data:
                    offsets = np.frombuffer(offset_buffer, np.int64)
                    self._states[2 * number + 1].update(
                        memoryview(data)[offsets[whole.offset] : offsets[whole.offset + len(whole)]]
                    )

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(state.digest() for state in self._states)).hexdigest()[:32]


class OutputWriter:
    """Writes the output beside its final name and gives it that name only when all is proved to be there.

    Use it as a context manager: left without `publish`, it leaves nothing behind.
    """

    def __init__(self, path: Path, source: pa.Schema, text_column: str) -> None:
        self._path = path
        # One name for all runs, of which the lock lets one work: what a killed one left is written over.
        self._temporary = durable.temporary_of(path)
        self._text_column = text_column
        self._schema = output_schema(source, text_column)
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_rows = self._gathered_bytes = 0
        self._digest = _TextsDigest()
        self.num_rows = 0

    def write(self, batch: pa.RecordBatch, texts: pa.Array, generations: pa.StructArray) -> pa.RecordBatch:
        """Append source rows with their texts and generations; return them as they are published."""
        added = {
            self._text_column: texts.cast(self._schema.field(self._text_column).type),
            "generation": generations,
        }
        columns = [added[name] if name in added else batch.column(name) for name in self._schema.names]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        self.append([rows])
        return rows

    def append(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Append rows that have the output's columns already."""
        self._gathered += batches
        count = sum(map(len, batches))
        self._gathered_rows += count
        self._gathered_bytes += sum(batch.nbytes for batch in batches)
        self.num_rows += count
        if self._gathered_rows >= _ROW_GROUP_ROWS or self._gathered_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            table = pa.Table.from_batches(self._gathered)
            self._digest.update(_digested(table, self._text_column))
            self._writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        self._gathered, self._gathered_rows, self._gathered_bytes = [], 0, 0

    def finish(self, expected_rows: int, facts: Mapping[str, Any]) -> None:
        """Close the file with the run's facts in its metadata and read its row count back.

        Raises ReconciliationError if the count is not the one expected; the file published before stays.
        """
        self._flush()
        facts = {**facts, "texts": self._digest.hexdigest()}
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(facts)})
        self._writer.close()
        found = pq.ParquetFile(self._temporary, pre_buffer=False).metadata.num_rows
        if not found == self.num_rows == expected_rows:
            raise ReconciliationError(
                f"{self._path} was withheld: {expected_rows} rows in, {self.num_rows} written, {found} read back"
            )

    def is_as_published(self) -> bool:
        """Say whether the finished file has the rows, texts and keys of the one that it would replace."""
        return self._path.is_file() and _same_rows(self._temporary, self._path)

    def publish(self) -> None:
        """Give the finished file its name."""
        durable.publish(self._temporary, self._path)

    def withhold(self, path: Path) -> None:
        """Give the finished file another name, under which nobody takes it for the output."""
        durable.publish(self._temporary, path)

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        durable.abandon(self._writer)
        self._temporary.unlink(missing_ok=True)


def _digested(table: pa.Table, text_column: str) -> list[pa.ChunkedArray]:
    generation = table["generation"]
    return [table[text_column], pc.struct_field(generation, "status"), pc.struct_field(generation, "key")]


def _same_rows(one: Path, other: Path) -> bool:
    with pq.ParquetFile(one, pre_buffer=False) as a, pq.ParquetFile(other, pre_buffer=False) as b:
        if not a.schema_arrow.equals(b.schema_arrow) or a.metadata.num_rows != b.metadata.num_rows:
            return False
        rows = min(rows_at_once(file, _ROW_GROUP_ROWS) for file in (a, b))
        return all(
            _comparable(x).equals(_comparable(y)) for x, y in zip(_aligned(a, rows), _aligned(b, rows), strict=True)
        )


def _aligned(file: pq.ParquetFile, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of one size to the last, which `iter_batches` does only within what a file's row groups allow."""
    rest: list[pa.RecordBatch] = []
    for batch in file.iter_batches(rows):
        rest.append(batch)
        while sum(map(len, rest)) >= rows:
            whole = pa.Table.from_batches(rest).combine_chunks()
            yield whole.slice(0, rows)
            rest = whole.slice(rows).to_batches()
    yield pa.Table.from_batches(rest, file.schema_arrow)


def _comparable(table: pa.Table) -> pa.Table:
    generation = table["generation"]
    key, flags = pc.struct_field(generation, "key"), pc.struct_field(generation, "flags")
    return table.drop_columns(["generation"]).append_column("key", key).append_column("flags", flags)


def is_intact(path: Path, facts: Mapping[str, Any], text_column: str) -> bool:
    """Say whether texts, statuses and keys of a published file are still those that its run wrote."""
    digest = _TextsDigest()
    columns = [text_column, "generation.status", "generation.key"]
    with pq.ParquetFile(path, pre_buffer=False) as file, ThreadPoolExecutor(1) as ahead:
        # One row group is read while another is hashed.
        reading = deque[Future[pa.Table]]()
        for group in range(file.num_row_groups + 1):
            if group < file.num_row_groups:
                reading.append(ahead.submit(file.read_row_group, group, columns))
            if group > 0:
                digest.update(_digested(reading.popleft().result(), text_column))
    return digest.hexdigest() == facts.get("texts")


def read_facts(path: Path) -> dict[str, Any]:
    """Return the run-wide facts of an enriched file; empty if it has none."""
    return facts_of(pq.ParquetFile(path, pre_buffer=False))


def facts_of(file: pq.ParquetFile) -> dict[str, Any]:
    """Return the run-wide facts of an enriched file that is open; empty if it has none."""
    metadata = {**(file.metadata.metadata or {}), **(file.schema_arrow.metadata or {})}
    facts = json.loads(metadata.get(METADATA_KEY.encode(), b"{}"))
    return facts if isinstance(facts, dict) else {}


def facts_or_none(path: Path) -> dict[str, Any]:
    """Return the run-wide facts of a file, empty if it is not there, can't be read, or has none."""
    try:
        return read_facts(path) if path.is_file() else {}
    except (OSError, ValueError, pa.ArrowException):
        return {}


def why_no_output(path: Path) -> str:
    """Return what to tell of a file that has no run-wide facts."""
    try:
        columns = pq.read_schema(path).names if path.is_file() else []
    except (OSError, pa.ArrowException):
        columns = []
    if columns[:1] == ["change"]:
        return f"{path}: holds what a run has changed (--changes); name the enriched file itself"
    return f"{path}: not written by `enrich run`; name the Parquet file that it has written"


def read_texts(path: Path, most: int) -> list[tuple[str, str]]:
    """Return (title, text) of some rows of an enriched file whose text a model wrote, in any night, spread over it.

    Raises CatalogError if the file is no output of `enrich run`.
    """
    import polars as pl

    facts = facts_or_none(path)
    if not facts:
        raise CatalogError(why_no_output(path))
    title, text = facts["roles"]["title"], facts["config"]["output_column"]
    generated = pl.col("generation").struct.field("status").is_in([GENERATED, REUSED])
    frame = (
        pl.scan_parquet(path, glob=False)
        .filter(generated)
        .select(pl.col(title).alias("_title"), pl.col(text).alias("_text"))
    )
    count = frame.select(pl.len()).collect().item()
    step = max(1, count // most)
    return list(frame.gather_every(step).head(most).collect().iter_rows())
