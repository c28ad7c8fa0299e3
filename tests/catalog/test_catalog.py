from __future__ import annotations

import csv
import datetime
import decimal
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.catalog import Catalog, RoleOptions, formats, jsonl
from enrich.errors import CatalogError
from enrich.product import Attribute, Product

SAMPLES = Path(__file__).parents[2] / "sample_catalogs"


def write_csv(path: Path, columns: Sequence[str], *rows: dict[str, str], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def products(path: Path, told: RoleOptions | None = None, **options: Any) -> list[Product]:
    catalog = Catalog(path, told or RoleOptions(), **options)
    found = []
    for batch, of_batch in catalog.batches():
        assert batch.schema.equals(catalog.schema)
        assert len(batch) == len(of_batch)
        found += of_batch
    assert [product.ordinal for product in found] == list(range(len(found)))
    return found


def pairs(product: Product) -> dict[str, str]:
    return {attribute.name: attribute.value for attribute in product.attributes}


def attributes_of(tmp_path: Path, column: str, value: Any) -> list[tuple[str, str]]:
    """Return the attributes that one cell gives."""
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"title": "Lamp", column: value}))
    [product] = products(path, RoleOptions(attributes=(column,)))
    return [(attribute.name, attribute.value) for attribute in product.attributes]


def category_of(tmp_path: Path, value: Any) -> str:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"title": "Lamp", "category": value}))
    return products(path)[0].category


# Exports, with their real headers


def test_shopify(tmp_path: Path) -> None:
    columns = [
        "Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Tags", "Published", "Option1 Name",
        "Option1 Value", "Option1 Linked To", "Option2 Name", "Option2 Value", "Option2 Linked To", "Option3 Name",
        "Option3 Value", "Option3 Linked To", "Variant SKU", "Variant Grams", "Variant Inventory Tracker",
        "Variant Inventory Qty", "Variant Inventory Policy", "Variant Fulfillment Service", "Variant Price",
        "Variant Compare At Price", "Variant Requires Shipping", "Variant Taxable", "Variant Barcode", "Image Src",
        "Image Position", "Image Alt Text", "Gift Card", "SEO Title", "SEO Description",
        "Google Shopping / Google Product Category", "Google Shopping / Gender", "Google Shopping / Age Group",
        "Google Shopping / MPN", "Google Shopping / Condition", "Google Shopping / Custom Product",
        "Fabric (product.metafields.shopify.fabric)", "Variant Image", "Variant Weight Unit", "Variant Tax Code",
        "Cost per item", "Status",
    ]  # fmt: skip
    shirt = {
        "Handle": "linen-shirt", "Title": "Linen Shirt", "Body (HTML)": "<p>Light &amp; airy.</p>\n<p>Pure linen.</p>",
        "Vendor": "Ørsted", "Product Category": "Apparel & Accessories > Clothing > Shirts & Tops", "Type": "Shirts",
        "Option1 Name": "Color", "Option1 Value": "Sea Blue", "Option2 Name": "Size", "Option2 Value": "M",
        "Variant SKU": "00123", "SEO Title": "Buy linen shirts", "Google Shopping / Gender": "unisex",
        "Fabric (product.metafields.shopify.fabric)": "Linen",
    }  # fmt: skip
    card = {"Handle": "mug", "Title": "Mug", "Option1 Name": "Title", "Option1 Value": "Default Title"}
    image = {"Handle": "mug", "Image Src": "https://cdn.example/2.jpg"}
    first, second, third = products(write_csv(tmp_path / "x.csv", columns, shirt, card, image))
    assert (first.id, first.title) == ("00123", "Linen Shirt")
    assert first.category == "Apparel & Accessories > Clothing > Shirts & Tops"
    assert first.description == "<p>Light &amp; airy.</p>\n<p>Pure linen.</p>"
    assert pairs(first) == {
        "Vendor": "Ørsted", "Gender": "unisex", "Fabric": "Linen", "Color": "Sea Blue", "Size": "M",
    }  # fmt: skip
    assert second == Product(1, "", "Mug", "", (), "")
    assert third.title == ""

    older = [column for column in columns if column != "Product Category"]
    del shirt["Product Category"]
    assert products(write_csv(tmp_path / "y.csv", older, shirt))[0].category == "Shirts"


