from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enrich.cli import main

SAMPLES = Path(__file__).parent.parent.parent / "sample_catalogs"


def enrich(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def run(tiny_gpt2: Path, tmp_path: Path) -> list[object]:
    options = ["--model", tiny_gpt2, "--limit", 12, "--max-new-tokens", 8, "--rules", "all=off", "-q"]
    return ["run", SAMPLES / "home.parquet", "-o", tmp_path / "out.parquet", *options]


def test_a_run_writes_its_report_with_the_night_before(run: list[object], tmp_path: Path) -> None:
    assert enrich(*run).exit_code == 0
    done = enrich(*run, "--seed", 2, "--report", tmp_path / "night.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "night.html").read_text(encoding="utf-8")
    assert "The line is the night before" in page
    assert "<small>before</small>" in page


def test_a_report_that_cannot_be_written_is_no_reason_to_fail(run: list[object], tmp_path: Path) -> None:
    assert enrich(*run, "--report", tmp_path / "nowhere" / "r.html").exit_code == 0
    assert (tmp_path / "out.parquet").is_file()


def test_report_writes_beside_the_output_or_prints_json(run: list[object], tmp_path: Path) -> None:
    enrich(*run)
    assert f"written to {tmp_path / 'out.report.html'}" in enrich("report", tmp_path / "out.parquet").output
    (tmp_path / "out.report.html").unlink()
    data = json.loads(enrich("report", tmp_path / "out.parquet", "--json").output)
    assert data["rows"] == 12
    assert not (tmp_path / "out.report.html").exists()


def test_compare_prints_figures_and_writes_a_page(run: list[object], tmp_path: Path) -> None:
    enrich(*run)
    done = enrich("compare", tmp_path / "out.parquet", tmp_path / "out.parquet", "-o", tmp_path / "c.html")
    assert done.exit_code == 0, done.output
    assert "words, mean" in done.output
    assert (tmp_path / "c.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "missing.parquet"], "no such file"),
        (["report", SAMPLES / "home.parquet"], "not written by `enrich run`"),
        (["report", SAMPLES / "home.csv"], "can't be read as Parquet"),
        (["report", "missing.parquet", "-o", "x.txt"], "must end in .html"),
        (["compare", "a.parquet", "b.parquet"], "no such file"),
        (["run", SAMPLES / "home.parquet", "--report", "x.txt"], "must end in .html"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(arguments: list[object], message: str) -> None:
    done = enrich(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_without_the_extra_it_says_which(run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enrich(*run)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setitem(sys.modules, "gradio", None)
    for command in (["report", tmp_path / "out.parquet"], [*run, "--report", tmp_path / "r.html"], ["demo"]):
        done = enrich(*command)
        assert done.exit_code == 2
        assert "pip install 'enrich[" in done.output
    assert enrich("report", tmp_path / "out.parquet", "--json").exit_code == 0
