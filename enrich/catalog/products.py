"""Products: the rows of a batch in the program's terms, made of their cells when they are asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.catalog.roles import Roles, bare_name
from enrich.catalog.source_text import clean, is_placeholder, is_placeholder_title
from enrich.errors import CatalogError
from enrich.product import Attribute, Product

_MOST_ATTRIBUTES = 24
_DEEPEST = 32  # levels of lists and objects in a cell; what lies deeper has no words for people, and no end maybe
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
# Cells that stand in many rows, such as "Blue" or a category, are read once; longer ones seldom do.
_LONGEST_REMEMBERED = 80
_MOST_REMEMBERED = 65_536


class Products(Sequence[Product]):
    """The products of a batch of rows, numbered from `first` on.

    Whole columns are read when they are first asked for, attributes for the rows that are wanted only: on most nights
    hardly any are. Raises CatalogError for a cell that can't be read.
    """

    def __init__(self, batch: pa.RecordBatch, roles: Roles, first: int, where: str) -> None:
        """Take a batch whose first product has the ordinal `first`; `where` tells a person where it stands."""
        self._batch, self._roles = batch, roles
        self.first, self.where = first, where

    def __len__(self) -> int:
        return len(self._batch)

    def __iter__(self) -> Iterator[Product]:
        return iter(self.at(range(len(self))))

    @overload
    def __getitem__(self, row: int) -> Product: ...

    @overload
    def __getitem__(self, row: slice) -> list[Product]: ...

    def __getitem__(self, row: int | slice) -> Product | list[Product]:
        rows = range(len(self))[row]
        return self.at(rows) if isinstance(rows, range) else self.at([rows])[0]

    @cached_property
    def ids(self) -> list[str]:
        """The products' ids, empty where there is none."""
        return self._ids()

    @cached_property
    def groups(self) -> list[str]:
        """What the rows of one product have in common, be they of its variants: their group, or else their id."""
        if self._roles.group is None:
            return self.ids
        named = map(_text, self._values(self._roles.group))
        return [group or product_id for group, product_id in zip(named, self.ids, strict=True)]

    @cached_property
    def titles(self) -> list[str]:
        """The products' titles, empty where there is none."""
        return self._titles()

    @cached_property
    def descriptions(self) -> list[str]:
        """The existing descriptions exactly as they stand in the source, empty where there is none worth the name."""
        return self._descriptions()

    def _cells(self, name: str, chosen: pa.Array | None) -> list[str]:
        """Return some rows' ids, titles or descriptions, from the whole column if that is wanted or has been read."""
        if chosen is None:
            whole: list[str] = getattr(self, name)
            return whole
        if name in vars(self):
            return [getattr(self, name)[row] for row in chosen.to_pylist()]
        read = {"ids": self._ids, "titles": self._titles, "descriptions": self._descriptions}
        return read[name](chosen)

    def _ids(self, chosen: pa.Array | None = None) -> list[str]:
        return [_text(value) for value in self._values(self._roles.id, chosen)]

    def _titles(self, chosen: pa.Array | None = None) -> list[str]:
        texts = map(_text, self._values(self._roles.title, chosen))
        return ["" if is_placeholder_title(text) else text for text in texts]

    def _descriptions(self, chosen: pa.Array | None = None) -> list[str]:
        return [_description(value) for value in self._values(self._roles.description, chosen)]

    def descriptions_where(self, described: np.ndarray) -> pa.StringArray:
        """Return the descriptions of the rows that are known to have one, null for the others.

        `described` is a bool for each row. Columns of text are handed on without a look into them.
        """
        name = self._roles.description
        if name is None or not described.any():
            return pa.nulls(len(self), pa.string())
        column = self._batch.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = pa.array(self.descriptions, pa.string())
        return pc.if_else(pa.array(described), column.cast(pa.string()), pa.scalar(None, pa.string()))

    def at(self, rows: Sequence[int] | np.ndarray) -> list[Product]:
        """Return the products of some rows of the batch."""
        if not len(rows):
            return []
        chosen = None if len(rows) == len(self) else pa.array(rows, pa.int64())
        ids, titles = self._cells("ids", chosen), self._cells("titles", chosen)
        descriptions = self._cells("descriptions", chosen)
        roles = self._roles
        categories = self._values(roles.category, chosen)
        general = self._values(roles.general_category, chosen)
        attributes = [(_label(bare_name(column)), self._values(column, chosen)) for column in roles.attributes]
        pairs = [(self._values(name, chosen), self._values(value, chosen)) for name, value in roles.attribute_pairs]
        products = []
        for place, row in enumerate(rows):
            named = [(label, column[place]) for label, column in attributes]
            named += [(_text(names[place]), column[place]) for names, column in pairs]
            products.append(
                Product(
                    ordinal=self.first + int(row),
                    id=ids[place],
                    title=titles[place],
                    category=_category(categories[place]) or _category(general[place]),
                    attributes=_attributes(named),
                    description=descriptions[place],
                )
            )
        return products

    def _values(self, name: str | None, chosen: pa.Array | None = None) -> list[Any]:
        if name is None:
            return [None] * (len(self) if chosen is None else len(chosen))
        column = self._batch.column(name)
        if chosen is not None:
            column = column.take(chosen)
        # Python has no nanoseconds, and a prompt no need of them.
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        elif pa.types.is_time64(column.type):
            column = column.cast(pa.time64("us"), safe=False)
        try:
            values: list[Any] = column.to_pylist()
        # Invalid UTF-8, which Parquet may hold; the year 10,000; lists within lists without end.
        except (ValueError, OverflowError, RecursionError) as error:
            raise CatalogError(f"{self.where}: column {name!r} can't be read: {error}; write it anew") from error
        return values


