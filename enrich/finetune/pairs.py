"""Pairs: what a model learns from, a rendered prompt and the text that should follow it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from enrich.catalog import Catalog, RoleOptions
from enrich.catalog.source_text import clean
from enrich.categories import Categories
from enrich.errors import CatalogError
from enrich.prompts import compile_template, render


@dataclass(frozen=True, slots=True)
class Pair:
    """A rendered prompt and the text that should follow it; `group` ties the variants of one product together."""

    group: str
    prompt: str
    text: str
    category: str = ""
    title: str = ""


@dataclass
class Reading:
    """The pairs of some catalogs, the number of their rows, and of those that were dropped, by reason."""

    pairs: list[Pair] = field(default_factory=list)
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def read_pairs(
    paths: Sequence[Path], told: RoleOptions, template: str | None = None, limit: int | None = None
) -> Reading:
    """Read the rows that have a title and a description, their prompts rendered as a run would render them.

    `template` takes the place of the categories' own; `limit` is the most rows to read of each catalog. Rows that share
    an id, or else a title, are one product. Raises CatalogError if no row has both.
    """
    categories = Categories(template)
    templates = {category: compile_template(category.template, category.name) for category in categories}
    reading = Reading()
    for path in paths:
        catalog = Catalog(path, told, limit=limit)
        for batch, products in catalog.batches():
            reading.rows += len(products)
            for row, product in enumerate(products):
                text = clean(product.description)
                if product.title and text:
                    category = categories.of(product)
                    prompt = render(templates[category], category.arrange(product))
                    group = product.id or product.title
                    reading.pairs.append(Pair(group, prompt, text, category.name, product.title))
                else:
                    written = _cell(batch, catalog.roles.description, row)
                    reading.dropped[_reason(product.title, written)] += 1
    if not reading.pairs:
        raise CatalogError(f"{', '.join(map(str, paths))}: no row has a title and a description to learn from")
    return reading


def _cell(batch: pa.RecordBatch, column: str | None, row: int) -> Any:
    return None if column is None else batch.column(column)[row].as_py()


def _reason(title: str, written: Any) -> str:
    written = " ".join(map(str, filter(None, written))) if isinstance(written, list) else str(written or "")
    if not written.strip():
        return "no description"
    if not title:
        return "no title"
    return "only HTML" if "<" in written and not clean(written) else "a placeholder"


def split(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Split so that no product has a text on both sides, on this run or the next, nor any text two products.

    Products that share a text are one group, and a hash of its name says where it goes. Of two groups or more, one is
    on either side, however few they are.
    """
    groups = _joined_groups(pairs)
    places = {group: _place(group) for group in set(groups)}
    learned = {group for group, place in places.items() if place >= held_out}
    if len(places) > 1 and held_out > 0:
        first, *_, last = sorted(places, key=lambda group: (places[group], group))
        learned = (learned | {last}) - {first}
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair, group in zip(pairs, groups, strict=True):
        sides[group not in learned].append(pair)
    return sides


def _place(group: str) -> float:
    digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _joined_groups(pairs: Sequence[Pair]) -> list[str]:
    """Return each pair's group, those that share a text joined under the first name in the alphabet."""
    parents: dict[str, str] = {}

    def root(group: str) -> str:
        while parents.setdefault(group, group) != group:
            parents[group] = group = parents[parents[group]]
        return group

    owners: dict[str, str] = {}
    for pair in pairs:
        one, other = root(pair.group), root(owners.setdefault(pair.text, pair.group))
        parents[max(one, other)] = min(one, other)
    return [root(pair.group) for pair in pairs]