def test_google_merchant_center(tmp_path: Path) -> None:
    columns = [
        "id", "title", "description", "link", "condition", "price", "availability", "image link", "gtin", "mpn",
        "brand", "google product category", "product type", "item group id", "color", "size", "age group", "gender",
        "material", "pattern", "shipping",
    ]  # fmt: skip
    row = {
        "id": "A-01", "title": "Wool Socks", "description": "Warm.", "brand": "Nord", "color": "grey/blue",
        "size": "38-40",
        "google product category": "Apparel & Accessories > Clothing > Socks", "product type": "Socks", "gtin": "0123",
        "age group": "adult", "material": "wool", "item group id": "A",
    }  # fmt: skip
    [product] = products(write_csv(tmp_path / "x.txt", columns, row, delimiter="\t"))
    assert (product.id, product.title, product.description) == ("A-01", "Wool Socks", "Warm.")
    assert product.category == "Apparel & Accessories > Clothing > Socks"
    assert pairs(product) == {
        "Brand": "Nord", "Color": "grey/blue", "Size": "38-40", "Age Group": "adult", "Material": "wool",
    }  # fmt: skip


def test_amazon_listings_report(tmp_path: Path) -> None:
    columns = [
        "item-name", "item-description", "listing-id", "seller-sku", "price", "quantity", "open-date", "image-url",
        "item-is-marketplace", "product-id-type", "zshop-shipping-fee", "item-note", "item-condition",
        "zshop-category1", "asin1", "asin2", "asin3", "will-ship-internationally", "product-id", "status",
    ]  # fmt: skip
    row = {"item-name": 'Pan, 5"', "item-description": "A pan.", "seller-sku": "00-7", "product-id": "B0001"}
    [product] = products(write_csv(tmp_path / "x.txt", columns, row, delimiter="\t"))
    assert (product.id, product.title, product.description) == ("00-7", 'Pan, 5"', "A pan.")


def test_amazon_flat_file(tmp_path: Path) -> None:
    columns = [
        "item_sku",
        "item_name",
        "brand_name",
        "item_type",
        "product_description",
        "bullet_point1",
        "bullet_point2",
    ]
    row = dict(zip(columns, ["7", "Lamp", "Acme", "desk-lamps", "null", "LED", "Dims"], strict=True))
    [product] = products(write_csv(tmp_path / "x.csv", columns, row))
    assert (product.id, product.title, product.category, product.description) == ("7", "Lamp", "desk-lamps", "")
    assert pairs(product) == {"Brand Name": "Acme", "Bullet Point1": "LED", "Bullet Point2": "Dims"}


@pytest.mark.parametrize("as_text", [False, True])
def test_amazon_reviews_metadata(tmp_path: Path, as_text: bool) -> None:
    details = {"Brand": "Nord", "Care/Use": "By hand", "Rank": {"Lamps": 5}, "Empty": ""}
    row = {
        "main_category": "Amazon Home", "title": "Oak Lamp", "average_rating": 4.5, "rating_number": 12,
        "features": ["Solid oak", "USB port"], "description": ["A lamp.", "Made in Norway."], "price": 19.0,
        "images": [],
        "videos": [], "store": "Nord Store", "categories": ["Home & Kitchen", "Lamps / Lights"],
        "details": json.dumps(details) if as_text else details, "parent_asin": "B00X", "bought_together": None,
    }  # fmt: skip
    bare = row | {
        "title": "Mug",
        "features": [],
        "description": [],
        "categories": [],
        "details": "{}" if as_text else {},
    }
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (row, bare)))
    first, second = products(path)
    assert (first.id, first.title, first.category) == ("B00X", "Oak Lamp", "Home & Kitchen > Lamps / Lights")
    assert first.description == "A lamp.\nMade in Norway."
    assert pairs(first) == {
        "Features": "Solid oak, USB port", "Store": "Nord Store", "Brand": "Nord", "Care/Use": "By hand",
        "Rank": "Lamps: 5",
    }  # fmt: skip
    assert (second.category, second.description, pairs(second)["Store"]) == ("Amazon Home", "", "Nord Store")


