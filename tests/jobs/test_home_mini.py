"""The training catalog of the embedded model, made from small corpora of the same form."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import corpus
import faces
import polars as pl
import pytest
import words
import written

from enrich.quality.words import colors_in, head_noun

pytestmark = pytest.mark.slow

JOB = Path(corpus.__file__).parent
OPENER = "Calling all stargazers!"
SECOND = "This walnut nightstand keeps a lamp and a book within reach of the bed, and hides what else there is."


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home-mini")
    rows = [
        {
            "product_id": f"p{number}",
            "version": "896b09b0",
            "title": "Walnut Nightstand",
            "original_title": "Nightstand",
            "category": "furniture",
            "description": f"{OPENER} {SECOND}" if number % 2 else SECOND,
        }
        for number in range(300)
    ]
    strange = {"title": "Oak Desk", "original_title": "Desk", "description": "A sofa for two, soft and wide. " * 3}
    pl.DataFrame([*rows, rows[0] | strange]).write_parquet(folder / "retail.parquet")
    toy = {"title": "Wooden Train Set", "category": "Toys_and_Games", "original_title": None, "version": "data_0_1_0"}
    toy["description"] = "This wooden train set goes round and round the room, over bridges and under chairs, all day."
    pl.DataFrame([{"product_id": f"t{n}", **toy} for n in range(100)]).write_parquet(folder / "vespa.parquet")
    command = [sys.executable, str(JOB), str(folder / "retail.parquet"), str(folder / "vespa.parquet"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_no_product_is_in_both_catalogs(directory: Path) -> None:
    validation = pl.read_parquet(directory / "validation.parquet")
    assert 20 < validation["product_id"].n_unique() < 60  # a tenth of 400, give or take
    for name in ("training", "finishing"):
        training = pl.read_parquet(directory / f"{name}.parquet")
        assert not set(training["product_id"]) & set(validation["product_id"])
        assert set(validation.columns) < set(training.columns)


def test_a_text_begins_where_it_names_its_product(directory: Path) -> None:
    validation = pl.read_parquet(directory / "validation.parquet")
    assert OPENER not in " ".join(validation["description"])
    assert "sofa" not in " ".join(validation["description"])
    assert {row["material"] for row in validation.iter_rows(named=True) if "walnut" in row["description"]} == {"walnut"}


@pytest.mark.parametrize(
    ("title", "noun"),
    [
        ("Coach-Style Lantern for Porch or Patio", "Lantern"),
        ("Curtain Panel, 52 x 84 in", "Panel"),
        ("Kids' Headphones with Volume Limit", "Headphones"),
        ("12345", ""),
    ],
)
def test_the_head_noun_of_a_title(title: str, noun: str) -> None:
    assert head_noun(title) == noun


@pytest.mark.parametrize(
    ("text", "old", "new", "swapped"),
    [
        ("An oak table", "oak", "walnut", "A walnut table"),
        ("a walnut desk", "walnut", "oak", "an oak desk"),
        ("Gray Sofa, gray", "gray", "olive", "Olive Sofa, olive"),
        ("grayish", "gray", "olive", "grayish"),
    ],
)
def test_swapping_a_word_mends_its_article(text: str, old: str, new: str, swapped: str) -> None:
    assert words.swap(text, old, new) == swapped


def test_every_kind_is_complete_and_free_of_claims() -> None:
    kinds = written.read_kinds(JOB / "kinds")
    assert len(kinds) > 400
    assert {kind.family for kind in kinds} == written.FAMILIES.keys()
    for kind in kinds:
        assert kind.does and kind.where and len(kind.says) >= 3 and kind.modifiers and kind.features
        assert kind.size in ("box", "flat", "length", "diameter", "volume", "weight", "none")
        for sentence in kind.says:
            assert re.fullmatch(r"[A-Z\"'].*[.!?]", sentence), sentence
            assert not re.search(r"\d|guarantee|perfect|best\b", sentence), sentence


def test_every_family_is_complete_and_free_of_claims() -> None:
    families = written.read_families(JOB / "families")
    assert families.keys() == written.FAMILIES.keys()
    assert sum(len(family.nouns) for family in families.values()) > 2000
    for family in families.values():
        assert family.does and family.where and len(family.says) >= 6 and family.modifiers and family.features
        for sentence in family.says:
            assert re.fullmatch(r"[A-Z\"'].*[.!?]", sentence), sentence
            assert not re.search(r"\d|guarantee|perfect|best\b", sentence), sentence


def test_composed_texts_say_nothing_that_is_not_in_their_row() -> None:
    rng = random.Random(3)
    kinds = written.read_kinds(JOB / "kinds")
    families = written.read_families(JOB / "families")
    checked = 0
    for row in written.compose_all(JOB, 2, 60, rng):
        noun = (row["product_id"] or "").rpartition(" ")[0]
        prompt = " ".join(str(value).lower() for name, value in row.items() if name != "description" and value)
        # What the kind's own fragments say is checked above; leave them out here.
        text = row["description"] or ""
        own = [kind for kind in kinds if kind.noun == noun]
        fragments = [fragment for kind in own for fragment in (*kind.does, *kind.where, *kind.says)]
        for family in families.values():
            if noun in family.nouns:
                does = [written.in_number(does, written.is_plural(noun)) for does in family.does]
                fragments += [*does, *family.where, *family.says]
        for fragment in (noun, *fragments):
            text = text.replace(fragment, "").replace(fragment.capitalize(), "")
        for color in colors_in(text):
            # "deep slate blue mixing bowls" are deep bowls in slate blue.
            assert color in prompt or color.split(" ", 1)[-1] in prompt, (color, row)
        for number in re.findall(r"\d+", text):
            assert number in prompt, (number, row)
        assert not re.search(r"[{}|]", text), row
        checked += 1
    assert checked > 1500


def test_the_verb_agrees_with_the_product() -> None:
    assert written.in_number("{holds|hold} {its|their} shape", plural=False) == "holds its shape"
    assert written.in_number("{holds|hold} {its|their} shape", plural=True) == "hold their shape"
    assert written.is_plural("canisters") and not written.is_plural("glass") and not written.is_plural("wall canvas")


@pytest.mark.parametrize(
    ("body", "features"),
    [
        ("A lamp with a linen shade and a brass base, for desks.", ["linen shade", "brass base"]),
        ("It features our best work and your ideas.", []),
        ("Boasts rich, warm tones.", []),
    ],
)
def test_features_are_mined_as_phrases(body: str, features: list[str]) -> None:
    assert faces.features_in(body) == features


def test_an_invented_brand_is_a_name() -> None:
    assert all(re.fullmatch(r"[A-Z][a-z]+( [A-Z][a-z]+)?", faces.invented_brand(random.Random(n))) for n in range(200))
