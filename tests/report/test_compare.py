from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hostile import hostile_catalog

from enrich.errors import CatalogError
from enrich.report import page
from enrich.report.compare import compare
from enrich.report.opening import open_output


def test_two_outputs_stand_side_by_side(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(hostile_catalog(), name="a.parquet")
    enrich(hostile_catalog(), name="b.parquet", seed=3, temperature=1.5)
    found = compare(open_output(tmp_path / "a.parquet"), open_output(tmp_path / "b.parquet"))
    assert {name: values for name, values in found.settings.items() if name in ("seed", "temperature")} == {
        "seed": (0, 3), "temperature": (0.4, 1.5),
    }  # fmt: skip
    texts = {
        name: dict(pl.read_parquet(tmp_path / name).select("title", "description").iter_rows())
        for name in ("a.parquet", "b.parquet")
    }
    ids = dict(pl.read_parquet(tmp_path / "a.parquet").select("sku", "title").iter_rows())
    assert found.pairs
    for pair in found.pairs:
        title = next(title for sku, title in ids.items() if sku.removeprefix("<i>").removesuffix("</i>") in pair.row.id)
        assert (pair.row.text, pair.other) == (texts["a.parquet"][title] or "", texts["b.parquet"][title] or "")
    assert json.loads(json.dumps(dataclasses.asdict(found)))["first"]["model"]
    html = page.render_comparison(found)
    assert html.count("<script") == 1
    assert "<img" not in html


def test_outputs_without_ids_or_products_in_common_are_refused(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(hostile_catalog(), name="a.parquet")
    enrich(hostile_catalog(), name="b.parquet", id_column="")
    enrich(hostile_catalog().with_columns(sku="other-" + pl.col("title")), name="c.parquet")
    first = open_output(tmp_path / "a.parquet")
    with pytest.raises(CatalogError, match="no column of product ids"):
        compare(first, open_output(tmp_path / "b.parquet"))
    with pytest.raises(CatalogError, match="has none of the products"):
        compare(first, open_output(tmp_path / "c.parquet"))