def test_amazon_berkeley_objects(tmp_path: Path) -> None:
    row = {
        "item_id": "B07", "item_name": [{"language_tag": "en_US", "value": "Rug"}],
        "color": [{"language_tag": "en_US", "standardized_values": ["Red"], "value": "Brick"}],
        "product_type": [{"value": "RUG"}],
    }  # fmt: skip
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row))
    [product] = products(path)
    assert (product.id, product.title, product.category, pairs(product)) == ("B07", "Rug", "RUG", {"Color": "Brick"})


def test_magento(tmp_path: Path) -> None:
    columns = [
        "sku", "store_view_code", "attribute_set_code", "product_type", "categories", "product_websites", "name",
        "description", "short_description", "weight", "product_online", "tax_class_name", "visibility", "price",
        "url_key", "meta_title", "meta_keywords", "meta_description", "base_image", "additional_attributes", "qty",
        "is_in_stock", "bundle_values",
    ]  # fmt: skip
    row = {
        "sku": "24-MB01", "attribute_set_code": "Bag", "product_type": "simple", "name": "Joust Duffle Bag",
        "categories": "Default Category/Gear,Default Category/Gear/Bags", "weight": "1.5",
        "short_description": "Short.",
        "additional_attributes": "activity=Gym|Hiking,features=Pocket, waterproof,material=Nylon,style_bags=Duffel",
    }  # fmt: skip
    other = row | {
        "categories": "Default Category/Gear/Bags,Default Category/Sale",
        "additional_attributes": "color=Red",
    }
    first, second = products(write_csv(tmp_path / "x.csv", columns, row, other))
    assert (first.id, first.title, first.category) == ("24-MB01", "Joust Duffle Bag", "Gear")
    assert pairs(first) == {
        "Weight": "1.5", "Activity": "Gym, Hiking", "Features": "Pocket, waterproof", "Material": "Nylon",
        "Style Bags": "Duffel",
    }  # fmt: skip
    assert second.category == "Gear > Bags"
    assert pairs(second) == {"Weight": "1.5", "Color": "Red"}


def test_woocommerce(tmp_path: Path) -> None:
    columns = [
        "ID", "Type", "SKU", "GTIN, UPC, EAN, or ISBN", "Name", "Published", "Is featured?", "Visibility in catalog",
        "Short description", "Description", "Tax status", "In stock?", "Stock", "Weight (kg)", "Length (cm)",
        "Sale price", "Regular price", "Categories", "Tags", "Shipping class", "Images", "Parent", "Upsells",
        "Attribute 1 name", "Attribute 1 value(s)", "Attribute 1 visible", "Attribute 1 global", "Attribute 2 name",
        "Attribute 2 value(s)", "Attribute 2 visible", "Attribute 2 global", "Meta: _wpcom_is_markdown",
    ]  # fmt: skip
    row = {
        "ID": "44", "Type": "variable", "SKU": "woo-hoodie", "Name": "Hoodie", "Categories": "Clothing > Hoodies",
        "Description": "", "Short description": "Short.", "Weight (kg)": "1.5", "Attribute 1 name": "Color",
        "Attribute 1 value(s)": "Blue, Green, Red", "Attribute 1 visible": "1", "Attribute 2 name": "T-Shirt Size",
        "Attribute 2 value(s)": "M",
    }  # fmt: skip
    [product] = products(write_csv(tmp_path / "x.csv", columns, row))
    assert (product.id, product.title, product.category, product.description) == (
        "44",
        "Hoodie",
        "Clothing > Hoodies",
        "",
    )
    assert pairs(product) == {"Weight (kg)": "1.5", "Color": "Blue, Green, Red", "T-Shirt Size": "M"}


