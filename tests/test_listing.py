"""The columns for shops and channels: their lengths, and that they say nothing but what the row and its text say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from commands import enrich
from hypothesis import given
from hypothesis import strategies as st

from enrich import listing
from enrich.config import CHANNELS, RunConfig
from enrich.errors import CatalogError, ConfigError
from enrich.listing import Listing
from enrich.product import Attribute, Product

TEXT = (
    "This oak side table has two drawers. It measures 24 in. x 18 in. and fits beside a sofa. The matte finish is easy"
    " to clean, and the legs come off for moving or storing. Wipe with a damp cloth."
)


def product(title: str = "Oak Side Table", category: str = "", **attributes: str) -> Product:
    named = tuple(Attribute(name.replace("_", " "), value) for name, value in attributes.items())
    return Product(0, "1", title, category, named, "")


@pytest.mark.parametrize(
    ("title", "brand", "expected"),
    [
        ("Oak Side Table", "", "Oak Side Table"),
        ("Oak Side Table", "Hearth & Co", "Oak Side Table | Hearth & Co"),
        ("Hearth & Co Oak Side Table", "Hearth & Co", "Hearth & Co Oak Side Table"),
        ("Oak Side Table with Two Drawers for the Living Room Bed", "Hearth & Company", None),
        (
            "Oak Side Table with Two Drawers, Matte Finish, Removable Legs, Living Room and Bedroom",
            "",
            "Oak Side Table with Two Drawers, Matte Finish",
        ),
        ("Oak - " + "very " * 20 + "nice table", "", "Oak - very very very very very very very very very very…"),
        ("x" * 80, "", "x" * 59 + "…"),
        ("  Oak \n table ", "", "Oak table"),
    ],
)
def test_a_title_for_result_pages(title: str, brand: str, expected: str | None) -> None:
    assert listing.meta_title(product(title, Brand=brand) if brand else product(title)) == (expected or title)


def test_a_description_for_result_pages_is_whole_sentences() -> None:
    found = listing.meta_description(TEXT)
    assert found == "This oak side table has two drawers. It measures 24 in. x 18 in. and fits beside a sofa."
    assert listing.meta_description("One sentence alone " + "that goes on " * 20 + ".").endswith(" that goes…")
    assert listing.meta_description("") == ""


def test_keywords_are_the_rows_own_words() -> None:
    row = product(
        "Oak Side Table - 2 Drawers",
        "Home > Furniture > Side Tables",
        Color="Natural/White",
        Material="Oak",
        Weight="9 kg",
    )
    assert listing.keywords(row) == [
        "oak side table", "side tables", "furniture", "home", "oak", "natural", "white",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Oak Side Table, 2 Drawers (Natural)", "oak-side-table-2-drawers-natural"),
        ("Café-Stuhl „Wien“", "cafe-stuhl-wien"),
        ("Стол дубовый", "stol-dubovyi"),
        ("../../etc/passwd", "etc-passwd"),
        ("***", ""),
    ],
)
def test_a_slug_is_plain(title: str, slug: str) -> None:
    assert listing.slug(product(title)) == slug


def test_readability_by_hand() -> None:
    # "The cat sat." is 3 words of 9 letters in one sentence: 4.71 * 3 + 0.5 * 3 - 21.43
    assert listing.readability("The cat sat.") == pytest.approx(-5.8)
    assert listing.readability("Extraordinarily sophisticated craftsmanship characterizes everything.") > 20
    assert listing.readability("… !") is None


def test_bullets_are_sentences_then_attributes() -> None:
    found = listing.bullets(product(Material="Oak", Color="White"), TEXT)
    assert found[:2] == ["This oak side table has two drawers.", "It measures 24 in. x 18 in. and fits beside a sofa."]
    assert found[4:] == ["Material: Oak"]
    assert listing.bullets(product(Care="wash " * 100), "")[0].endswith("wash…")


def test_html_is_escaped() -> None:
    assert listing.paragraph("A <b>table</b> & more") == "<p>A &lt;b&gt;table&lt;/b&gt; &amp; more</p>"


@given(st.text(max_size=400), st.text(max_size=600), st.dictionaries(st.text(max_size=20), st.text(max_size=300)))
def test_limits_hold_for_any_row(title: str, text: str, attributes: dict[str, str]) -> None:
    row = Product(0, "", title, "", tuple(Attribute(*pair) for pair in attributes.items()), "")
    assert len(listing.meta_title(row)) <= 60
    assert len(listing.meta_description(text)) <= 160
    assert len(listing.keywords(row)) <= 10
    assert len(listing.slug(row)) <= 80
    found = listing.bullets(row, text)
    assert len(found) <= 5
    assert all(len(bullet) <= 250 for bullet in found)
    assert len(listing.shortened(title, 150)) <= 150
    assert len(listing.whole_sentences(text, 100)) <= 100


def test_the_channels_are_those_of_the_options() -> None:
    assert tuple(listing.CHANNELS) == CHANNELS


FRAME = pl.DataFrame(
    {
        "sku": ["1", "2", "3"],
        "title": ["Oak side table", "Wool rug", None],
        "color": ["White", "Red", "Blue"],
        "description": [None, "A rug that a person wrote about. It is red.", None],
    }
)


def read(path: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(path).rows(named=True)


def test_a_run_adds_the_columns_it_is_asked_for(enrich, tmp_path: Path) -> None:
    enrich(FRAME, seo=True, channels=("amazon", "google", "shopify"), changes=str(tmp_path / "changes.parquet"))
    table, rug, broken = read(tmp_path / "out.parquet")
    assert rug["meta_title"] == "Wool rug"
    assert rug["meta_description"] == "A rug that a person wrote about. It is red."
    assert rug["keywords"] == ["wool rug", "red"]
    assert rug["slug"] == rug["shopify_handle"] == "wool-rug"
    assert rug["shopify_body_html"] == "<p>A rug that a person wrote about. It is red.</p>"
    assert rug["amazon_bullets"] == ["A rug that a person wrote about.", "It is red.", "Color: Red"]
    assert rug["google_description"] == rug["amazon_description"] == rug["description"]
    assert table["meta_description"]
    assert table["readability"] is not None
    names = {field.name for field in (*listing.SEO, *(f for one in listing.CHANNELS.values() for f in one.fields))}
    assert {broken[name] for name in names} == {None}
    assert set(read(tmp_path / "changes.parquet")[0]) == {"change", *table}
    assert pl.read_parquet(tmp_path / "out.parquet").columns[-1] == "generation"


def test_asking_for_columns_later_keeps_the_texts(enrich, tmp_path: Path) -> None:
    enrich(FRAME)
    before = read(tmp_path / "out.parquet")
    summary = enrich(FRAME, seo=True)
    assert (summary.generated, summary.reused) == (0, 1)
    assert not summary.unchanged
    assert [row["description"] for row in read(tmp_path / "out.parquet")] == [row["description"] for row in before]
    assert enrich(FRAME, seo=True).unchanged


def test_columns_that_are_there_are_filled_where_they_are_empty(enrich, tmp_path: Path) -> None:
    frame = FRAME.with_columns(
        slug=pl.Series(["mine", " ", None]), keywords=pl.Series([None, "rugs", None], dtype=pl.String)
    )
    enrich(frame, seo=True)
    assert [row["slug"] for row in read(tmp_path / "out.parquet")] == ["mine", "wool-rug", None]
    assert [row["keywords"] for row in read(tmp_path / "out.parquet")] == ["oak side table, white", "rugs", None]
    enrich(frame, "all.parquet", seo=True, overwrite=True)
    assert [row["slug"] for row in read(tmp_path / "all.parquet")] == ["oak-side-table", "wool-rug", None]


def test_a_column_that_cannot_be_filled_is_told_at_once(enrich) -> None:
    with pytest.raises(CatalogError, match=r"catalog\.parquet: column 'slug' is of type int32"):
        enrich(FRAME.with_columns(slug=1), seo=True)


def test_a_channel_s_limit_is_a_rule_that_settings_win_over(enrich, tmp_path: Path, monkeypatch) -> None:
    from enrich.stages.setup import prepare

    def longest(**options: Any) -> set[int]:
        FRAME.write_parquet(tmp_path / "catalog.parquet")
        run = prepare(RunConfig(str(tmp_path / "catalog.parquet"), **options), lambda: 0)
        return {book.limits.max_characters for book in run.rulebooks.values()}

    assert longest(channels=("google", "amazon")) == {2_000}
    assert longest(channels=("google",), rules=("max_characters=300",)) == {300}


def test_what_is_asked_for_wrongly() -> None:
    with pytest.raises(ConfigError, match="amazon, google, shopify"):
        RunConfig("catalog.csv", channels=("ebay",))


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"enrich\[seo\]"):
        Listing(seo=True, channels=(), overwrite=False)
    Listing(seo=False, channels=("google",), overwrite=False)


def test_no_columns_cost_nothing() -> None:
    batch = pa.RecordBatch.from_pydict({"title": ["a"]})
    assert Listing(seo=False, channels=(), overwrite=False).add(batch, [product()], pa.array(["b"])) is batch


def test_the_options_are_on_the_command_line(tmp_path: Path, tiny_gpt2: Path) -> None:
    FRAME.write_csv(tmp_path / "shop.csv")
    command = ["run", "shop.csv", "--model", tiny_gpt2, "--max-new-tokens", 8]
    done = enrich(*command, "--seo", "--channels", "amazon,google", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    columns = pl.read_parquet(tmp_path / "shop.enriched.parquet").columns
    assert {"meta_title", "slug", "amazon_bullets", "google_title"} <= set(columns)
