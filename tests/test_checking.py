from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from enrich.cli import main
from enrich.quality.duplicates import Duplicates

GOOD = "This oak side table holds a lamp and a book beside the bed."
ROWS = {
    "id": ["1", "2", "3", "4", "5"],
    "title": ["Oak side table"] * 5,
    "description": [
        GOOD,
        "This walnut side table holds a lamp. Buy the [Brand] one!! It is guaranteed to last.",
        GOOD.replace("bed", "sofa"),
        "",
        "This oak side table was made for people who like a table.",
    ],
}


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.csv"
    pl.DataFrame(ROWS).write_csv(path)
    return path


def invoke(*arguments: str | Path):
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def test_a_catalogs_own_descriptions_are_judged(catalog: Path) -> None:
    result = invoke("check", catalog, "--json")
    assert result.exit_code == 0
    report = json.loads(result.output)
    assert (report["rows"], report["texts"], report["failing"]) == (5, 4, 1)
    broken = {one["rule"]: one for one in report["rules"]}
    assert {"placeholder", "claim", "shouting", "contradicted_material"} <= broken.keys()
    example = broken["contradicted_material"]["examples"][0]
    assert (example["row"], example["reason"]) == (2, "says walnut; the row oak")
    assert broken["claim"]["severity"] == "retry"


def test_the_table_shows_rules_rows_and_reasons(catalog: Path) -> None:
    output = invoke("check", catalog).output
    assert "4 texts, 1 fail (25.0%)" in output
    assert "row 2, Oak side table: has '[Brand]'" in output


def test_too_many_failing_end_with_3(catalog: Path) -> None:
    assert invoke("check", catalog, "--max-failing", "25%").exit_code == 0
    assert invoke("check", catalog, "--max-failing", "24%").exit_code == 3


def test_rules_are_set_as_for_a_run(catalog: Path) -> None:
    off = json.loads(invoke("check", catalog, "--rules", "all=off", "--json").output)
    assert off["failing"] == 0
    catalog.with_name("enrich.toml").write_text('[rules]\nmin_words = 13\nall = "off"\ntoo_short = "retry"\n')
    short = json.loads(invoke("check", catalog, "--json").output)
    assert [one["rule"] for one in short["rules"] if one["severity"] == "retry"] == ["too_short"]
    wrong = invoke("check", catalog, "--rules", "max_word=3")
    assert wrong.exit_code == 2
    assert "did you mean 'max_words'?" in wrong.output


def test_near_duplicates_are_found() -> None:
    pytest.importorskip("rensa")
    seen = Duplicates()
    text = " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(80))
    assert seen.add(0, text) is None
    assert seen.add(1, "Another text that has nothing of it at all.") is None
    assert seen.add(2, text.replace("wordca", "other")) == 0
    assert seen.add(3, text.upper()) == 0


def test_duplicates_without_the_package_are_found_by_their_words() -> None:
    seen = Duplicates(exact=True)
    assert seen.add(0, "This 16 in lantern, black.") is None
    assert seen.add(1, "THIS 24 in lantern: black!") == 0
    assert seen.add(2, "This lantern is black.") is None
    assert seen.add(3, "") is None


def test_rules_and_categories_are_listed() -> None:
    rules = invoke("rules").output
    assert "contradicted_material" in rules
    assert "min_words=8" in rules
    listed = [json.loads(line) for line in invoke("categories", "--json").output.splitlines()]
    assert len(listed) == 16
    assert {"name", "aliases", "attributes", "tone", "words"} <= listed[0].keys()


def test_a_bad_category_file_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "tea.toml").write_text('name = "tea"\n')
    result = invoke("categories", "--categories", tmp_path)
    assert result.exit_code == 2
    assert "tea.toml: aliases is missing" in result.output
