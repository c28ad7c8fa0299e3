"""The listing: what shops and channels ask for beside a description, made of the text and its row alone.

Every field is a function of one row, so it is the same in every run. Lengths are in characters; texts are cut between
words, and where that leaves something out, with an ellipsis.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from enrich.errors import CatalogError, ConfigError
from enrich.product import Product
from enrich.quality.cleaning import split_sentences

_META_TITLE, _META_DESCRIPTION, _SLUG, _KEYWORDS = 60, 160, 80, 10
_TEXTS = pa.list_(pa.string())
_ELLIPSIS = "…"
# Where a title stops naming the product and goes on to list what it is like.
_TITLE_PARTS = re.compile(r"\s+[-–—|•:]\s+|[,;|(\[]")
_NAMING = ("brand", "manufacturer", "type", "style", "material", "color", "colour", "fabric", "finish", "theme", "room")
_SPLIT_VALUES = re.compile(r"\s*[,;/|]\s*")
_WORD = re.compile(r"\w+(?:['’-]\w+)*")

Make = Callable[[Product, str], Any]


@dataclass(frozen=True)
class Field:
    """One column: `make` gives its value for a product and its text, which may be empty."""

    name: str
    type: pa.DataType
    make: Make


@dataclass(frozen=True)
class Channel:
    """What one place of sale takes: its columns, and the longest description."""

    fields: tuple[Field, ...]
    max_characters: int


def shortened(text: str, most: int) -> str:
    """Cut a text to at most so many characters, between words."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    kept = text[: most - len(_ELLIPSIS) + 1].rpartition(" ")[0] or text[: most - len(_ELLIPSIS)]
    return kept.rstrip(" ,;:-–—(&") + _ELLIPSIS


def whole_sentences(text: str, most: int) -> str:
    """Return as many of a text's first sentences as fit into so many characters; at least a part of the first."""
    kept = ""
    for sentence in split_sentences(text)[0]:
        longer = f"{kept} {sentence}".strip()
        if len(longer) > most:
            break
        kept = longer
    return kept or shortened(text, most)


def meta_title(product: Product, most: int = _META_TITLE) -> str:
    """Return the title, without what it lists at its end if it is too long; with the brand if there is room."""
    title = " ".join(product.title.split())
    brand = _named(product, "brand")
    if brand and brand.lower() not in title.lower() and len(f"{title} | {brand}") <= most:
        return f"{title} | {brand}"
    if len(title) <= most:
        return title
    ends = [match.start() for match in _TITLE_PARTS.finditer(title) if match.start() <= most]
    whole = title[: ends[-1]].strip() if ends else ""
    return whole if len(whole) * 2 > most else shortened(title, most)


def meta_description(text: str, most: int = _META_DESCRIPTION) -> str:
    """Return the text's first sentences, as many as fit."""
    return whole_sentences(text, most)


def keywords(product: Product, most: int = _KEYWORDS) -> list[str]:
    """Return what the product can be found by: its name, kind, and the short values that say what it is like.

    All of them are the row's own words, in lower case, each once.
    """
    name = _TITLE_PARTS.split(product.title, maxsplit=1)[0]
    levels = reversed(product.category.split(" > ")) if product.category else []
    values = (
        value
        for wanted in _NAMING
        for attribute in product.attributes
        if attribute.name.lower() == wanted
        for value in _SPLIT_VALUES.split(attribute.value)
    )
    found = (" ".join(phrase.lower().split()) for phrase in (name, *levels, *values))
    return list(dict.fromkeys(phrase for phrase in found if 0 < len(phrase.split()) <= 6))[:most]


def slug(product: Product) -> str:
    """Return the title as a part of an address, in ASCII; two products of one title have the same."""
    from slugify import slugify

    return str(slugify(product.title, max_length=_SLUG, word_boundary=True, save_order=True))


def readability(text: str) -> float | None:
    """Return the automated readability index: the school years, American ones, that reading the text takes.

    4.71 characters a word + 0.5 words a sentence - 21.43 (Smith and Senter, "Automated Readability Index",
    AMRL-TR-66-220, 1967), to a tenth; None for a text without words.
    """
    words = _WORD.findall(text)
    if not words:
        return None
    sentences = max(1, len(split_sentences(text)[0]))
    return round(4.71 * sum(map(len, words)) / len(words) + 0.5 * len(words) / sentences - 21.43, 1)


def bullets(product: Product, text: str, *, number: int = 5, most: int = 250) -> list[str]:
    """Return the text's sentences as bullet points, and attributes where there are fewer than `number`."""
    points = [shortened(sentence, most) for sentence in split_sentences(text)[0]]
    points += [shortened(f"{attribute.name}: {attribute.value}", most) for attribute in product.attributes]
    return points[:number]


