from __future__ import annotations

import re

import pytest

from enrich.catalog.roles import RoleOptions, Roles, bare_name, find_roles
from enrich.errors import CatalogError

FIND = RoleOptions()


def refusal(columns: list[str], told: RoleOptions = FIND) -> str:
    with pytest.raises(CatalogError) as caught:
        find_roles(columns, told, "x.csv")
    message = str(caught.value)
    assert message.startswith("x.csv: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("columns", "roles"),
    [
        ("sku title category description color", Roles("title", "sku", "category", "description", ("color",))),
        ("ID Name Type Material", Roles("Name", "ID", "Type", None, ("Material",))),
        ("Product-ID PRODUCT_NAME productType Body", Roles("PRODUCT_NAME", "Product-ID", "productType", "Body")),
        ("name", Roles("name")),
        ("product price", Roles("product")),
        ("item_name asin", Roles("item_name", "asin")),
        ("attributes.color title meta:size", Roles("title", None, None, None, ("attributes.color", "meta:size"))),
        ("title body_html short_description", Roles("title", None, None, "body_html")),
        ("short_description description title", Roles("title", None, None, "description")),
        ("title seo_title meta_description", Roles("title")),
    ],
)
def test_plain_columns_are_found(columns: str, roles: Roles) -> None:
    assert find_roles(columns.split(), FIND, "x.csv") == roles


def test_descriptions_are_found_in_other_languages() -> None:
    assert find_roles(["title", "Beschreibung"], FIND, "").description == "Beschreibung"
    assert find_roles(["title", "Descripción"], FIND, "").description == "Descripción"


def test_a_header_cut_at_the_wrong_mark_is_told() -> None:
    with pytest.raises(CatalogError, match="see --delimiter, they seem to be separated by ';'"):
        find_roles(["sku;name"], FIND, "x.csv")
    with pytest.raises(CatalogError, match="name it with --title-column"):
        find_roles(["sku"], FIND, "x.csv")


def test_one_product_comes_before_a_group_of_them() -> None:
    assert find_roles(["Handle", "Title", "Variant SKU"], FIND, "").id == "Variant SKU"
    assert find_roles(["Handle", "Title", "Variant SKU"], FIND, "").group == "Handle"
    assert find_roles(["Handle", "Title"], FIND, "") == Roles("Title", "Handle")
    assert find_roles(["parent_asin", "title", "asin"], FIND, "").id == "asin"
    assert find_roles(["product-id", "item-name", "seller-sku"], FIND, "").id == "seller-sku"


def test_a_column_has_one_role() -> None:
    roles = find_roles(["id", "title", "brand", "type"], RoleOptions(category="brand"), "")
    assert roles.category == "brand"
    assert roles.attributes == ()


def test_numbered_columns_are_pairs_or_values() -> None:
    columns = ["Name", "Attribute 2 value(s)", "Attribute 2 name", "Attribute 1 name", "Attribute 1 value(s)"]
    columns += ["Attribute 1 visible", "Attribute 3 name", "bullet_point1", "Bullet Point 2", "feature1"]
    roles = find_roles(columns, FIND, "")
    assert roles.attribute_pairs == (
        ("Attribute 2 name", "Attribute 2 value(s)"),
        ("Attribute 1 name", "Attribute 1 value(s)"),
    )
    assert roles.attributes == ("bullet_point1", "Bullet Point 2", "feature1")


def test_columns_told_are_used() -> None:
    columns = ["id", "title", "what", "text", "kind", "color"]
    told = RoleOptions(id="text", title="what", category="kind", description="title", attributes=("color", "id"))
    assert find_roles(columns, told, "") == Roles("what", "text", "kind", "title", ("color", "id"))


def test_an_empty_name_means_none() -> None:
    columns = ["id", "title", "category", "description", "color"]
    told = RoleOptions(id="", category="", description="", attributes=())
    assert find_roles(columns, told, "") == Roles("title")


@pytest.mark.parametrize(
    ("told", "option"),
    [
        (RoleOptions(title="titel"), "--title-column"),
        (RoleOptions(id="titel"), "--id-column"),
        (RoleOptions(category="titel"), "--category-column"),
        (RoleOptions(description="titel"), "--description-column"),
        (RoleOptions(attributes=("sku", "titel")), "--attributes"),
    ],
)
def test_a_column_told_that_is_not_there_is_refused_with_a_hint(told: RoleOptions, option: str) -> None:
    assert refusal(["sku", "title"], told) == f"x.csv: no column 'titel' for {option}; did you mean 'title'?"


def test_without_a_near_name_all_are_listed() -> None:
    assert refusal(["sku", "title"], RoleOptions(id="zzz")).endswith("it has: 'sku', 'title'")


def test_a_catalog_without_a_title_is_refused_with_its_columns() -> None:
    message = refusal(["a", "b"])
    assert "no column looks like a product title; name it with --title-column. Columns: 'a', 'b'" in message
    assert "no column looks like" in refusal(["title"], RoleOptions(title=""))
    assert refusal([f"c{n}" for n in range(50)]).endswith("'c29' and 20 more")
    assert "no column looks like" in refusal([])


@pytest.mark.parametrize(
    ("column", "bare"),
    [
        ("color", "color"),
        ("attributes.item_color", "item_color"),
        ("Google Shopping / Gender", "Gender"),
        ("Fabric (product.metafields.shopify.fabric)", "Fabric"),
        ("Weight (kg)", "Weight (kg)"),
        ("Size (L/W/H)", "Size (L/W/H)"),
        ("color:", "color"),
        ("", ""),
    ],
)
def test_bare_names(column: str, bare: str) -> None:
    assert bare_name(column) == bare


def test_the_summary_is_one_line() -> None:
    roles = find_roles(["id", "title", "Option1 Name", "Option1 Value", "color"], FIND, "")
    assert roles.summary() == "id=id, title=title, category=(none), description=(none), attributes=color+Option1 Value"
    assert re.fullmatch(r".*attributes=\(none\)", Roles("t").summary())
