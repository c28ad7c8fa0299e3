"""Instructions: what a chat model is told before each product, made of what the product's category says of itself."""

from __future__ import annotations

from enrich.categories import Category

_MOST_CLAIMS = 12  # a model does not heed a long list


def system_prompt(category: Category) -> str:
    """Return the system prompt for the products of a category."""
    of_what = "" if category.name == "default" else f" The product is in the category {category.name}."
    said = f" Where they are given, say first: {', '.join(category.attributes)}." if category.attributes else ""
    # A category's own claims stand behind those of all.
    promises = f", such as: {', '.join(category.claims[-_MOST_CLAIMS:])}" if category.claims else ""
    tone = f" The tone is {category.tone}." if category.tone else ""
    return (
        f"You write product descriptions for a shop.{of_what} Write one paragraph of two to four whole sentences,"
        " in the language of the product's title, and name the product in it. Say only what the given facts say: add no"
        f" colour, material, size, number or brand.{said} Promise nothing that the facts do not{promises}.{tone}"
        " Answer with the description alone: no heading, no list, no markup."
    )
