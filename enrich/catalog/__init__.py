"""The catalog: a file of products, streamed in input order and in bounded memory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from enrich.catalog.formats import open_source
from enrich.catalog.roles import RoleOptions, Roles, bare_name, find_roles
from enrich.catalog.source_text import clean, is_placeholder, is_placeholder_title
from enrich.errors import CatalogError
from enrich.product import Attribute, Product

__all__ = ["Catalog", "RoleOptions", "Roles"]

_MOST_ATTRIBUTES = 24
_LEVELS = re.compile(r"\s*(?:>+|\||::|\s/\s|»|›)\s*")
_FLIPKART_PAIR = re.compile(r'"key"\s*=>\s*"((?:[^"\\]|\\.)*)"\s*,\s*"value"\s*=>\s*"((?:[^"\\]|\\.)*)"')
_MAGENTO_COMMA = re.compile(r",(?=[^:=|,;<>]{1,60}=)")  # its values hold commas too
_PAIR = re.compile(r"\s*([^:=|,;<>]{1,60}?)\s*[:=](?!>)\s*(.*?)\s*")
_MAGENTO_ROOT = "Default Category"
# What Amazon's and others' details hold beside the product's properties: numbers for the shop, dates and ranks.
_SHOP_DETAILS = frozenset(
    {"asin", "upc", "ean", "gtin", "isbn", "isbn 10", "isbn 13", "item model number", "manufacturer part number"}
    | {"part number", "best sellers rank", "amazon best sellers rank", "customer reviews", "date first available"}
    | {"average customer review", "date first listed on amazon", "domestic shipping", "international shipping"}
    | {"shipping information", "is discontinued by manufacturer", "discontinued by manufacturer", "item part number"}
)


class Catalog:
    """A catalog file whose columns are mapped to roles.

    Raises CatalogError from the constructor if the file can't be read or mapped, from `batches` if a row can't.
    """

    def __init__(
        self,
        path: Path,
        told: RoleOptions,
        *,
        delimiter: str | None = None,
        encoding: str | None = None,
        limit: int | None = None,
    ) -> None:
        self.path = path
        self._source = open_source(path, delimiter, encoding)
        self._limit = limit
        self._told_encoding = bool(encoding)
        self.schema: pa.Schema = self._source.schema
        self.identity = self._source.identity
        self.roles: Roles = find_roles(self.schema.names, told, str(path))

    @property
    def notes(self) -> list[str]:
        """What was found out about the file that the user should know."""
        encoding = getattr(self._source, "encoding", "utf-8")
        if self._told_encoding or encoding == "utf-8":
            return []
        return [f"{self.path} is not UTF-8; read as {encoding} (name another with --encoding)"]

    def batches(self) -> Iterator[tuple[pa.RecordBatch, list[Product]]]:
        """Yield the source's rows as they are, each batch beside the products made of it."""
        ordinal = 0
        for batch in self._source.batches():
            if self._limit is not None:
                batch = batch.slice(0, max(0, self._limit - ordinal))
            if len(batch):
                yield batch, self._products(batch, ordinal)
            ordinal += len(batch)
            if self._limit is not None and ordinal >= self._limit:
                return

    def _products(self, batch: pa.RecordBatch, first: int) -> list[Product]:
        roles = self.roles

        def values(column: str | None) -> list[Any]:
            return [None] * len(batch) if column is None else self._values(batch.column(column), column, first)

        ids, titles, categories, descriptions = map(values, (roles.id, roles.title, roles.category, roles.description))
        general = values(roles.general_category)
        attributes = [(_label(bare_name(column)), values(column)) for column in roles.attributes]
        pairs = [(values(name), values(value)) for name, value in roles.attribute_pairs]
        products = []
        for row in range(len(batch)):
            named = [(label, column[row]) for label, column in attributes]
            named += [(_text(names[row]), column[row]) for names, column in pairs]
            title = _text(titles[row])
            products.append(
                Product(
                    ordinal=first + row,
                    id=_text(ids[row]),
                    title="" if is_placeholder_title(title) else title,
                    category=_category(categories[row]) or _category(general[row]),
                    attributes=tuple(_attributes(named)),
                    description=_description(descriptions[row]),
                )
            )
        return products

    def _values(self, column: pa.Array, name: str, first: int) -> list[Any]:
        # Python has no nanoseconds, and a prompt no need of them.
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        elif pa.types.is_time64(column.type):
            column = column.cast(pa.time64("us"), safe=False)
        try:
            values: list[Any] = column.to_pylist()
        except (ValueError, OverflowError) as error:  # invalid UTF-8, which Parquet may hold; the year 10,000
            rows = f"rows {first + 1} to {first + len(column)}"
            raise CatalogError(f"{self.path}, {rows}: column {name!r} can't be read: {error}; write it anew") from error
        return values


