"""A catalog row in the terms that the rest of the program speaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attribute:
    """One named property of a product, both sides cleaned text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Product:
    """One row of a catalog, its columns mapped to roles and their text cleaned.

    `ordinal` counts the source's rows from 0. `id` and `category` are empty where the catalog has none, `title` where
    the row can't be used. `description` is the existing text exactly as it stands in the source, or empty if the
    source has none worth the name.
    """

    ordinal: int
    id: str
    title: str
    category: str
    attributes: tuple[Attribute, ...]
    description: str
