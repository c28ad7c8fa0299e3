from __future__ import annotations

from pathlib import Path

import pytest

from enrich.categories import Categories
from enrich.category_report import check_categories
from enrich.errors import ConfigError
from enrich.product import Product

FIFTEEN = {
    "home", "electronics", "books", "apparel", "beauty", "toys", "sports", "tools", "automotive", "pets", "grocery",
    "office", "garden", "baby", "instruments",
}  # fmt: skip

TEA = """
name = "tea"
aliases = ["Tea & Infusions", "grocery"]
attributes = ["Origin", "flavor"]
tone = "calm"
claims = ["cures colds"]

[rules]
max_words = 60
shouting = "off"
"""


def product(category: str) -> Product:
    return Product(0, "1", "Sencha", category, (), "")


def write(directory: Path, text: str = TEA, name: str = "tea.toml") -> Path:
    (directory / name).write_text(text, encoding="utf-8")
    return directory


def test_the_built_in_files_are_as_they_should_be() -> None:
    entries, problems = check_categories()
    assert problems == []
    assert {entry.name for entry in entries} == FIFTEEN | {"default"}
    for entry in entries:
        assert len(entry.tone) > 20
        assert entry.claims > 20
        assert entry.words[0] < entry.words[1] <= 200
        assert entry.name == "default" or len(entry.aliases) > 20


def test_every_category_has_the_defaults_claims_and_its_own() -> None:
    by_name = {category.name: category for category in Categories()}
    assert "guaranteed" in by_name["baby"].claims
    assert "prevents sids" in by_name["baby"].claims
    assert "prevents sids" not in by_name["home"].claims


def test_a_category_of_ones_own_is_one_file(tmp_path: Path) -> None:
    categories = Categories(directory=write(tmp_path))
    for path in ("tea infusions", "Tea & Infusions > Green", "Grocery"):
        found = categories.of(product(path))
        assert found.name == "tea", path
    assert dict(found.rules)["max_words"] == 60
    assert dict(found.rules)["min_words"] == 8  # the default's
    assert found.attributes == ("origin", "flavor")
    assert categories.of(product("Books")).name == "books"
    entries, problems = check_categories(tmp_path)
    assert not problems
    assert [entry.name for entry in entries if not entry.built_in] == ["tea"]


def test_a_file_of_a_built_in_name_takes_its_place(tmp_path: Path) -> None:
    write(tmp_path, TEA.replace('"tea"', '"grocery"'), "grocery.toml")
    assert Categories(directory=tmp_path).of(product("grocery")).tone == "calm"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (TEA.replace("claims =", "clams ="), "tea.toml", "unknown key 'clams'; did you mean 'claims'?"),
        (TEA.replace('"tea"', '"coffee"'), "tea.toml", "name = 'coffee' should be 'tea', as the file is called"),
        (TEA.replace("attributes", "#"), "tea.toml", "attributes is missing"),
        (TEA.replace('"calm"', "3"), "tea.toml", "tone = 3 should be text"),
        (TEA.replace('["cures colds"]', '"cures colds"'), "tea.toml", "should be a list of texts"),
        (TEA.replace("60", "[60]"), "tea.toml", "rules.max_words = [60] should be a whole number or a severity"),
        (TEA.replace("max_words", "max_word"), "tea.toml", "did you mean 'max_words'?"),
        (TEA.replace('"off"', '"loud"'), "tea.toml", "shouting = 'loud' should be off, flag, again, retry or"),
        (TEA.replace("60", "2"), "tea.toml", "min_words = 8 is more than max_words = 2"),
        (TEA.replace("[rules]", 'template = "{{ titel }}"\n[rules]'), "tea.toml", "'titel' is undefined"),
        (TEA.replace("[rules]", 'template = "Tea:"\n[rules]'), "tea.toml", "leaves out the title"),
        (TEA.replace('"grocery"]', '"Tea infusions"]'), "tea.toml", "aliases has 'tea infusions' twice"),
        (TEA.replace('"grocery"]', '"&"]'), "tea.toml", "aliases has an entry without a letter or a digit"),
        (TEA + "x", "tea.toml", "not valid TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, name: str, message: str) -> None:
    _, problems = check_categories(write(tmp_path, text, name))
    assert len(problems) == 1
    assert str(tmp_path / name) in problems[0]
    assert message in problems[0]


def test_an_alias_in_two_files(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, TEA.replace('"tea"', '"coffee"').replace("Tea & Infusions", "Coffee"), "coffee.toml")
    _, problems = check_categories(tmp_path)
    assert problems == [f"{tmp_path / 'coffee.toml'} and tea.toml both have the alias 'grocery'"]


def test_a_directory_without_files_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no file"):
        Categories(directory=tmp_path)
    with pytest.raises(ConfigError, match="there is no such directory"):
        Categories(directory=tmp_path / "none")
