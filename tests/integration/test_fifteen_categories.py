"""The embedded model on the sample catalog of fifteen categories: every category gets texts, and texts of its own."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from enrich import RunConfig, run
from enrich.categories import Categories
from enrich.product import Product
from enrich.quality.words import head_noun, stem, words_of

CATALOG = Path(__file__).resolve().parents[2] / "sample_catalogs" / "categories.csv"
EACH = 3  # the catalog has one product of each category in turn


@pytest.mark.slow
def test_the_embedded_model_writes_for_every_category_and_not_the_same(tmp_path: Path) -> None:
    config = RunConfig(str(CATALOG), str(tmp_path / "out.parquet"), limit=15 * EACH, dtype="float32")
    assert run(config).rows == 15 * EACH
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame["generation"].struct.field("model").unique().to_list() == ["home-mini"]
    written = frame.filter(frame["generation"].struct.field("status") == "generated")
    categories = Categories()
    texts: dict[str, list[str]] = {}
    for row in written.iter_rows(named=True):
        category = categories.of(Product(0, "", row["name"], row["category"], (), "")).name
        texts.setdefault(category, []).append(row["description"])
    assert texts.keys() == {category.name for category in categories} - {"default"}
    assert sum(map(len, texts.values())) >= 15 * EACH - 3
    assert all(len(some) >= EACH - 1 for some in texts.values())
    assert written["description"].n_unique() == len(written)

    names = written.select("name", "description").rows()
    named = [stem(head_noun(name)) in set(map(stem, words_of(text))) for name, text in names]
    assert sum(named) >= 0.8 * len(named)  # each is about its own product, so that categories can't be mixed up
    # What two categories share are little words, less than half of what they say.
    words = {category: {word.lower() for text in some for word in words_of(text)} for category, some in texts.items()}
    for one, other in combinations(words, 2):
        assert len(words[one] & words[other]) < 0.5 * len(words[one] | words[other]), (one, other)
