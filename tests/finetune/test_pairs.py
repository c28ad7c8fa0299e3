from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.catalog import RoleOptions
from enrich.errors import CatalogError
from enrich.finetune.pairs import Pair, read_pairs, split


def test_rows_without_title_or_text_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        ("1", "Oak Table", "A table of <b>oak</b>."),
        ("2", "Lamp", None),
        ("3", "Lamp", "  "),
        ("4", None, "A lamp that nobody has named."),
        ("5", "Rug", "<p><br></p>"),
        ("6", "Rug", "N/A"),
        ("7", None, None),
    ]
    path = tmp_path / "x.parquet"
    pl.DataFrame(rows, schema=["sku", "title", "description"], orient="row").write_parquet(path)
    reading = read_pairs([path, path], RoleOptions(), "{{ title }}")
    assert reading.pairs == [Pair("1", "Oak Table", "A table of oak.", "default", "Oak Table")] * 2
    assert reading.rows == 14
    assert reading.dropped == {"no description": 6, "no title": 2, "only HTML": 2, "a placeholder": 2}
    assert read_pairs([path], RoleOptions(), limit=2).rows == 2


def test_a_catalog_without_texts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("title\nOak table\n")
    with pytest.raises(CatalogError, match="no row has a title and a description"):
        read_pairs([path], RoleOptions())


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60), st.floats(0, 0.9))
def test_no_product_and_no_text_is_on_both_sides(rows: list[tuple[int, int]], held_out: float) -> None:
    pairs = [Pair(f"product {product}", "p", f"text {text}") for product, text in rows]
    sides = split(pairs, held_out)
    assert sorted(map(str, [*sides[0], *sides[1]])) == sorted(map(str, pairs))
    for what in ("group", "text"):
        learned, measured = ({getattr(pair, what) for pair in side} for side in sides)
        assert not learned & measured
    assert sides == split(pairs, held_out)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_few_products_still_give_both_sides(count: int) -> None:
    pairs = [Pair(str(number), "p", str(number)) for number in range(count)]
    learned, measured = split(pairs, 0.1)
    assert learned
    assert measured


def test_the_share_is_held_out_and_more_products_move_none() -> None:
    pairs = [Pair(str(number), "p", str(number)) for number in range(3000)]
    _, measured = split(pairs, 0.1)
    assert 240 < len(measured) < 360
    _, fewer = split(pairs[:1500], 0.1)
    assert {pair.group for pair in fewer} == {pair.group for pair in measured if int(pair.group) < 1500}