def _text(value: Any) -> str:
    """Return a cell of whatever type as clean text; a list as its items, comma after comma."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        if "value" in value:  # Amazon: {"language_tag": "en_US", "value": "Lamp"}
            return _text(value["value"])
        items = ((_label(str(name)), _text(item)) for name, item in value.items())
        return ", ".join(f"{name}: {text}" for name, text in items if text)
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "replace"))
    return clean(str(value))


def _category(value: Any) -> str:
    """Return a category path with its levels joined by " > ", most general first."""
    if isinstance(value, str) and value.startswith('["'):  # Flipkart: a list in a string
        value = _json(value, list) or value.strip('[]"')
    if isinstance(value, list) and value and isinstance(value[0], list):  # Amazon: several paths, of which the first
        value = value[0]
    if isinstance(value, list) and len(value) > 1:
        levels = [_text(level) for level in value]
    else:
        text = _text(value)
        if text.startswith(f"{_MAGENTO_ROOT}/"):  # several paths here too, "Default Category/Gear/Bags,Default …"
            text = text.split(f",{_MAGENTO_ROOT}")[0].replace("/", " / ")
        levels = _LEVELS.split(text)
    if levels[0] == _MAGENTO_ROOT:
        levels = levels[1:]
    path = " > ".join(filter(None, levels))
    return "" if is_placeholder(path) else path


def _description(value: Any) -> str:
    text = "\n".join(str(item) for item in value if item) if isinstance(value, list) else _raw(value)
    return "" if is_placeholder(clean(text)) else text


def _raw(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _text(value)


def _attributes(named: list[tuple[str, Any]]) -> Iterator[Attribute]:
    """Yield the attributes that have a value, columns that hold several of them taken apart."""
    seen = set()
    for label, value in named:
        for name, text in _pairs(label, value):
            if not name or not text or name.lower() in _SHOP_DETAILS:
                continue
            if not is_placeholder(text) and (name, text) not in seen:
                seen.add((name, text))
                yield Attribute(name, text)
                if len(seen) == _MOST_ATTRIBUTES:
                    return


def _pairs(label: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value.startswith("{"):
        value = _json(value, dict) or value
    if isinstance(value, dict) and label == "Author" and "name" in value:
        value = value["name"]  # Amazon, 2023: with a picture's address and a life
    if isinstance(value, dict) and "value" not in value:
        yield from ((_label(str(name)), _text(item)) for name, item in value.items())
        return
    if isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        yield from ((_label(str(name)), _text(item)) for name, item in value)  # an Arrow map
        return
    text = _text(value)
    if "=>" in text:  # Flipkart's product_specifications
        pairs = _FLIPKART_PAIR.findall(text)
        if pairs or text.startswith('{"product_specification"'):  # it may say nil, or values only
            yield from ((_label(_unescaped(name)), _unescaped(item)) for name, item in pairs)
            return
    splits = []  # Wayfair: a:b|c:d; Magento: a=b,c=d|e
    if "|" in text:
        splits.append(text.split("|"))
    if "=" in text:
        splits.append(_MAGENTO_COMMA.split(text))
    for parts in splits:
        matches = [_PAIR.fullmatch(part) for part in parts if part.strip()]
        if matches and all(matches):
            yield from ((_label(match[1]), match[2].replace("|", ", ")) for match in matches if match)
            return
    yield label, text


def _json(text: str, kind: type) -> Any:
    """Return the list or object that a text holds as JSON, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _label(name: str) -> str:
    """Return an attribute's name as a person would write it: `item_color` -> "Item Color"."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    plain = re.sub(r"[_\-]+", " ", clean(spaced)).rstrip(" :")
    return " ".join(map(_capital, plain.split())).replace("Colour", "Color")


def _capital(word: str) -> str:
    if word.isupper() and len(word) > 3:  # a header all in capitals; shorter ones may be USB or LED
        return word.capitalize()
    return word[:1].upper() + word[1:]
