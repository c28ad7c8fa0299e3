"""The flat form of an output: no structs and no lists, for shops, spreadsheets and tools that know neither."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from enrich.batch_size import rows_at_once
from enrich.errors import CatalogError, ConfigError
from enrich.output import facts_or_none, why_no_output
from enrich.storage.durable import aside

KINDS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_BATCH_ROWS = 16_384


def export(output: Path, file: Path, *, statuses: Collection[str] = (), generation: bool = True) -> int:
    """Write an enriched file's rows to `file`, in the form that its name says, and return how many there are.

    `generation` becomes a column a field, `generation_status` and so on, or is left out; lists become text with commas.
    `statuses` leaves only rows of these. Raises ConfigError for another name or a column that is there twice, and
    CatalogError if it is no enriched file.
    """
    kind = next((kind for kind in KINDS if file.name.lower().endswith(kind)), None)
    if kind is None:
        raise ConfigError(f"{file}: the name must end in {', '.join(KINDS)}")
    if file.resolve() == output.resolve():
        raise ConfigError(f"{file}: is the enriched file itself, which the next run needs as it is")
    if not facts_or_none(output):
        raise CatalogError(why_no_output(output))
    with pq.ParquetFile(output) as source:
        schema = _flat_schema(source.schema_arrow, generation)
        batches = _batches(source, statuses, generation)
        with aside(file) as temporary:
            return _WRITERS[kind.removesuffix(".gz")](batches, schema, temporary, kind.endswith(".gz"))


def _batches(source: pq.ParquetFile, statuses: Collection[str], generation: bool) -> Iterator[pa.RecordBatch]:
    for batch in source.iter_batches(rows_at_once(source, _BATCH_ROWS)):
        if statuses:
            status = pc.struct_field(batch["generation"], "status")
            batch = batch.filter(pc.is_in(status, pa.array(sorted(statuses))))
        yield _flattened(batch, generation)


def _flat_schema(source: pa.Schema, generation: bool) -> pa.Schema:
    no_rows = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in source], schema=source)
    schema = _flattened(no_rows, generation).schema
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ConfigError(f"column {twice[0]!r} would be there twice; leave the record out with --no-generation")
    return schema


def _flattened(batch: pa.RecordBatch, generation: bool) -> pa.RecordBatch:
    names: list[str] = []
    arrays: list[Any] = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if name != "generation":
            names.append(name)
            arrays.append(_plain(array))
        elif generation:
            for field in array.type:
                names.append(f"generation_{field.name}")
                arrays.append(_plain(pc.struct_field(array, field.name)))
    return pa.RecordBatch.from_arrays(arrays, names)


def _plain(array: pa.Array) -> pa.Array:
    """Return an array without nested values: lists of plain values with commas, all else that is nested as JSON."""
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return array.dictionary_decode()
    if not pa.types.is_nested(kind):
        return array
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and not pa.types.is_nested(kind.value_type):
        return _as_text(array, lambda values: ", ".join("" if one is None else str(one) for one in values))
    return _as_text(array, lambda value: json.dumps(value, ensure_ascii=False, default=_as_json))


def _as_text(array: pa.Array, write: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if value is None else write(value) for value in array.to_pylist()], pa.string())


def _write_csv(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, zipped: bool) -> int:
    rows = 0
    compression = "gzip" if zipped else None
    with pa.output_stream(str(path), compression=compression) as sink, csv.CSVWriter(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_json(batches: Iterator[pa.RecordBatch], _: pa.Schema, path: Path, zipped: bool) -> int:
    rows = 0
    opened = gzip.open if zipped else open
    with closing(opened(path, "wt", encoding="utf-8")) as sink:
        for batch in batches:
            for row in batch.to_pylist():
                sink.write(json.dumps(row, ensure_ascii=False, default=_as_json) + "\n")
            rows += batch.num_rows
    return rows


def _write_parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, _: bool) -> int:
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _as_json(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


_WRITERS = {".csv": _write_csv, ".jsonl": _write_json, ".parquet": _write_parquet}