def test_flipkart(tmp_path: Path) -> None:
    columns = [
        "uniq_id", "crawl_timestamp", "product_url", "product_name", "product_category_tree", "pid", "retail_price",
        "discounted_price", "image", "is_FK_Advantage_product", "description", "product_rating", "overall_rating",
        "brand", "product_specifications",
    ]  # fmt: skip
    row = {
        "uniq_id": "c2d766", "product_name": "Alisha Solid Women's Cycling Shorts", "pid": "SRTEH2FF9KEDEFGF",
        "product_category_tree": '["Clothing >> Women\'s Clothing >> Cycling Shorts"]', "brand": "Alisha",
        "description": "Key Features of Alisha",
        "product_specifications": '{"product_specification"=>[{"key"=>"Number of'
        ' Contents in Sales Package", "value"=>"Pack of 3"}, {"key"=>"Fabric", "value"=>"Cotton \\"Lycra\\""},'
        ' {"value"=>"no key"}]}',
    }  # fmt: skip
    none = row | {
        "product_specifications": '{"product_specification"=>nil}',
        "product_category_tree": '["12" Pans >> X"]',
    }
    first, second = products(write_csv(tmp_path / "x.csv", columns, row, none))
    assert (first.id, first.title) == ("c2d766", "Alisha Solid Women's Cycling Shorts")
    assert first.category == "Clothing > Women's Clothing > Cycling Shorts"
    assert pairs(first) == {
        "Brand": "Alisha", "Number Of Contents In Sales Package": "Pack of 3", "Fabric": 'Cotton "Lycra"',
    }  # fmt: skip
    assert second.category == '12" Pans > X'
    assert pairs(second) == {"Brand": "Alisha"}


def test_wayfair(tmp_path: Path) -> None:
    columns = [
        "product_id", "product_name", "product_class", "category hierarchy", "product_description", "product_features",
        "rating_count", "average_rating", "review_count",
    ]  # fmt: skip
    row = {
        "product_id": "0", "product_name": "solid wood platform bed", "product_class": "Beds",
        "category hierarchy": "Furniture / Bedroom Furniture / Beds & Headboards / Beds", "product_description": "good",
        "product_features": "overallwidth-sidetoside:64.7|dsprimaryproductstyle : modern & contemporary|color:a:b|",
    }  # fmt: skip
    [product] = products(write_csv(tmp_path / "x.csv", columns, row, delimiter="\t"))
    assert (product.id, product.title, product.description) == ("0", "solid wood platform bed", "good")
    assert product.category == "Furniture > Bedroom Furniture > Beds & Headboards > Beds"
    assert pairs(product) == {
        "Overallwidth Sidetoside": "64.7", "Dsprimaryproductstyle": "modern & contemporary", "Color": "a:b",
    }  # fmt: skip


# Cells