def paragraph(text: str) -> str:
    """Return a text as a paragraph of HTML, its own signs escaped."""
    return f"<p>{html.escape(text, quote=False)}</p>" if text else ""


def _named(product: Product, name: str) -> str:
    return next((attribute.value for attribute in product.attributes if attribute.name.lower() == name), "")


SEO = (
    Field("meta_title", pa.string(), lambda product, _: meta_title(product)),
    Field("meta_description", pa.string(), lambda _, text: meta_description(text)),
    Field("keywords", _TEXTS, lambda product, _: keywords(product)),
    Field("slug", pa.string(), lambda product, _: slug(product)),
    Field("readability", pa.float32(), lambda _, text: readability(text)),
)

CHANNELS = {
    "amazon": Channel(
        (
            Field("amazon_title", pa.string(), lambda product, _: shortened(product.title, 200)),
            Field("amazon_bullets", _TEXTS, bullets),
            Field("amazon_description", pa.string(), lambda _, text: whole_sentences(text, 2_000)),
        ),
        2_000,
    ),
    "google": Channel(
        (
            Field("google_title", pa.string(), lambda product, _: shortened(product.title, 150)),
            Field("google_description", pa.string(), lambda _, text: whole_sentences(text, 5_000)),
        ),
        5_000,
    ),
    "shopify": Channel(
        (
            Field("shopify_handle", pa.string(), lambda product, _: slug(product)),
            Field("shopify_body_html", pa.string(), lambda _, text: paragraph(text)),
            Field("shopify_seo_title", pa.string(), lambda product, _: meta_title(product, 70)),
            Field("shopify_seo_description", pa.string(), lambda _, text: meta_description(text)),
        ),
        5_000,
    ),
}


class Listing:
    """The columns that a run adds for shops and channels; none, unless it is asked for them.

    A column that the catalog has by the same name is filled where it is empty, and replaced if `overwrite`.
    """

    def __init__(self, *, seo: bool, channels: Iterable[str], overwrite: bool) -> None:
        """Take what is asked for. Raises ConfigError if what it needs is not installed."""
        self._fields = [*(SEO if seo else ()), *(field for name in channels for field in CHANNELS[name].fields)]
        self._overwrite = overwrite
        if any(field.name in ("slug", "shopify_handle") for field in self._fields) and not util.find_spec("slugify"):
            raise ConfigError("--seo and --channels shopify need the extra `seo`: pip install 'enrich[seo]'")

    def extend(self, source: pa.Schema) -> pa.Schema:
        """Return a catalog's schema with the columns that it lacks. Raises CatalogError if one can't be filled."""
        for field in self._fields:
            if field.name not in source.names:
                source = source.append(pa.field(field.name, field.type))
                continue
            found = source.field(field.name)
            if found.type != field.type and not (_is_text(found.type) and field.type in (pa.string(), _TEXTS)):
                raise CatalogError(
                    f"column {field.name!r} is of type {found.type}, which can't be filled; rename it in the catalog"
                )
            source = source.set(source.get_field_index(field.name), found.with_nullable(True))
        return source

    def add(self, batch: pa.RecordBatch, products: Sequence[Product], texts: pa.Array) -> pa.RecordBatch:
        """Return a catalog's rows with the columns filled: those of a row without a text or title by what it has."""
        if not self._fields:
            return batch
        schema = self.extend(batch.schema)
        columns = {name: batch.column(name) for name in batch.schema.names}
        described = [text or "" for text in texts.to_pylist()]
        rows = list(zip(products, described, strict=True))
        for field in self._fields:
            # An empty value is none: no title, no slug; no text, no description of it.
            values = [field.make(product, text) or None if product.title else None for product, text in rows]
            columns[field.name] = self._filled(columns.get(field.name), values, field.type)
        arrays = [columns[field.name].cast(field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _filled(self, old: pa.Array | None, values: list[Any], kind: pa.DataType) -> pa.Array:
        if old is None:
            return pa.array(values, kind)
        if _is_text(old.type) and kind == _TEXTS:
            values, kind = [", ".join(value) if value else None for value in values], pa.string()
        new = pa.array(values, kind).cast(old.type)
        is_empty = pc.is_null(old)
        if _is_text(old.type):
            is_empty = pc.or_(is_empty, pc.equal(pc.utf8_trim_whitespace(pc.fill_null(old, "")), ""))
        return pc.if_else(pc.or_(is_empty, pa.scalar(self._overwrite)), pc.coalesce(new, old), old)


def most_characters(channels: Iterable[str]) -> int | None:
    """Return how long a description may be for all of these channels, if there is any."""
    return min((CHANNELS[name].max_characters for name in channels), default=None)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