def _text(value: Any, depth: int = _DEEPEST) -> str:
    """Return a cell of whatever type as clean text; a list as its items, comma after comma."""
    if value is None or depth == 0:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return ", ".join(filter(None, (_text(item, depth - 1) for item in value)))
    if isinstance(value, dict):
        if "value" in value:  # Amazon: {"language_tag": "en_US", "value": "Lamp"}
            return _text(value["value"], depth - 1)
        items = ((_label(str(name)), _text(item, depth - 1)) for name, item in value.items())
        return ", ".join(f"{name}: {text}" for name, text in items if text)
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "replace"))
    return clean(str(value))


def _category(value: Any) -> str:
    """Return a category path with its levels joined by " > ", most general first."""
    return _known_path(value) if _is_short(value) else _path(value)


def _path(value: Any) -> str:
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


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_REMEMBERED


_known_path = lru_cache(_MOST_REMEMBERED)(_path)


def _description(value: Any) -> str:
    if value is None:
        return ""
    text = "\n".join(str(item) for item in value if item) if isinstance(value, list) else _raw(value)
    return "" if is_placeholder(clean(text)) else text


def _raw(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _text(value)


def _attributes(named: list[tuple[str, Any]]) -> tuple[Attribute, ...]:
    """Return the attributes that have a value, columns that hold several of them taken apart."""
    names: set[str] = set()
    found: list[Attribute] = []
    for label, value in named:
        if value is None:
            continue
        for attribute in _known_cell(label, value) if _is_short(value) else _cell(label, value):
            # Most names come once, and need not be compared with their values.
            if attribute.name not in names or attribute not in found:
                names.add(attribute.name)
                found.append(attribute)
                if len(found) == _MOST_ATTRIBUTES:
                    return tuple(found)
    return tuple(found)


def _cell(label: str, value: Any) -> tuple[Attribute, ...]:
    return tuple(
        Attribute(name, text)
        for name, text in _pairs(label, value)
        if name and text and name.lower() not in _SHOP_DETAILS and not is_placeholder(text)
    )


_known_cell = lru_cache(_MOST_REMEMBERED)(_cell)


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
