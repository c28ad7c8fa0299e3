"""Roles: which column of a catalog is its id, title, category, attributes and existing description."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from enrich.errors import CatalogError
from enrich.hints import did_you_mean

# Column names as exported by Shopify, Google Merchant Center, Amazon, Magento, WooCommerce, Flipkart and Wayfair,
# and the plain ones, letters and digits only. The first that a catalog has wins: what names one product stands
# before what names a group of them, a full description before a short one. Descriptions are known in more languages
# than the rest, because texts that people wrote must not be overlooked.
_ID = """id sku sellersku productid variantsku itemid itemsku asin parentasin uniqid pid handle offerid gtin ean upc
    barcode productcode itemnumber code""".split()
# What names a product of several rows: its first has a title, each other stands for a variant or a picture.
_GROUP = ("handle",)
_TITLE = """title producttitle productname itemname name displayname productdisplayname originaltitle producttitleen
    label product""".split()
# "categories" before "producttype", which in a Magento export says "simple" or "configurable".
_CATEGORY = """category productcategory googleproductcategory categories producttype categorypath categoryhierarchy
    productcategorytree itemcategory maincategory maincat productclass type department itemtype browsenode""".split()
_GENERAL_CATEGORY = ("maincategory", "maincat")
_DESCRIPTION = """description productdescription bodyhtml body longdescription descriptionhtml itemdescription
    shortdescription productdescriptionhtml beschreibung langbeschreibung artikelbeschreibung produktbeschreibung
    kurzbeschreibung descripcion descrizione descricao beschrijving omschrijving""".split()
_ATTRIBUTES = """color colour material materials fabric finish style pattern size dimensions itemdimensions
    productdimensions capacity volume weight itemweight length width height shape scent flavor flavour brand
    brandname vendor manufacturer store author features feature productfeatures aboutproduct bulletpoints
    bulletpoint keyfeatures attributes additionalattributes productspecifications specifications specs details
    gender agegroup agerange season occasion theme model compatibility power voltage packsize quantity
    packagequantity count ingredients roomtype shade""".split()
_METAFIELD = re.compile(r"\s*\(product\.metafields\..*\)$")
_NUMBERED = re.compile(r"(?:attribute|option|bulletpoint|feature)(\d+)(name|values?|)")


@dataclass(frozen=True)
class Roles:
    """Column names by role.

    `attribute_pairs` are columns that hold a name beside columns that hold its value; `general_category` stands in for
    `category` where that is empty; `group` names a product of several rows, where their ids are those of its variants.
    """

    title: str
    id: str | None = None
    category: str | None = None
    description: str | None = None
    attributes: tuple[str, ...] = ()
    attribute_pairs: tuple[tuple[str, str], ...] = ()
    general_category: str | None = None
    group: str | None = None

    def summary(self) -> str:
        """Return the mapping in one line, for the log."""
        parts = [f"{role}={getattr(self, role) or '(none)'}" for role in ("id", "title", "category", "description")]
        names = [*self.attributes, *(value for _, value in self.attribute_pairs)]
        return ", ".join([*parts, f"attributes={'+'.join(names) or '(none)'}"])


@dataclass(frozen=True)
class RoleOptions:
    """Columns named by the user; None means: find it."""

    id: str | None = None
    title: str | None = None
    category: str | None = None
    description: str | None = None
    attributes: tuple[str, ...] | None = None


def find_roles(columns: Sequence[str], told: RoleOptions, path: str) -> Roles:
    """Map columns to roles as told, else by their names.

    Raises CatalogError if a column named by the user isn't there, or if nothing looks like a title.
    """
    by_plain_name: dict[str, str] = {}
    for column in columns:
        by_plain_name.setdefault(_plain(column), column)

    def named(column: str, option: str) -> str:
        if column in columns:
            return column
        hint = did_you_mean(column, columns, "it has: " + _listed(columns), likeness=0.5)
        raise CatalogError(f"{path}: no column {column!r} for {option}; {hint}")

    def role(names: Sequence[str], column: str | None, option: str) -> str | None:
        if column == "":  # told that there is none
            return None
        if column is not None:
            return named(column, option)
        return next((by_plain_name[name] for name in names if name in by_plain_name), None)

    title = role(_TITLE, told.title, "--title-column")
    if title is None:
        one = columns[0] if len(columns) == 1 else ""
        seems = next((mark for mark in ",;\t|" if mark in one), None)
        hint = f"see --delimiter, they seem to be separated by {seems!r}" if seems else "name it with --title-column"
        raise CatalogError(f"{path}: no column looks like a product title; {hint}. Columns: {_listed(columns)}")
    found_id = role([name for name in _ID if by_plain_name.get(name) != title], told.id, "--id-column")
    category = role(_CATEGORY, told.category, "--category-column")
    description = role(_DESCRIPTION, told.description, "--description-column")
    general = None if told.category is not None else role(_GENERAL_CATEGORY, None, "")
    general = None if general == category else general
    group = role(_GROUP, None, "")
    group = None if group in (title, found_id) else group
    taken = {title, found_id, category, general, description}
    pairs: tuple[tuple[str, str], ...] = ()
    if told.attributes is not None:
        attributes = tuple(named(column, "--attributes") for column in told.attributes)
    else:
        numbered = _numbered(columns)
        pairs = tuple((slot["name"], slot["value"]) for slot in numbered.values() if {"name", "value"} <= slot.keys())
        single = {slot["value"] for slot in numbered.values() if "value" in slot and "name" not in slot}
        attributes = tuple(
            column
            for column in columns
            if column not in taken and (_attribute_name(column) in _ATTRIBUTES or column in single)
        )
    return Roles(title, found_id, category, description, attributes, pairs, general, group)


def bare_name(column: str) -> str:
    """Return a column's name without the namespace some exports put around it.

    `attributes.color` -> "color", "Google Shopping / Gender" -> "Gender", "Weight (kg)" as it is.
    """
    name, bracket, unit = _METAFIELD.sub("", column).partition("(")
    return re.split(r"[./:]", name.rstrip("./: "))[-1].strip() + (f" ({unit}" if bracket else "")


def _plain(column: str) -> str:
    letters = unicodedata.normalize("NFKD", column.casefold())  # an accent is a letter's of its own then, and goes
    return re.sub(r"[^a-z0-9]", "", letters)


def _attribute_name(column: str) -> str:
    return _plain(bare_name(column).partition("(")[0])


def _numbered(columns: Sequence[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Collect "Attribute 1 name" / "Attribute 1 value(s)", "Option1 Name" / "Option1 Value", "bullet_point1"."""
    slots: dict[tuple[str, str], dict[str, str]] = {}
    for column in columns:
        match = _NUMBERED.fullmatch(_plain(column))
        if match:
            kind = _plain(column)[: match.start(1)]
            slots.setdefault((kind, match[1]), {})["name" if match[2] == "name" else "value"] = column
    return slots


def _listed(columns: Sequence[str], most: int = 30) -> str:
    names = ", ".join(map(repr, columns[:most]))
    return names + (f" and {len(columns) - most} more" if len(columns) > most else "")
