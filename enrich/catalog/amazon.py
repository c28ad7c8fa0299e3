"""Amazon product metadata as McAuley's group publishes it, one product a line.

2014: Python literals, `{'asin': '0001', 'categories': [['Home', 'Lamps']], 'price': 9.99}`. 2018 and 2023: JSON. What a
key holds changes from line to line: a description is a text or a list of texts, a rank a text or a list, a price a
number or words. So each column gets the widest of the forms below that its values need, and no line is refused for it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from enrich.catalog.jsonl import check_name, parse_json, read_blocks
from enrich.catalog.streams import CHUNK, LONGEST_ROW, one_line, open_stream, short
from enrich.errors import CatalogError

_IDS = {"asin", "parent_asin"}
# Keys of the three forms beside a product's id, title and description.
_KEYS = {
    "also_buy", "also_view", "average_rating", "bought_together", "brand", "categories", "category", "date", "details",
    "feature", "features", "fit", "image", "images", "imageURL", "imageURLHighRes", "imUrl", "main_cat",
    "main_category", "price", "rank", "rating_number", "related", "salesRank", "similar_item", "store", "tech1",
    "tech2", "videos",
}  # fmt: skip
_LARGEST_INTEGER = 2**63 - 1
_LITERAL = re.compile(rb"\{\s*u?'")

# Forms of a column. Of those in _CHAIN each can hold what the ones before it can.
_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "paths": pa.list_(pa.list_(pa.string())),
    "json": pa.string(),  # whatever else, written as JSON
}
_CHAIN = ("integer", "number", "text", "texts", "paths")


def is_amazon(path: Path) -> bool:
    """Say whether a file's first line is a Python literal or has the keys that such metadata has."""
    line = _first_line(path)
    if _is_literal(line):
        return True
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and bool(_IDS & row.keys()) and len(_KEYS & row.keys()) > 1


class AmazonSource:
    """A file of Amazon product metadata, in any of its three forms."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parse: Callable[[str, bytes], dict[str, Any]] = (
            _parse_literal if _is_literal(_first_line(path)) else parse_json
        )
        digest = hashlib.sha256()
        forms: dict[str, str] = {}
        for numbers, rows, raw in read_blocks(path, self._parse):
            digest.update(raw)
            for number, row in zip(numbers, rows, strict=True):
                for name, value in row.items():
                    if not isinstance(name, str):
                        raise CatalogError(f"{path}, line {number}: the key {name!r} is no text; mend that line")
                    if name not in forms:
                        check_name(f"{path}, line {number}", name)
                    form = _form(value)
                    known = forms.setdefault(name, form)
                    if known != form:
                        forms[name] = _wider(known, form)
        if not forms:
            raise CatalogError(f"{path}: no rows; there is nothing to describe")
        self._forms = {name: form or "text" for name, form in forms.items()}
        self.schema = pa.schema([(name, _TYPES[form]) for name, form in self._forms.items()])
        self.identity = digest.hexdigest()[:32]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, each with every column that any line has."""
        for numbers, rows, _ in read_blocks(self._path, self._parse):
            arrays = [self._column(field, numbers, rows) for field in self.schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _column(self, field: pa.Field, numbers: list[int], rows: list[dict[str, Any]]) -> pa.Array:
        form = self._forms[field.name]
        try:
            return pa.array([_as(form, row.get(field.name)) for row in rows], field.type)
        except _MISFITS:
            for number, row in zip(numbers, rows, strict=True):
                try:
                    pa.array([_as(form, row.get(field.name))], field.type)
                except _MISFITS as error:
                    raise CatalogError(
                        f"{self._path}, line {number}: {short(field.name)} can't be kept: {one_line(error)}; mend that"
                        " line"
                    ) from error
            raise


# Half a character, bytes, a set, keys that JSON has no form for.
_MISFITS = (TypeError, ValueError, RecursionError, pa.ArrowException)


def _first_line(path: Path) -> bytes:
    try:
        with io.BufferedReader(open_stream(path), CHUNK) as stream:
            lines = iter(lambda: stream.readline(LONGEST_ROW), b"")
            return next((line for line in lines if not line.isspace()), b"").lstrip(b"\xef\xbb\xbf \t")
    except (OSError, EOFError, pa.ArrowException):
        return b""  # whatever it is, the reader of the whole file will say


def _is_literal(line: bytes) -> bool:
    return _LITERAL.match(line) is not None


def _parse_literal(where: str, line: bytes) -> dict[str, Any]:
    try:
        row = ast.literal_eval(line.decode().strip())
    except UnicodeDecodeError as error:
        raise CatalogError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise CatalogError(
            f"{where}: not a Python literal ({one_line(error).partition(' on line')[0]}); one whole dict is wanted on"
            " each line"
        ) from error
    if not isinstance(row, dict):
        raise CatalogError(f"{where}: a dict is wanted, one on each line")
    return {name: _mended(value) for name, value in row.items()}


def _mended(value: Any) -> Any:
    """Put together again the characters that Python 2 wrote byte by byte: `'caf\\xc3\\xa9'`."""
    if isinstance(value, str) and not value.isascii():
        try:
            return value.encode("latin-1").decode()
        except UnicodeError:
            return value
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {name: _mended(item) for name, item in value.items()}
    return value


def _form(value: Any) -> str:
    """Return the narrowest form that a value has; empty for one that any form can hold."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) <= _LARGEST_INTEGER else "json"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        if all(item is None or isinstance(item, str) for item in value):
            return "texts"
        if all(isinstance(item, list) and _form(item) == "texts" for item in value):
            return "paths"
    return "json"


def _wider(one: str, other: str) -> str:
    """Return a form that holds the values of both."""
    if not one or not other or one == other:
        return one or other
    return max(one, other, key=_CHAIN.index) if {one, other} <= {*_CHAIN} else "json"


def _as(form: str, value: Any) -> Any:
    """Return a value in its column's form."""
    if value is None:
        return None
    if form == "json":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _form(value) == form:
        return value
    if form == "number":
        return float(value)
    if form == "text":
        return str(value)
    texts = value if isinstance(value, list) else [str(value)] if value != "" else []
    return texts if form == "texts" else [texts] if texts else []
