"""The output: the catalog's rows in their order with two more columns, published in one atomic step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich import durable
from enrich.errors import CatalogError, ReconciliationError
from enrich.generation import GENERATION_TYPE, Generation

_ROW_GROUP_ROWS = 65_536
_METADATA_KEY = "enrich.run"


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
    return pa.schema(fields, metadata=source.metadata)


class OutputWriter:
    """Writes the output beside its final name and gives it that name only when all is proved to be there.

    Use it as a context manager: left without `publish`, it leaves nothing behind.
    """

    def __init__(self, path: Path, source: pa.Schema, text_column: str) -> None:
        self._path = path
        # One name for all runs, of which the lock lets one work: what a killed one left is written over.
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._text_column = text_column
        self._schema = output_schema(source, text_column)
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_rows = 0
        self.num_rows = 0

    def write(self, batch: pa.RecordBatch, texts: Sequence[str | None], generations: Sequence[Generation]) -> None:
        """Append source rows with their texts and generations."""
        added = {
            self._text_column: pa.array(texts, self._schema.field(self._text_column).type),
            "generation": pa.array([asdict(generation) for generation in generations], GENERATION_TYPE),
        }
        columns = [added[name] if name in added else batch.column(name) for name in self._schema.names]
        self._gathered.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._gathered_rows += len(batch)
        self.num_rows += len(batch)
        if self._gathered_rows >= _ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._writer.write_table(pa.Table.from_batches(self._gathered), row_group_size=_ROW_GROUP_ROWS)
        self._gathered, self._gathered_rows = [], 0

    def publish(self, expected_rows: int, facts: Mapping[str, Any]) -> None:
        """Close the file with the run's facts in its metadata, read its row count back, and give it its name.

        Raises ReconciliationError if the count is not the one expected; the file published before stays.
        """
        self._flush()
        self._writer.add_key_value_metadata({_METADATA_KEY: json.dumps(facts)})
        self._writer.close()
        found = pq.ParquetFile(self._temporary, pre_buffer=False).metadata.num_rows
        if not found == self.num_rows == expected_rows:
            raise ReconciliationError(
                f"{self._path} was withheld: {expected_rows} rows in, {self.num_rows} written, {found} read back"
            )
        durable.publish(self._temporary, self._path)

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._temporary.unlink(missing_ok=True)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the run-wide facts of an enriched file; empty if it has none."""
    metadata = pq.ParquetFile(path, pre_buffer=False).schema_arrow.metadata or {}
    metadata = {**(pq.ParquetFile(path, pre_buffer=False).metadata.metadata or {}), **metadata}
    facts: dict[str, Any] = json.loads(metadata.get(_METADATA_KEY.encode(), b"{}"))
    return facts


def read_texts(path: Path, most: int) -> list[tuple[str, str]]:
    """Return (title, text) of some generated rows of an enriched file, spread over it.

    Raises CatalogError if the file is no output of `enrich run`.
    """
    import polars as pl

    facts = read_facts(path)
    if not facts:
        raise CatalogError(f"{path}: not written by `enrich run`")
    title, text = facts["roles"]["title"], facts["config"]["output_column"]
    generated = pl.col("generation").struct.field("status") == "generated"
    frame = pl.scan_parquet(path).filter(generated).select(pl.col(title).alias("_title"), pl.col(text).alias("_text"))
    count = frame.select(pl.len()).collect().item()
    step = max(1, count // most)
    return list(frame.gather_every(step).head(most).collect().iter_rows())
