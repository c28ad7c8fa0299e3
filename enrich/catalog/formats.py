"""Formats: CSV, JSON Lines and Parquet files as streams of Arrow record batches, or a clear refusal.

Nothing is guessed silently: a file that one reader would shorten, shift or misread is refused with the row's number.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from enrich.errors import CatalogError

BATCH_ROWS = 8192
_CHUNK = 1 << 20
_CSV_BLOCK = 16 << 20  # also the longest row that can be read
_DELIMITERS = ",;\t|"
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class Source(Protocol):
    """A file that can be streamed any number of times, always the same rows in the same order."""

    schema: pa.Schema
    identity: str

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order."""


def open_source(path: Path, delimiter: str | None = None, encoding: str | None = None) -> Source:
    """Open a catalog by its suffix (`.gz` and `.zst` after it are fine) and check what can be checked up front.

    Raises CatalogError if the file is missing, of an unknown format, damaged, or has no or double column names.
    """
    if not path.exists():
        raise CatalogError(f"{path}: no such file")
    if path.is_dir():
        raise CatalogError(f"{path}: is a directory; name one CSV, Parquet or JSON Lines file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in (".gz", ".zst", ".zstd"):
        suffixes.pop()
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"":
            raise CatalogError(f"{path}: the file is empty")
        if magic == b"PAR1":
            kind = "parquet"
        elif kind == "parquet":
            raise CatalogError(f"{path}: not a Parquet file, whatever its name says")
        if kind is None:
            raise CatalogError(
                f"{path}: unknown format; names end in .csv, .tsv, .jsonl, .ndjson or .parquet (.gz, .zst)"
            )
        source: Source
        if kind == "csv":
            source = CsvSource(path, delimiter, encoding)
        elif kind == "jsonl":
            source = JsonLinesSource(path)
        else:
            source = ParquetSource(path)
    except OSError as error:
        raise CatalogError(f"{path}: can't be read: {error.strerror or error}") from error
    doubles = [name for name, count in Counter(source.schema.names).items() if count > 1]
    if doubles:
        raise CatalogError(f"{path}: column {doubles[0]!r} stands there more than once; rename one")
    return source


def open_stream(path: Path) -> Any:
    """Open a file for reading bytes, decompressed if it is gzip or zstd, whatever its name."""
    with path.open("rb") as file:
        magic = file.read(4)
    compression = next((name for head, name in _COMPRESSIONS.items() if magic.startswith(head)), None)
    return pa.input_stream(str(path), compression=compression)


class ParquetSource:
    """A Parquet file, read a row group's pages at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.blake2b(digest_size=16)
        try:
            # Without pre_buffer memory stays flat; with it, it grows with the file.
            self.schema = pq.ParquetFile(path, pre_buffer=False).schema_arrow
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except pa.ArrowException as error:
            raise CatalogError(f"{path}: not a whole Parquet file: {_one_line(error)}") from error
        self.identity = digest.hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows; raises CatalogError where the file is damaged."""
        try:
            yield from pq.ParquetFile(self._path, pre_buffer=False).iter_batches(BATCH_ROWS, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(f"{self._path}: damaged: {_one_line(error)}") from error


class CsvSource:
    """A CSV file, every column read as text, so that ids keep their zeros and texts their spaces."""

    def __init__(self, path: Path, delimiter: str | None, encoding: str | None) -> None:
        self._path = path
        self.identity, self.encoding = self._scan(encoding)
        head = self._head()
        self.delimiter = delimiter or _sniff_delimiter(head)
        try:
            header = next(csv.reader(io.StringIO(head, newline=""), delimiter=self.delimiter), [])
        except csv.Error as error:
            raise CatalogError(f"{path}, row 1: {error}") from error
        if not any(header):
            raise CatalogError(f"{path}: the first line has no column names")
        self.schema = pa.schema([(name, pa.string()) for name in header])

    def _scan(self, told: str | None) -> tuple[str, str]:
        """Read the whole file once: its identity, and the encoding in which every byte of it is valid."""
        digest = hashlib.blake2b(digest_size=16)
        candidates = [told] if told else ["utf-8", "cp1252"]
        decoders = {}
        faults: dict[str, str] = {}
        line = 1
        try:
            decoders = {name: codecs.getincrementaldecoder(name)() for name in candidates}
        except LookupError as error:
            raise CatalogError(f"{self._path}: unknown encoding {told!r}") from error
        try:
            with open_stream(self._path) as stream:
                first = True
                while chunk := stream.read(_CHUNK):
                    if first and not told and chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                        candidates = ["utf-16"]
                        decoders = {"utf-16": codecs.getincrementaldecoder("utf-16")()}
                    first = False
                    digest.update(chunk)
                    for name in list(decoders):
                        try:
                            decoded = decoders[name].decode(chunk)
                        except UnicodeDecodeError as error:
                            fault_line = line + chunk[: error.start].count(b"\n")
                            faults[name] = f"line {fault_line}: {error.reason}"
                            del decoders[name]
                        else:
                            if "\0" in decoded:
                                raise CatalogError(f"{self._path}, near line {line}: a NUL byte; is it a text file?")
                    line += chunk.count(b"\n")
        except (OSError, EOFError, pa.ArrowException) as error:
            raise CatalogError(f"{self._path}: can't be read to its end: {_one_line(error)}") from error
        for name in list(decoders):
            try:
                decoders[name].decode(b"", final=True)
            except UnicodeDecodeError as error:
                faults[name] = f"at its end: {error.reason}"
                del decoders[name]
        if not decoders:
            fault = "; ".join(f"not {name} ({faults[name]})" for name in candidates)
            raise CatalogError(f"{self._path}: {fault}; name its encoding with --encoding")
        return digest.hexdigest(), next(iter(decoders))

    def _head(self) -> str:
        with open_stream(self._path) as stream:
            raw = stream.read(_CHUNK)
        text = codecs.getincrementaldecoder(self.encoding)().decode(raw)
        return text.removeprefix("\ufeff")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows; raises CatalogError, naming the row, where one has not as many fields as the header."""
        names, width = self.schema.names, len(self.schema)

        def refuse(row: pa.csv.InvalidRow) -> str:
            where = f"row {row.number}" if row.number is not None else "a row"
            begin = " ".join((row.text or "").split())[:60]
            raise CatalogError(
                f"{self._path}, {where}: {row.actual_columns} fields where the header has {row.expected_columns}:"
                f" {begin!r}; quote fields that hold the delimiter, or name another with --delimiter"
            )

        number = 2  # the header is row 1
        try:
            with open_stream(self._path) as stream:
                reader = pa.csv.open_csv(
                    stream,
                    pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK, encoding=self.encoding),
                    pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=refuse),
                    pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
                )
                if reader.schema.names != names:
                    raise CatalogError(f"{self._path}, row 1: column names that can't be read: {names}")
                for batch in reader:
                    for start in range(0, len(batch), BATCH_ROWS):
                        part = batch.slice(start, BATCH_ROWS)
                        self._refuse_swallowed_rows(part, number, width)
                        number += len(part)
                        yield part
        except pa.ArrowException as error:
            raise CatalogError(f"{self._path}, after row {number - 1}: {_one_line(error)}") from error

    def _refuse_swallowed_rows(self, batch: pa.RecordBatch, number: int, width: int) -> None:
        """Refuse a field that holds what look like whole rows: the trace of a stray quote that swallowed them."""
        if width < 3:
            return
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            with_newline = pa.compute.match_substring_regex(column, "[\r\n]")
            for index in pa.compute.indices_nonzero(with_newline).to_pylist():
                lines = column[index].as_py().splitlines()
                if any(line.count(self.delimiter) >= width - 1 for line in lines[1:]):
                    raise CatalogError(
                        f"{self._path}, row {number + index}: the quoted {name!r} runs over {len(lines)} lines that"
                        " look like rows of their own; close or double the stray quote mark"
                    )


class JsonLinesSource:
    """A JSON Lines file; the types of all lines are joined into one schema up front."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.blake2b(digest_size=16)
        schema = pa.schema([])
        for number, rows, raw in self._blocks():
            digest.update(raw)
            try:
                schema = pa.unify_schemas([schema, _infer(rows)], promote_options="permissive")
            except (pa.ArrowException, TypeError, OverflowError) as error:
                where = f"lines {number} to {number + len(rows) - 1}"
                raise CatalogError(f"{path}, {where}: a column changes its type: {_one_line(error)}") from error
        if not len(schema):
            raise CatalogError(f"{path}: no rows")
        self.schema = pa.schema(
            [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema]
        )
        self.identity = digest.hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, each with every column that any line has."""
        fields = [(field.name, field.type) for field in self.schema]
        for number, rows, _ in self._blocks():
            try:
                arrays = [pa.array([row.get(name) for row in rows], kind) for name, kind in fields]
            except (pa.ArrowException, TypeError, OverflowError) as error:
                raise CatalogError(f"{self._path}, after line {number}: {_one_line(error)}") from error
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _blocks(self) -> Iterator[tuple[int, list[dict[str, Any]], bytes]]:
        rows: list[dict[str, Any]] = []
        raw: list[bytes] = []
        first = 1
        try:
            with io.BufferedReader(open_stream(self._path), _CHUNK) as stream:
                for number, line in enumerate(stream, 1):
                    if number == 1:
                        line = line.removeprefix(codecs.BOM_UTF8)
                    if line.isspace():
                        continue
                    try:
                        row = json.loads(line)
                    except (json.JSONDecodeError, UnicodeDecodeError) as error:
                        raise CatalogError(f"{self._path}, line {number}: not JSON: {_one_line(error)}") from error
                    if not isinstance(row, dict):
                        raise CatalogError(f"{self._path}, line {number}: a JSON object is wanted, one on each line")
                    rows.append(row)
                    raw.append(line)
                    if len(rows) == BATCH_ROWS:
                        yield first, rows, b"".join(raw)
                        first, rows, raw = number + 1, [], []
        except (EOFError, pa.ArrowException) as error:
            raise CatalogError(f"{self._path}: can't be read to its end: {_one_line(error)}") from error
        if rows:
            yield first, rows, b"".join(raw)


def _infer(rows: list[dict[str, Any]]) -> pa.Schema:
    names = dict.fromkeys(name for row in rows for name in row)
    fields = []
    for name in names:
        try:
            fields.append((name, pa.array([row.get(name) for row in rows]).type))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise pa.ArrowInvalid(f"{name!r}: {_one_line(error)}") from error
    return pa.schema(fields)


def _sniff_delimiter(head: str) -> str:
    """Pick the delimiter that gives the most fields in the header and the same number in the rows after it."""
    best, best_width = ",", 1
    for delimiter in _DELIMITERS:
        try:
            rows = []
            for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter):
                rows.append(row)
                if len(rows) == 20:
                    break
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 1
        full = [row for row in rows[1:-1] if row]  # the last one may be cut off
        agreeing = sum(len(row) == width for row in full)
        if width > best_width and agreeing >= len(full) / 2:
            best, best_width = delimiter, width
    return best


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
