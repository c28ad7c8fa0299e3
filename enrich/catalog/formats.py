"""Formats: CSV, JSON Lines, Amazon and Parquet files as streams of Arrow record batches, or a clear refusal.

Nothing is guessed silently: a file that one reader would shorten, shift or misread is refused with the row's number.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

from enrich.batch_size import rows_at_once
from enrich.catalog.amazon import AmazonSource, is_amazon
from enrich.catalog.jsonl import JsonLinesSource
from enrich.catalog.readahead import ReadAhead
from enrich.catalog.streams import BATCH_ROWS, CHUNK, LONGEST_ROW, one_line, open_stream, short
from enrich.errors import CatalogError

_CSV_BLOCK = LONGEST_ROW  # which is the longest that Arrow reads
_DELIMITERS = ",;\t|"
_LINE_END = re.compile(r"\r\n|\r|\n")
# Put in a last row of its own behind the file, where it comes back as a row unless a quote was left open before it.
# No field can hold it: files with NUL characters are refused.
_END_MARK = "\0"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "jsonl",  # of Amazon's and others' dumps, which have an object a line
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
    if not path.is_file():  # a pipe would keep the run waiting, and could be read but once
        raise CatalogError(f"{path}: is no regular file; write what it gives to one")
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
                f"{path}: unknown format; names end in .csv, .tsv, .jsonl, .ndjson, .json or .parquet (.gz, .zst)"
            )
        source: Source
        if kind == "csv":
            source = CsvSource(path, delimiter, encoding)
        elif kind == "jsonl":
            source = AmazonSource(path) if is_amazon(path) else JsonLinesSource(path)
        else:
            source = ParquetSource(path)
    except OSError as error:
        raise CatalogError(f"{path}: can't be read: {error.strerror or one_line(error)}") from error
    doubles = [name for name, count in Counter(source.schema.names).items() if count > 1]
    if doubles:
        raise CatalogError(f"{path}: column {short(doubles[0])} stands there more than once; rename one")
    return source


class ParquetSource:
    """A Parquet file, read a row group's pages at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.sha256()
        try:
            # Without pre_buffer memory stays flat; with it, it grows with the file.
            self.schema = pq.ParquetFile(path, pre_buffer=False).schema_arrow
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        except pa.ArrowException as error:
            raise CatalogError(f"{path}: not a whole Parquet file; copy it anew: {one_line(error)}") from error
        self.identity = digest.hexdigest()[:32]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows; raises CatalogError where the file is damaged."""
        try:
            file = pq.ParquetFile(self._path, pre_buffer=False, buffer_size=CHUNK)  # else a giant group is read at once
            yield from file.iter_batches(rows_at_once(file, BATCH_ROWS), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(f"{self._path}: damaged; copy it anew: {one_line(error)}") from error


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
                    f"{self._path}: can't be read to its end; copy it anew: {one_line(error)}"
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
            raise CatalogError(f"{self._path}: can't be read to its end; copy it anew: {one_line(error)}") from error
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
                chunk = stream.read(CHUNK)
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
            while chunk := stream.read(CHUNK):
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
            while chunk := stream.read(CHUNK):
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
        reader = ReadAhead(self._marked_chunks(), _CSV_BLOCK, names, self.delimiter, refuse)
        try:
            with reader:
                if reader.names != names:
                    raise CatalogError(
                        f"{self._path}, row 1: column names that can't be read; are their quotes closed?"
                    )
                for block in reader:
                    whole = self._without_end_mark(block, number)
                    for start in range(0, len(whole), BATCH_ROWS):
                        part = whole.slice(start, BATCH_ROWS)
                        self._refuse_swallowed_rows(part, number)
                        number += len(part)
                        yield part
        except (pa.ArrowException, OSError, UnicodeError) as error:
            text = one_line(error)
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
                        f"{self._path}, row {number + row}: the quoted {short(name)} runs over {len(lines)} lines that"
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