@pytest.mark.parametrize(
    ("value", "category"),
    [
        ("Home > Kitchen", "Home > Kitchen"), ("Home >> Kitchen>Pans", "Home > Kitchen > Pans"), ("a|b", "a > b"),
        ("a::b", "a > b"), ("a / b", "a > b"), ("a » b › c", "a > b > c"), ("Home &gt; Kitchen", "Home > Kitchen"),
        ("Bed/Bath", "Bed/Bath"), ("Home > > Pans >", "Home > Pans"), ("N/A", ""), (" ", ""),
        (["a", "b", None], "a > b"),
        ([["a", "b"], ["c"]], "a > b"), (["a > b"], "a > b"), ([], ""), ([["a"]], "a"), ('["a", "b"]', "a > b"),
        ('["a"', "a"), ("Default Category", ""), (7, "7"), ("[sale] lamps", "[sale] lamps"),
    ],
)  # fmt: skip
def test_category_paths(tmp_path: Path, value: Any, category: str) -> None:
    assert category_of(tmp_path, value) == category


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("item_color", "red", [("Item Color", "red")]),
        ("itemColour", "red", [("Item Color", "red")]),
        ("MATERIAL", "oak", [("Material", "oak")]),
        ("USB-ports", "2", [("USB Ports", "2")]),
        ("men's_size", "L", [("Men's Size", "L")]),
        ("features", ["a", "", None, "b"], [("Features", "a, b")]),
        ("size", 2.0, [("Size", "2")]),
        ("size", 2.5, [("Size", "2.5")]),
        ("size", 0, [("Size", "0")]),
        ("size", None, []),
        ("size", "N/A", []),
        ("size", "<p></p>", []),
        ("size", float("nan"), []),
        ("size", "<b>5</b> &lt; 6", [("Size", "5 < 6")]),
        ("specs", {"a_b": 1, "c": None, "d": ["x", "y"]}, [("A B", "1"), ("D", "x, y")]),
        ("specs", '{"a": "x", "b": null}', [("A", "x")]),
        ("specs", "{not json}", [("Specs", "{not json}")]),
        ("specs", "a:1|b:2", [("A", "1"), ("B", "2")]),
        ("specs", "a=1,b=2", [("A", "1"), ("B", "2")]),
        ("specs", "a=1, b=2, 3", [("A", "1"), ("B", "2, 3")]),
        ("specs", "a:1|b:", [("A", "1")]),
        ("specs", "red | large", [("Specs", "red | large")]),
        ("specs", "Wash cold: yes, tumble: no", [("Specs", "Wash cold: yes, tumble: no")]),
        ("specs", "a => b", [("Specs", "a => b")]),
        ("specs", "holds <= 5 kg", [("Specs", "holds <= 5 kg")]),
    ],
)
def test_attribute_cells(tmp_path: Path, column: str, value: Any, expected: list[tuple[str, str]]) -> None:
    assert attributes_of(tmp_path, column, value) == expected


def test_attributes_are_not_said_twice_nor_without_end(tmp_path: Path) -> None:
    assert attributes_of(tmp_path, "specs", "a:1|a:1|a:2") == [("A", "1"), ("A", "2")]
    assert len(attributes_of(tmp_path, "specs", "|".join(f"a{n}:{n}" for n in range(99)))) == 24


@pytest.mark.parametrize("text", ["<p>Real.</p>", "  Real \n text ", "a\tb", "Ü &amp; co"])
def test_a_description_is_kept_as_it_stands(tmp_path: Path, text: str) -> None:
    path = write_csv(tmp_path / "x.csv", ["title", "description"], {"title": "a", "description": text})
    assert products(path)[0].description == text


@pytest.mark.parametrize("text", ["", " ", "-", "N/A", "TBD", "null", "<p></p>", "<p>&nbsp;</p><br>", "Coming soon!"])
def test_a_placeholder_is_no_description(tmp_path: Path, text: str) -> None:
    path = write_csv(tmp_path / "x.csv", ["title", "description"], {"title": "a", "description": text})
    assert products(path)[0].description == ""


@pytest.mark.parametrize(
    ("raw", "title"), [("<b>Lamp</b>", "Lamp"), ("N/A", ""), (" \u200b", ""), ("Missing", "Missing")]
)
def test_titles(tmp_path: Path, raw: str, title: str) -> None:
    path = write_csv(tmp_path / "x.csv", ["title", "id"], {"title": raw, "id": "1"})
    assert products(path)[0].title == title


# The catalog as a whole


def test_columns_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["a", "title", "c"], {"a": "Lamp", "title": "red", "c": "7"})
    told = RoleOptions(id="c", title="a", category="", description="", attributes=("title",))
    assert products(path, told) == [Product(0, "7", "Lamp", "", (Attribute("Title", "red"),), "")]
    with pytest.raises(CatalogError, match=r"x\.csv: no column 'tittle' for --title-column; did you mean 'title'\?"):
        Catalog(path, RoleOptions(title="tittle"))
    with pytest.raises(CatalogError, match=r"x\.csv: no column looks like a product title.*Columns: 'a', 'c'"):
        Catalog(write_csv(path, ["a", "c"]), RoleOptions())


