"""Formats: CSV, JSON Lines and Parquet files as streams of Arrow record batches, or a clear refusal.

Nothing is guessed silently: a file that one reader would shorten, shift or misread is refused with the row's number.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

from enrich.errors import CatalogError

BATCH_ROWS = 8192
_CHUNK = 1 << 20
_CSV_BLOCK = 16 << 20  # also the longest row that can be read
_DELIMITERS = ",;\t|"
_LINE_END = re.compile(r"\r\n|\r|\n")
# Put in a last row of its own behind the file, where it comes back as a row unless a quote was left open before it.
# No field can hold it: files with NUL characters are refused.
_END_MARK = "\0"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
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
            raise CatalogError(f"{path}: not a Parquet file, whatever its name says; unpack or rename it")
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
        raise CatalogError(f"{path}: can't be read: {error.strerror or _one_line(error)}") from error
    doubles = [name for name, count in Counter(source.schema.names).items() if count > 1]
    if doubles:
        raise CatalogError(f"{path}: column {_short(doubles[0])} stands there more than once; rename one")
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
        digest = hashlib.sha256()
        try:
            # Without pre_buffer memory stays flat; with it, it grows with the file.
            self.schema = pq.ParquetFile(path, pre_buffer=False).schema_arrow
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except pa.ArrowException as error:
            raise CatalogError(f"{path}: not a whole Parquet file; copy it anew: {_one_line(error)}") from error
        self.identity = digest.hexdigest()[:32]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows; raises CatalogError where the file is damaged."""
        try:
            yield from pq.ParquetFile(self._path, pre_buffer=False).iter_batches(BATCH_ROWS, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(f"{self._path}: damaged; copy it anew: {_one_line(error)}") from error


class _Misfit(Exception):
    """A file's bytes are not valid in an encoding."""


class CsvSource:
    """A CSV file, every column read as text, so that ids keep their zeros and texts their spaces."""

    def __init__(self, path: Path, delimiter: str | None, encoding: str | None) -> None:
        self._path = path
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0'):
            raise CatalogError(
                f"{path}: {delimiter!r} can't be the delimiter; name one character, as in --delimiter ';'"
            )
        self.identity, self.encoding = self._scan(encoding)
        head = next(self._utf8_chunks(), b"").decode("utf-8", "ignore")  # only its end can be cut inside a character
        if not head.strip():
            raise CatalogError(f"{path}: the file is empty")
        self.delimiter = _sniff_delimiter(head) if delimiter is None else delimiter
        try:
            rows = csv.reader(io.StringIO(head, newline=""), delimiter=self.delimiter)
            header = next(filter(None, rows), [])  # Arrow passes over blank lines before it too
        except csv.Error as error:
            raise CatalogError(f"{path}, row 1: column names that can't be read: {error}") from error
        if not any(header):
            raise CatalogError(f"{path}: the first line has no column names; write them above the rows")
        self.schema = pa.schema([(name, pa.string()) for name in header])

    def _scan(self, told: str | None) -> tuple[str, str]:
        """Read the whole file: its identity, and the encoding in which every byte of it is valid."""
        faults: dict[str, str] = {}
        for name in self._candidates(told):
            try:
                identity = self._identity(name)
            except _Misfit as misfit:
                faults[name] = str(misfit)
            except (OSError, EOFError, pa.ArrowException) as error:
                raise CatalogError(
                    f"{self._path}: can't be read to its end; copy it anew: {_one_line(error)}"
                ) from error
            else:
                if name == "cp1252" and not told and self._is_utf8_for_the_most_part():
                    raise CatalogError(
                        f"{self._path}: UTF-8 for the most part, but not all ({faults['utf-8']}); mend it, or name the"
                        " encoding with --encoding"
                    )
                return identity, name
        fault = "; ".join(f"not {name} ({reason})" for name, reason in faults.items())
        raise CatalogError(f"{self._path}: {fault}; name its encoding with --encoding, or save it as UTF-8")

    def _candidates(self, told: str | None) -> list[str]:
        """Return the encodings to try, in order; a byte order mark at the file's beginning tells it."""
        candidates = [self._encoding_name(told)] if told else ["utf-8", "cp1252"]
        try:
            with open_stream(self._path) as stream:
                head = stream.read(4)
        except (OSError, EOFError, pa.ArrowException) as error:
            raise CatalogError(f"{self._path}: can't be read to its end; copy it anew: {_one_line(error)}") from error
        if head.startswith(codecs.BOM_UTF8):
            if told and candidates != ["utf-8"]:
                raise CatalogError(
                    f"{self._path}: begins with the byte order mark of UTF-8, so it isn't {told}; leave --encoding out"
                )
            return ["utf-8"]
        return ["utf-16"] if not told and head.startswith(_UTF16_MARKS) else candidates

    def _identity(self, encoding: str) -> str:
        """Return a hash of the file's bytes; raises _Misfit, saying where, if they are not valid in this encoding."""
        digest = hashlib.sha256()
        decoder = codecs.getincrementaldecoder(encoding)()
        extends_ascii = encoding in ("utf-8", "cp1252")
        line = 1
        with open_stream(self._path) as stream:
            while True:
                chunk = stream.read(_CHUNK)
                digest.update(chunk)
                if extends_ascii and chunk.isascii() and b"\0" not in chunk and chunk and not decoder.getstate()[0]:
                    line += _line_ends(chunk)  # there is nothing to decode
                    continue
                try:
                    decoded = decoder.decode(chunk, not chunk)
                except UnicodeError as error:  # not always a UnicodeDecodeError: UTF-16 without its mark isn't
                    bad = getattr(error, "start", 0)
                    where = f"line {line + _line_ends(chunk[:bad])}" if chunk else "at its end"
                    raise _Misfit(f"{where}: {getattr(error, 'reason', error)}") from error
                if "\0" in decoded:
                    line += _line_ends(decoded[: decoded.index("\0")].encode("utf-8", "replace"))
                    raise CatalogError(
                        f"{self._path}, line {line}: a NUL character; a text file has none. If it is UTF-16, say"
                        " --encoding utf-16-le or save it as UTF-8"
                    )
                if not chunk:
                    return digest.hexdigest()[:32]
                line += _line_ends(chunk)

    def _is_utf8_for_the_most_part(self) -> bool:
        """Say whether more of the bytes beyond ASCII are part of UTF-8 (but for each character's first) than aren't."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        sound = broken = 0
        with open_stream(self._path) as stream:
            while chunk := stream.read(_CHUNK):
                text = decoder.decode(chunk)
                sound += len(chunk) - len(text)
                broken += text.count("\ufffd")
        rest = decoder.decode(b"", final=True)  # the beginning of a character that the file's end cuts off
        return sound - len(rest) > broken + len(rest)

    def _encoding_name(self, told: str) -> str:
        try:
            "a".encode(told)  # unlike codecs.lookup, refuses codecs like "hex" that don't make text
            name = codecs.lookup(told).name
        except (LookupError, ValueError) as error:
            raise CatalogError(f"{self._path}: unknown encoding {told!r}; utf-8 and cp1252 are known, say") from error
        return "utf-8" if name == "utf-8-sig" else name

    def _utf8_chunks(self) -> Iterator[bytes]:
        """Yield the file's text as UTF-8 whatever its encoding, without a byte order mark."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        begun = False
        with open_stream(self._path) as stream:
            while chunk := stream.read(_CHUNK):
                if self.encoding != "utf-8":
                    chunk = decoder.decode(chunk).encode()
                if not begun:
                    chunk = chunk.removeprefix(codecs.BOM_UTF8)
                    begun = True
                yield chunk
        yield decoder.decode(b"", final=True).encode()

    def _marked_chunks(self) -> Iterator[bytes]:
        yield from self._utf8_chunks()
        yield f"\n{_END_MARK}{self.delimiter * (len(self.schema) - 1)}\n".encode()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows; raises CatalogError, naming the row, where one has not as many fields as the header."""
        names = self.schema.names
        fault = ""

        def refuse(row: pa.csv.InvalidRow) -> str:
            nonlocal fault  # Arrow prints what is raised here and goes on to an error of its own
            if _END_MARK in (row.text or ""):
                fault = self._open_quote(row.number)
            else:
                begin = " ".join((row.text or "").split())[:60]
                fault = (
                    f"{self._path}, row {row.number}: {row.actual_columns} fields where the header has"
                    f" {row.expected_columns}: {begin!r}; quote fields that hold the delimiter, or name another with"
                    " --delimiter"
                )
            return "error"

        number = 2  # the header is row 1; blank lines are no rows
        try:
            reader = pa.csv.open_csv(
                io.BufferedReader(_Chunks(self._marked_chunks()), _CHUNK),
                pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
                pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=refuse),
                pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
            )
            if reader.schema.names != names:
                raise CatalogError(f"{self._path}, row 1: column names that can't be read; are their quotes closed?")
            for block in reader:
                whole = self._without_end_mark(block, number)
                for start in range(0, len(whole), BATCH_ROWS):
                    part = whole.slice(start, BATCH_ROWS)
                    self._refuse_swallowed_rows(part, number)
                    number += len(part)
                    yield part
        except (pa.ArrowException, OSError, UnicodeError) as error:
            text = _one_line(error)
            if "Empty CSV" in text:  # there are two lines at least, so the header's quote holds them all
                fault = self._open_quote(1)
            elif "straddling" in text:
                fault = (
                    f"{self._path}, after row {number - 1}: a row longer than {_CSV_BLOCK:,} bytes; is a quote mark"
                    " left open? Close or double it"
                )
            raise CatalogError(fault or f"{self._path}, after row {number - 1}: {text}") from error

    def _open_quote(self, number: int | None) -> str:
        return f"{self._path}, row {number}: a quote mark opened there is never closed; close or double it"

    def _without_end_mark(self, block: pa.RecordBatch, number: int) -> pa.RecordBatch:
        last = [column[-1].as_py() for column in block.columns] if len(block) else []
        if last and last[0] == _END_MARK:
            return block.slice(0, len(block) - 1)
        if any(_END_MARK in field for field in last):
            raise CatalogError(self._open_quote(number + len(block) - 1))
        return block

    def _refuse_swallowed_rows(self, batch: pa.RecordBatch, number: int) -> None:
        """Refuse a field that holds what look like whole rows: the trace of a stray quote that swallowed them."""
        width = len(self.schema)
        if width == 1:
            return
        for index, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
            with_newline = pa.compute.match_substring_regex(column, "[\r\n]")
            for row in pa.compute.indices_nonzero(with_newline).to_pylist():
                lines = _LINE_END.split(column[row].as_py())
                if self._fit_together(lines, index):
                    raise CatalogError(
                        f"{self._path}, row {number + row}: the quoted {_short(name)} runs over {len(lines)} lines that"
                        " look like rows of their own; close or double the stray quote mark (or, if it is all one"
                        " text, save the catalog as Parquet or JSON Lines)"
                    )

    def _fit_together(self, lines: list[str], column: int) -> bool:
        """Say whether the lines of a field are the end of its row, whole rows, and the beginning of another.

        Several lines of prose have delimiters too, but seldom just as many, and with a space behind them.
        """
        last_field = len(self.schema) - 1
        lines = [lines[0], *filter(None, lines[1:-1]), lines[-1]]
        wanted = [last_field - column, *[last_field] * (len(lines) - 2), column]
        if [line.count(self.delimiter) for line in lines] != wanted:
            return False
        if any(name.startswith(" ") for name in self.schema.names):  # "id, title": its rows have the spaces too
            return True
        return 2 * sum(line.count(self.delimiter + " ") for line in lines) < sum(wanted)


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a file that can be read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class JsonLinesSource:
    """A JSON Lines file; the types of all lines are joined into one schema up front."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.sha256()
        types: dict[str, pa.DataType] = {}
        for numbers, rows, raw in self._blocks():
            digest.update(raw)
            for name in dict.fromkeys(name for row in rows for name in row):
                if name not in types:
                    self._check_name(name, numbers, rows)
                known = types.get(name, pa.null())
                types[name] = self._convert(name, numbers, rows, partial(_join_type, known))
        if not types:
            raise CatalogError(f"{path}: no rows; there is nothing to describe")
        self.schema = pa.schema([(name, _without_null(kind)) for name, kind in types.items()])
        self.identity = digest.hexdigest()[:32]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, each with every column that any line has."""
        for numbers, rows, _ in self._blocks():
            arrays = [
                self._convert(field.name, numbers, rows, partial(pa.array, type=field.type)) for field in self.schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _check_name(self, name: str, numbers: list[int], rows: list[dict[str, Any]]) -> None:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            number = next(number for number, row in zip(numbers, rows, strict=True) if name in row)
            raise CatalogError(
                f"{self._path}, line {number}: the key {_short(name)} holds half a character; mend it"
            ) from error

    def _convert(
        self, name: str, numbers: list[int], rows: list[dict[str, Any]], convert: Callable[[list[Any]], Any]
    ) -> Any:
        """Convert a column's values; raises CatalogError with the number of the first line that doesn't fit."""
        values = [row.get(name) for row in rows]
        try:
            return convert(values)
        except _MISFITS as error:
            index = bisect_left(range(1, len(values)), True, key=lambda count: not _fits(convert, values[:count]))
            reason = "half a character (a lone surrogate)" if isinstance(error, UnicodeError) else _one_line(error)
            raise CatalogError(
                f"{self._path}, line {numbers[index]}: column {_short(name)} changes its type or can't be kept:"
                f" {reason}; give it one type on every line (text always fits)"
            ) from error

    def _blocks(self) -> Iterator[tuple[list[int], list[dict[str, Any]], bytes]]:
        """Yield the numbers of some lines, the rows that they hold, and their bytes; blank lines left out."""
        numbers: list[int] = []
        rows: list[dict[str, Any]] = []
        raw: list[bytes] = []
        try:
            with io.BufferedReader(open_stream(self._path), _CHUNK) as stream:
                for number, line in enumerate(stream, 1):
                    if number == 1:
                        line = line.removeprefix(codecs.BOM_UTF8)
                    if not line or line.isspace():
                        continue
                    numbers.append(number)
                    rows.append(self._row(number, line))
                    raw.append(line)
                    if len(rows) == BATCH_ROWS:
                        yield numbers, rows, b"".join(raw)
                        numbers, rows, raw = [], [], []
        except (OSError, EOFError, pa.ArrowException) as error:
            raise CatalogError(f"{self._path}: can't be read to its end; copy it anew: {_one_line(error)}") from error
        if rows:
            yield numbers, rows, b"".join(raw)

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        where = f"{self._path}, line {number}"
        try:
            row = json.loads(line.decode(), object_pairs_hook=_object)
        except UnicodeDecodeError as error:
            raise CatalogError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
        except json.JSONDecodeError as error:
            hint = "one whole JSON object is wanted on each line"
            raise CatalogError(f"{where}: not JSON: {error.msg} at character {error.pos + 1}; {hint}") from error
        except (ValueError, RecursionError) as error:  # a double key; a number or a nesting beyond all bounds
            raise CatalogError(f"{where}: can't be read: {_one_line(error)}; mend that line") from error
        if not isinstance(row, dict):
            raise CatalogError(
                f"{where}: a JSON object is wanted, one on each line (`jq -c '.[]'` takes an array apart)"
            )
        return row


# What Arrow raises for a value that a type can't hold; a lone surrogate is a UnicodeError, which is a ValueError.
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        double = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {_short(double)} stands there more than once")
    return row


def _join_type(known: pa.DataType, values: list[Any]) -> pa.DataType:
    """Return the type that holds values of the known one and these."""
    schemas = [pa.schema([("", known)]), pa.schema([("", pa.array(values).type)])]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _without_null(kind: pa.DataType) -> pa.DataType:
    """Return a type that Parquet can hold: text where no line has a value, a map where all have `{}`."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_null(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [(field.name, _without_null(field.type)) for field in kind]
        return pa.struct(fields) if fields else pa.map_(pa.string(), pa.string())
    return kind


def _fits(convert: Callable[[list[Any]], Any], values: list[Any]) -> bool:
    try:
        convert(values)
    except _MISFITS:
        return False
    return True


def _sniff_delimiter(head: str) -> str:
    """Pick the delimiter that gives the most fields in the header, best one that the rows after it agree with."""
    best, best_rank = ",", (False, 1)
    for delimiter in _DELIMITERS:
        rows: list[list[str]] = []
        try:
            for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter):
                if row:
                    rows.append(row)
                if len(rows) == 20:
                    break
        except csv.Error:  # a field too long for Python's reader, though not for Arrow's: the rows before it will do
            pass
        width = len(rows[0]) if rows else 1
        full = rows[1:-1]  # the last one may be cut off
        agreeing = sum(len(row) == width for row in full) >= len(full) / 2
        if width > 1 and (agreeing, width) > best_rank:
            best, best_rank = delimiter, (agreeing, width)
    return best


def _line_ends(chunk: bytes) -> int:
    return max(chunk.count(b"\n"), chunk.count(b"\r"))


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:60] + "…")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
