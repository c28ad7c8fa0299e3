"""The catalog: a file of products, streamed in input order and in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from enrich.catalog.formats import open_source
from enrich.catalog.roles import RoleOptions, Roles, find_roles
from enrich.catalog.source_text import clean, is_placeholder
from enrich.product import Attribute, Product

__all__ = ["Catalog", "RoleOptions", "Roles"]

_MOST_ATTRIBUTES = 24
_LEVELS = re.compile(r"\s*(?:>+|\||::|\s/\s|»|›)\s*")
_FLIPKART_PAIR = re.compile(r'"key"\s*=>\s*"([^"]*)"\s*,\s*"value"\s*=>\s*"([^"]*)"')
_PAIR = re.compile(r"\s*([^:=|,;]{1,40}?)\s*[:=]\s*([^|]*?)\s*")


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
        self.schema: pa.Schema = self._source.schema
        self.identity = self._source.identity
        self.roles: Roles = find_roles(self.schema.names, told, str(path))

    @property
    def notes(self) -> list[str]:
        """What was found out about the file that the user should know."""
        encoding = getattr(self._source, "encoding", "utf-8")
        return [] if encoding == "utf-8" else [f"{self.path} is not UTF-8; read as {encoding}"]

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
            return [None] * len(batch) if column is None else batch.column(column).to_pylist()

        ids, titles, categories, descriptions = map(values, (roles.id, roles.title, roles.category, roles.description))
        attributes = [(_label(column), values(column)) for column in roles.attributes]
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
                    title="" if is_placeholder(title) else title,
                    category=_category(categories[row]),
                    attributes=tuple(_attributes(named)),
                    description=_description(descriptions[row]),
                )
            )
        return products


def _text(value: Any) -> str:
    """Return a cell of whatever type as clean text; a list as its items, comma after comma."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "replace"))
    return clean(str(value))


def _category(value: Any) -> str:
    """Return a category path with its levels joined by " > ", most general first."""
    if isinstance(value, list):
        if value and isinstance(value[0], list):  # Amazon: several paths, of which the first
            value = value[0]
        return " > ".join(filter(None, map(_text, value)))
    text = _text(value)
    if text.startswith('["'):  # Flipkart: a list in a string
        text = text.strip('[]"')
    text = " > ".join(filter(None, _LEVELS.split(text)))
    return "" if is_placeholder(text) else text


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
            if name and text and not is_placeholder(text) and (name, text) not in seen:
                seen.add((name, text))
                yield Attribute(name, text)
                if len(seen) == _MOST_ATTRIBUTES:
                    return


def _pairs(label: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield from ((_label(str(name)), _text(item)) for name, item in value.items())
        return
    if isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        yield from ((_label(str(name)), _text(item)) for name, item in value)  # an Arrow map
        return
    text = _text(value)
    if "=>" in text:  # Flipkart's product_specifications
        pairs = _FLIPKART_PAIR.findall(text)
        if pairs:
            yield from ((_label(name), item) for name, item in pairs)
            return
    separator = "|" if "|" in text else "," if "=" in text else None  # Wayfair: a:b|c:d; Magento: a=b,c=d
    if separator:
        matches = [_PAIR.fullmatch(part) for part in text.split(separator)]
        if all(matches):
            yield from ((_label(match[1]), match[2]) for match in matches if match)
            return
    yield label, text


def _label(column: str) -> str:
    """Return a column's name as a person would write it: `attributes.item_color` -> "Item Color"."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", re.split(r"[./:]", column)[-1])
    return clean(re.sub(r"[_\-]+", " ", words)).title().replace("Colour", "Color")