@pytest.mark.parametrize("limit", [1, 3, 10, 11, 25, 99])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, limit: int) -> None:
    for module in (formats, jsonl):
        monkeypatch.setattr(module, "BATCH_ROWS", 10)
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"title": [str(n) for n in range(25)]}), path, row_group_size=7)
    else:
        form = '{{"title": "{}"}}\n' if kind == "jsonl" else "{}\n"
        path.write_text("title\n" * (kind == "csv") + "".join(form.format(n) for n in range(25)))
    found = products(path, limit=limit)
    assert [product.title for product in found] == [str(n) for n in range(min(limit, 25))]


def test_notes_tell_of_an_encoding_that_was_guessed(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("id,title\n1,Café\n".encode("cp1252"))
    assert Catalog(path, RoleOptions()).notes == [f"{path} is not UTF-8; read as cp1252 (name another with --encoding)"]
    assert Catalog(path, RoleOptions(), encoding="latin-1").notes == []
    path.write_text("id,title\n1,Café\n", encoding="utf-8")
    assert Catalog(path, RoleOptions()).notes == []
    assert Catalog(path, RoleOptions(), encoding="UTF8").notes == []


def test_types_of_parquet_become_text(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    table = pa.table(
        {
            "id": pa.array([1, None], pa.int32()),
            "title": pa.array(["Lamp", "Vase"]).dictionary_encode(),
            "weight": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(5, 2)),
            "season": pa.array([moment, None], pa.timestamp("ns")),
            "model": pa.array([1_000_000_001, None], pa.timestamp("ns", "UTC")),
            "style": pa.array([1, None], pa.time64("ns")),
            "specs": pa.array([[("a_b", "x")], None], pa.map_(pa.string(), pa.string())),
            "size": pa.array([b"5 in", None]),
            "features": pa.array([["a", "b"], []]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    first, second = products(tmp_path / "x.parquet")
    assert (first.id, first.title, second.id, second.title) == ("1", "Lamp", "", "Vase")
    assert pairs(first) == {
        "Weight": "1.50", "Season": "2024-01-02 03:04:05", "Model": "1970-01-01 00:00:01+00:00", "Style": "00:00:00",
        "A B": "x", "Size": "5 in", "Features": "a, b",
    }  # fmt: skip
    assert second.attributes == ()


def test_invalid_utf_8_in_parquet_is_refused(tmp_path: Path) -> None:
    raw = pa.array([b"Lamp", b"caf\xe9"])
    table = pa.table({"title": pa.Array.from_buffers(pa.string(), 2, raw.buffers())})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(CatalogError, match=r"x\.parquet, rows 1 to 2: column 'title' can't be read: "):
        products(tmp_path / "x.parquet")


def test_the_messy_sample(tmp_path: Path) -> None:
    found = products(SAMPLES / "messy.csv")
    assert len(found) == 61
    by_id = {product.id: product for product in found}
    assert "00000" in by_id
    assert by_id["00169"].title == by_id["00171"].title == by_id["00172"].title == ""
    assert "<|endoftext|>" in "".join(product.title for product in found)
    assert "\u200d" in by_id["00161"].title + by_id["00160"].title
    assert sum(bool(product.description) for product in found) == 6


@pytest.mark.parametrize("kind", ["text", "lists"])
def test_some_rows_are_read_as_all_are(tmp_path: Path, kind: str) -> None:
    old = ["<p>Old</p> ", None, "n/a", "Older", ""]
    values = old if kind == "text" else [None if text is None else [text, "and more"] for text in old]
    table = pa.table(
        {"title": ["Lamp", None, "Rug", "test", "Bed"], "color": ["red", "n/a", "red", None, "blue"], "body": values}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    [(_, some)] = Catalog(tmp_path / "x.parquet", RoleOptions(description="body")).batches()
    whole = list(some)
    assert some.at([3, 0]) == [whole[3], whole[0]]
    assert some[4] == whole[4]
    assert some[1:3] == whole[1:3]
    assert some.at([]) == []
    described = np.array([bool(product.description) for product in whole])
    found = some.descriptions_where(described).to_pylist()
    assert [text or "" for text in found] == [product.description for product in whole]
    assert found[1] is None
    assert some.descriptions_where(np.zeros(5, bool)).to_pylist() == [None] * 5
