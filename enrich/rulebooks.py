"""The rulebooks of all categories: their files' rules, with a run's own settings over them."""

from __future__ import annotations

from collections.abc import Mapping

from enrich.categories import Categories, Category
from enrich.quality import Rulebook


def rulebooks(
    categories: Categories, settings: Mapping[str, str], *, strict_facts: bool = False
) -> dict[Category, Rulebook]:
    """Make each category's rulebook. Raises ConfigError, naming the category, for a setting that can't be."""
    return {category: rulebook(category, settings, strict_facts=strict_facts) for category in categories}


def rulebook(category: Category, settings: Mapping[str, str], *, strict_facts: bool = False) -> Rulebook:
    """Make one category's rulebook. Raises ConfigError, naming its file, for a setting that can't be."""
    book = Rulebook(category.claims, dict(category.rules), strict_facts=strict_facts, where=f"{category.path}: ")
    return book.over(settings) if settings else book
