"""Categories: one TOML file each, saying by which names catalogs know it and what of a product is worth stating."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from enrich.errors import ConfigError
from enrich.product import Product

_DIRECTORY = Path(__file__).parent
_DEFAULT = "default"
_KEYS = {"name", "aliases", "attributes", "template", "tone", "claims"}


@dataclass(frozen=True)
class Category:
    """How the products of one category are put to the model."""

    name: str
    aliases: tuple[str, ...]
    attributes: tuple[str, ...]
    template: str
    tone: str = ""
    claims: tuple[str, ...] = ()

    def arrange(self, product: Product) -> Product:
        """Put the attributes that this category names first, in its order; the others stay as they were."""
        rank = self._rank
        arranged = tuple(sorted(product.attributes, key=lambda a: rank.get(a.name.lower(), len(rank))))
        return product if arranged == product.attributes else replace(product, attributes=arranged)

    @cached_property
    def _rank(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.attributes)}


class Categories:
    """All categories, and which one a product belongs to. `template` replaces every category's own."""

    def __init__(self, template: str | None = None) -> None:
        files = {path.stem: _read(path) for path in sorted(_DIRECTORY.glob("*.toml"))}
        default_template = files[_DEFAULT]["template"]
        self._by_name = {
            stem: Category(
                name=stem,
                aliases=tuple(data["aliases"]),
                attributes=tuple(data["attributes"]),
                template=template or data.get("template", default_template),
                tone=data.get("tone", ""),
                claims=tuple(data.get("claims", ())),
            )
            for stem, data in files.items()
        }
        self._default = self._by_name[_DEFAULT]
        self._by_alias = {alias: category for category in self._by_name.values() for alias in category.aliases}
        self._by_path: dict[str, Category] = {}

    def of(self, product: Product) -> Category:
        """Return a product's category by the most general level of its path that any category claims."""
        path = product.category
        if path not in self._by_path:
            levels = (re.sub(r"[\W_]+", " ", level.lower()).strip() for level in path.split(" > "))
            known = (self._by_alias[level] for level in levels if level in self._by_alias)
            self._by_path[path] = next(known, self._default)
        return self._by_path[path]

    def __iter__(self) -> Iterator[Category]:
        return iter(self._by_name.values())

    def sources(self) -> list[str]:
        """Return all that prompts depend on here, for a fingerprint."""
        return [part for c in self for part in (c.name, *c.aliases, "", *c.attributes, c.template)]


def _read(path: Path) -> dict[str, Any]:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = data.keys() - _KEYS
    if unknown or data.get("name") != path.stem:
        raise ConfigError(f"{path}: name must be {path.stem!r} and keys among {sorted(_KEYS)}; found {sorted(data)}")
    return data
