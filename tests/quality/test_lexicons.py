from __future__ import annotations

from pathlib import Path

import pytest

from enrich.quality import lexicon
from enrich.quality.lexicon import Phrases, entries, groups, tokens_of
from enrich.quality.reading import Words

LEXICONS = sorted((Path(lexicon.__file__).parent.parent / "lexicons").glob("*.txt"))
# Where Pint says it otherwise, or knows no such unit.
IN_PINT = {
    '"': "inch", "'": "foot", "in": "inch", "ft": "foot", "yd": "yard", "cm": "centimeter", "mm": "millimeter",
    "m": "meter", "oz": "ounce", "lb": "pound", "g": "gram", "kg": "kilogram", "fl oz": "fluid_ounce", "cup": "cup",
    "pint": "pint", "qt": "quart", "gal": "gallon", "ml": "milliliter", "l": "liter", "w": "watt", "kw": "kilowatt",
    "v": "volt", "second": "second", "minute": "minute", "hour": "hour", "hz": "hertz", "khz": "kilohertz",
    "mhz": "megahertz", "ghz": "gigahertz",
}  # fmt: skip


@pytest.mark.parametrize("path", LEXICONS, ids=lambda path: path.name)
def test_a_lexicon_says_where_it_comes_from_and_has_nothing_twice(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert "ritten for this project" in comment
    found = entries(path.stem)
    assert found
    assert len(set(found)) == len(found)


def test_units_are_those_of_pint() -> None:
    pint = pytest.importorskip("pint")
    registry = pint.UnitRegistry()
    first: dict[str, str] = {}
    compared = 0
    for line in entries("units"):
        head, _, spellings = line.partition(":")
        kind, factor = head.split()
        name = IN_PINT.get(spellings.split(",")[0].strip())
        if name is None:
            continue
        base = first.setdefault(kind, name)
        assert registry(name).to(registry(base).units).magnitude == pytest.approx(float(factor), rel=1e-4), line
        compared += 1
    assert compared >= 20


def test_every_material_is_a_kind_of_one_that_there_is() -> None:
    heads = [head.partition("<") for head in groups("material_kinds")]
    names = {name.strip() for name, _, _ in heads}
    assert {parent.strip() for _, _, parent in heads if parent} <= names


def test_plain_colors_are_in_a_family() -> None:
    families = {word for words in groups("color_families").values() for word in words}
    assert set(entries("plain_colors")) - {"grey"} <= families


def test_phrases_are_whole_words_the_longest_first() -> None:
    phrases = Phrases({"cast iron": "cast iron", "iron": "iron", "iron on": ""})
    text = "Cast-iron, environmental IRON; iron on low."
    tokens = tokens_of(text)
    assert phrases.find(tokens, Words(text).known) == [(0, 2, "cast iron"), (3, 4, "iron"), (4, 6, "")]
