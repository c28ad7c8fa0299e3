"""The wordings of all categories: how the products of each are put to a model."""

from __future__ import annotations

from jinja2 import Template

from enrich.categories import Categories, Category
from enrich.categories.instructions import system_prompt
from enrich.prompts import Wording, compile_template


def wordings(categories: Categories, *, chat: bool) -> dict[Category, Wording]:
    """Make each category's wording, with what a chat model is told first. Raises ConfigError for a bad template."""
    templates: dict[str, Template] = {}  # most categories share one
    for category in categories:
        if category.template not in templates:
            templates[category.template] = compile_template(category.template, category.name)
    return {
        category: Wording(templates[category.template], system_prompt(category) if chat else "")
        for category in categories
    }
