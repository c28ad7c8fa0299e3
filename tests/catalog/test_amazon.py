"""Amazon metadata in its three published forms: what a line may hold, and what becomes of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from enrich.catalog import Catalog, RoleOptions, amazon, jsonl
from enrich.catalog.amazon import AmazonSource
from enrich.catalog.formats import open_source
from enrich.catalog.jsonl import JsonLinesSource
from enrich.errors import CatalogError
from enrich.product import Product

LITERALS = [
    r"""{'asin': '0000031852', 'related': {'also_bought': ['B00JHONN1S'], 'bought_together': ['B002BZX8Z6']}, """
    r"""'title': "Girl's Ballet Tutu", 'price': 3.17, 'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', """
    r"""'imUrl': 'http://x/51.jpg', 'categories': [['Sports & Outdoors', 'Other Sports', 'Dance'], ['Clothing']]}""",
    r"""{'asin': '0000037214', 'title': 'Caf\xc3\xa9 Mug', 'price': 9, 'categories': [['Home & Kitchen', 'Mugs']], """
    r"""'description': 'A <b>mug</b> for caf\xc3\xa9 cr\xc3\xa8me.'}""",
    r"""{'asin': '0000032069', u'title': u'Na\xefve "Lamp"', 'categories': [[]], 'description': ''}""",
]
LINES_2018: list[dict[str, Any]] = [
    {
        "category": ["Home & Kitchen", "Furniture"], "tech1": "", "description": ["A table of oak.", "It lasts."],
        "fit": "", "title": "Oak Table", "also_buy": ["B01"], "tech2": "", "brand": "Halden",
        "feature": ["Solid oak", "Four legs"], "rank": [">#1,024 in Home"], "also_view": [], "main_cat": "Amazon Home",
        "similar_item": "", "date": "May 1, 2014", "price": "$49.99", "asin": "B00000JBLH", "imageURL": [],
        "imageURLHighRes": [],
        "details": {"\n    Item Weight: \n    ": "3 pounds", "ASIN:": "B00000JBLH", "Shipping Weight:": "4 pounds"},
    },
    {
        "category": [], "tech1": "<table></table>", "description": "", "title": "Rug", "brand": "", "feature": [],
        "rank": "4,321 in Home", "main_cat": "Amazon Home", "price": "", "asin": "0000000001", "details": "",
    },
]  # fmt: skip
LINES_2023: list[dict[str, Any]] = [
    {
        "main_category": "All Beauty", "title": "Howard Spray", "average_rating": 4.8, "rating_number": 10,
        "features": [], "description": ["A spray.", "For the hair."], "price": None,
        "images": [{"thumb": "https://x/1.jpg", "large": "https://x/2.jpg", "variant": "MAIN", "hi_res": None}],
        "videos": [], "store": "Howard", "categories": [], "parent_asin": "B01CUPMQZE", "bought_together": None,
        "details": {"Package Dimensions": "7 x 5 inches", "UPC": "617390882781", "Best Sellers Rank": {"Beauty": 7}},
    },
    {
        "main_category": "Books", "title": "A Night", "subtitle": "Paperback", "features": [], "description": [],
        "author": {"avatar": "https://x/3.png", "name": "J. Doe", "about": ["Writes."]}, "price": "from 14.99",
        "average_rating": 5, "rating_number": 2, "images": [], "videos": [{"title": "v"}], "store": "J. Doe",
        "categories": ["Books", "Literature"], "parent_asin": "B02", "details": '{"Language": "English"}',
    },
]  # fmt: skip


def lines(rows: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(row) for row in rows]


def write(path: Path, content: list[str]) -> Path:
    data = "".join(line + "\n" for line in content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def products(path: Path) -> list[Product]:
    return [product for _, batch in Catalog(path, RoleOptions()).batches() for product in batch]


def rows_of(path: Path) -> list[dict[str, Any]]:
    source = open_source(path)
    assert isinstance(source, AmazonSource)
    assert list(source.batches()) == list(source.batches())
    return [row for batch in source.batches() for row in batch.to_pylist()]


def said(product: Product) -> dict[str, str]:
    return {attribute.name: attribute.value for attribute in product.attributes}


@pytest.mark.parametrize("name", ["meta_Home.json", "meta_Home.json.gz", "meta.jsonl"])
def test_the_form_of_2014(tmp_path: Path, name: str) -> None:
    tutu, mug, lamp = products(write(tmp_path / name, LITERALS))
    assert (tutu.id, tutu.title) == ("0000031852", "Girl's Ballet Tutu")
    assert tutu.category == "Sports & Outdoors > Other Sports > Dance"
    assert (tutu.description, said(tutu)) == ("", {"Brand": "Coxlures"})
    assert (mug.title, mug.description) == ("Café Mug", "A <b>mug</b> for café crème.")  # Python 2's bytes
    assert (lamp.title, lamp.category, lamp.description) == ('Naïve "Lamp"', "", "")  # Python 2's Unicode


def test_the_form_of_2018(tmp_path: Path) -> None:
    table, rug = products(write(tmp_path / "meta_Home_and_Kitchen.json.gz", lines(LINES_2018)))
    assert (table.id, table.title, table.category) == ("B00000JBLH", "Oak Table", "Home & Kitchen > Furniture")
    assert table.description == "A table of oak.\nIt lasts."
    assert said(table) == {
        "Brand": "Halden", "Feature": "Solid oak, Four legs", "Item Weight": "3 pounds", "Shipping Weight": "4 pounds",
    }  # fmt: skip
    assert (rug.id, rug.title, rug.category, rug.description) == ("0000000001", "Rug", "Amazon Home", "")
    assert said(rug) == {}


def test_the_form_of_2023(tmp_path: Path) -> None:
    spray, book = products(write(tmp_path / "meta_All_Beauty.jsonl.gz", lines(LINES_2023)))
    assert (spray.id, spray.title, spray.category) == ("B01CUPMQZE", "Howard Spray", "All Beauty")
    assert spray.description == "A spray.\nFor the hair."
    assert said(spray) == {"Store": "Howard", "Package Dimensions": "7 x 5 inches"}
    assert (book.category, book.description) == ("Books > Literature", "")
    assert said(book) == {"Author": "J. Doe", "Store": "J. Doe", "Language": "English"}


def test_columns_keep_all_that_the_lines_hold(tmp_path: Path) -> None:
    first, second = rows_of(write(tmp_path / "x.jsonl", lines(LINES_2023)))
    assert first.keys() == second.keys() == LINES_2023[0].keys() | LINES_2023[1].keys()
    assert (first["average_rating"], second["average_rating"]) == (4.8, 5.0)
    assert (first["rating_number"], first["price"], second["price"]) == (10, None, "from 14.99")
    assert (first["categories"], first["bought_together"]) == ([], None)
    assert json.loads(first["images"]) == LINES_2023[0]["images"]
    assert json.loads(first["details"]) == LINES_2023[0]["details"]
    table, rug = rows_of(write(tmp_path / "y.json", lines(LINES_2018)))
    assert (table["rank"], rug["rank"], rug["description"]) == ([">#1,024 in Home"], ["4,321 in Home"], [])
    tutu, mug, _ = rows_of(write(tmp_path / "z.json", LITERALS))
    assert (tutu["price"], mug["price"]) == (3.17, 9.0)
    assert tutu["categories"] == [["Sports & Outdoors", "Other Sports", "Dance"], ["Clothing"]]


def test_values_of_mixed_types_are_kept_whatever_their_order(tmp_path: Path) -> None:
    values = [1, 2.5, "x", ["a", "b"], [["c"], ["d"]], None, ""]
    for number, some in enumerate((values, values[::-1])):
        path = write(
            tmp_path / f"{number}.jsonl",
            lines([{"asin": "1", "title": "t", "price": v, "fit": "", "date": ""} for v in some]),
        )
        found = [row["price"] for row in rows_of(path)]
        expected = [[["1"]], [["2.5"]], [["x"]], [["a", "b"]], [["c"], ["d"]], None, []]
        assert found == (expected if number == 0 else expected[::-1])


def test_other_json_lines_stay_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", ['{"asin": "1", "title": "Lamp", "size": {"width": 3}}'])
    assert isinstance(open_source(path), JsonLinesSource)
    path = write(tmp_path / "x.json", ['{"id": 1, "title": "Lamp", "price": 3.0}'])
    assert isinstance(open_source(path), JsonLinesSource)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([*LITERALS, "{'asin': '1', 'title': open('x')}"], "line 4: not a Python literal"),
        ([*LITERALS, "", "{'asin': '1', 'tit"], "line 5: not a Python literal"),
        ([*LITERALS, "['asin']"], "line 4: a dict is wanted"),
        ([*LITERALS, "{'asin': '1', 5: 'x'}"], "line 4: the key 5 is no text"),
        ([*LITERALS, r"{'asin': '1', 'brand': b'x'}"], "line 4: 'brand' can't be kept"),
        ([*LITERALS, r"{'asin': '1', 'title': '\ud83d'}"], "line 4: 'title' can't be kept"),
        ([*lines(LINES_2018), '{"asin": "1", "title": '], "line 3: not JSON"),
        ([*lines(LINES_2023), '{"asin": "1", "title": "\\ud83d"}'], "line 3: 'title' can't be kept"),
        ([*lines(LINES_2023), LITERALS[0]], "line 3: not JSON"),
        ([*LITERALS, "(" * 100_000], "line 4: not a Python literal"),
    ],
)
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, content: list[str], fault: str) -> None:
    path = write(tmp_path / "x.json.gz", content)
    with pytest.raises(CatalogError) as caught:
        list(open_source(path).batches())
    message = str(caught.value)
    assert f"{path}, {fault}" in message
    assert len(message.splitlines()) == 1


def test_the_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 4)
    path = write(tmp_path / "x.json", LITERALS * 5)
    assert [len(batch) for batch in open_source(path).batches()] == [4, 4, 4, 3]
    assert amazon.is_amazon(path)
