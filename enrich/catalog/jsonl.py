"""JSON Lines: one object a line, the types of all lines joined into one schema."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from enrich.catalog.streams import BATCH_ROWS, CHUNK, LONGEST_ROW, one_line, open_stream, short
from enrich.errors import CatalogError

_DEEPEST = 32  # levels of lists and objects; Parquet makes three of a list, and its readers follow a hundred

Block = tuple[list[int], list[dict[str, Any]], bytes]
"""The numbers of some lines, the rows that they hold, and their bytes."""


def read_blocks(path: Path, parse: Callable[[str, bytes], dict[str, Any]]) -> Iterator[Block]:
    """Yield a text file's lines in blocks, blank ones left out, each parsed to a row.

    `parse` is given where the line stands ("file, line 3"), for its errors, and the line.
    """
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    raw: list[bytes] = []
    gathered = 0  # bytes
    try:
        with io.BufferedReader(open_stream(path), CHUNK) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_ROW + 1), b""), 1):
                if len(line) > LONGEST_ROW:
                    raise CatalogError(
                        f"{path}, line {number}: longer than {LONGEST_ROW:,} bytes; one object is wanted on each line"
                    )
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if not line or line.isspace():
                    continue
                numbers.append(number)
                rows.append(parse(f"{path}, line {number}", line))
                raw.append(line)
                gathered += len(line)
                if len(rows) == BATCH_ROWS or gathered >= LONGEST_ROW:
                    yield numbers, rows, b"".join(raw)
                    numbers, rows, raw, gathered = [], [], [], 0
    except (OSError, EOFError, pa.ArrowException) as error:
        raise CatalogError(f"{path}: can't be read to its end; copy it anew: {one_line(error)}") from error
    if rows:
        yield numbers, rows, b"".join(raw)


def parse_json(where: str, line: bytes) -> dict[str, Any]:
    """Return the object on a line; raises CatalogError, saying where, if it holds none."""
    try:
        row = json.loads(line.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise CatalogError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "one whole JSON object is wanted on each line"
        raise CatalogError(f"{where}: not JSON: {error.msg} at character {error.pos + 1}; {hint}") from error
    except (ValueError, RecursionError) as error:  # a double key; a number or a nesting beyond all bounds
        raise CatalogError(f"{where}: can't be read: {one_line(error)}; mend that line") from error
    if not isinstance(row, dict):
        raise CatalogError(f"{where}: a JSON object is wanted, one on each line (`jq -c '.[]'` takes an array apart)")
    return row


def check_name(where: str, name: str) -> None:
    """Raise CatalogError, saying where, for a key that can be no column's name."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise CatalogError(f"{where}: the key {short(name)} holds half a character; mend it") from error


class JsonLinesSource:
    """A JSON Lines file; the types of all lines are joined into one schema up front."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.sha256()
        types: dict[str, pa.DataType] = {}
        for numbers, rows, raw in read_blocks(path, parse_json):
            digest.update(raw)
            for name in dict.fromkeys(name for row in rows for name in row):
                if name not in types:
                    number = next(number for number, row in zip(numbers, rows, strict=True) if name in row)
                    check_name(f"{path}, line {number}", name)
                known = types.get(name, pa.null())
                types[name] = self._convert(name, numbers, rows, partial(_join_type, known))
        if not types:
            raise CatalogError(f"{path}: no rows; there is nothing to describe")
        self.schema = pa.schema([(name, _without_null(kind)) for name, kind in types.items()])
        self.identity = digest.hexdigest()[:32]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, each with every column that any line has."""
        for numbers, rows, _ in read_blocks(self._path, parse_json):
            arrays = [
                self._convert(field.name, numbers, rows, partial(pa.array, type=field.type)) for field in self.schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _convert(
        self, name: str, numbers: list[int], rows: list[dict[str, Any]], convert: Callable[[list[Any]], Any]
    ) -> Any:
        """Convert a column's values; raises CatalogError with the number of the first line that doesn't fit."""
        values = [row.get(name) for row in rows]
        try:
            return convert(values)
        except _MISFITS as error:
            index = bisect_left(range(1, len(values)), True, key=lambda count: not _fits(convert, values[:count]))
            reason = "half a character (a lone surrogate)" if isinstance(error, UnicodeError) else one_line(error)
            raise CatalogError(
                f"{self._path}, line {numbers[index]}: column {short(name)} changes its type or can't be kept:"
                f" {reason}; give it one type on every line (text always fits)"
            ) from error


# What Arrow raises for a value that a type can't hold; a lone surrogate is a UnicodeError, which is a ValueError.
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        double = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {short(double)} stands there more than once")
    return row


def _join_type(known: pa.DataType, values: list[Any]) -> pa.DataType:
    """Return the type that holds values of the known one and these. Raises ValueError for one that is too deep."""
    schemas = [pa.schema([("", known)]), pa.schema([("", pa.array(values).type)])]
    joined = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    if _depth(joined) > _DEEPEST:
        raise ValueError(f"lists and objects more than {_DEEPEST} deep")
    return joined


def _depth(kind: pa.DataType) -> int:
    """Return how many levels a type has, a plain value's being the first."""
    deepest, level = 0, [kind]
    while level:
        deepest += 1
        level = [one.field(n).type for one in level if pa.types.is_nested(one) for n in range(one.num_fields)]
    return deepest


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
