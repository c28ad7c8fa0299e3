"""The survey: the same in one process as in several, made once for a run however often that is broken off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from enrich.catalog import Catalog, RoleOptions
from enrich.errors import CatalogError, ConfigError, Interrupted, TryAgain
from enrich.stages import survey, survey_crew
from enrich.stages.survey_crew import SurveyCrew, survey_batches
from enrich.stages.surveyor import VARIANT, Findings, Instructions, Surveyor

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"
ROWS = 20_000  # three batches


def catalog_of(path: Path, **changed: Any) -> Catalog:
    """Shop rows: of some, titles stand in the first row of each product only; some are described."""
    columns = {
        "id": [f"P{row // 3}" for row in range(ROWS)],
        "title": [None if row % 3 and row % 7 else f"Lamp no. {row}" for row in range(ROWS)],
        "category": ["Home > Lighting"] * ROWS,
        "color": [("Red", "<b>Blue</b>", None)[row % 3] for row in range(ROWS)],
        "description": ["As it was." if row % 11 == 0 else None for row in range(ROWS)],
        "not for prompts": list(range(ROWS)),
    }
    pl.DataFrame(columns | changed).write_parquet(path)
    return Catalog(path, RoleOptions())


def instructions(catalog: Catalog, **changed: Any) -> Instructions:
    told = {"template": None, "categories": None, "chat": False, "overwrite": False, "key_of_run": "k"}
    return Instructions(catalog.roles, **(told | changed))


def marked(found: Iterator[Findings]) -> tuple[bytes, bytes]:
    marks, keys, last_titled = b"", b"", ""
    for one in found:
        marks += one.behind(last_titled)
        keys += one.keys
        last_titled = last_titled if one.last_titled is None else one.last_titled
    return marks, keys


def test_instructions_survive_being_told_to_another_process(tmp_path: Path) -> None:
    frame = pl.DataFrame({"Title": ["Lamp"], "Option1 Name": ["Color"], "Option1 Value": ["Red"], "Material": ["Oak"]})
    frame.write_parquet(tmp_path / "shop.parquet")
    told = instructions(Catalog(tmp_path / "shop.parquet", RoleOptions()), template="{{ title }}\ud800", chat=True)
    assert told.roles.attribute_pairs
    assert Instructions.from_json(told.as_json()) == told


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_crew_finds_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    catalog = catalog_of(tmp_path / "shop.parquet")
    told = instructions(catalog, overwrite=overwrite)
    surveyor = Surveyor(told)
    alone = marked(surveyor.survey(batch, products.where) for batch, products in catalog.batches())
    monkeypatch.setattr(survey_crew, "_ALONE_ROWS", 1)
    monkeypatch.setattr(survey_crew, "processors", lambda: 2)
    assert marked(survey_batches(told, catalog.batches())) == alone
    # A product may stand on both sides of a batch's end.
    whole = pl.read_parquet(catalog.path).to_arrow().combine_chunks().to_batches()[0]
    assert marked(iter([surveyor.survey(whole, "")])) == alone
    assert sum(mark & VARIANT > 0 for mark in alone[0]) > ROWS // 3


@pytest.mark.slow
def test_what_a_crew_meets_is_raised_as_by_one_process(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "shop.parquet")
    batch, products = next(catalog.batches())
    text = pa.array([b"\xff"] * len(batch)).view(pa.string())
    broken = batch.set_column(batch.schema.get_field_index("color"), "color", text)
    with SurveyCrew(instructions(catalog), 1) as crew, pytest.raises(CatalogError, match=r"rows 1 to .*'color'"):
        list(crew.survey([(broken, products)]))
    template = "{{ title }}{{ 1 // attributes | length }}"
    with (
        SurveyCrew(instructions(catalog, template=template), 1) as crew,
        pytest.raises(ConfigError, match=r"^template .*division"),
    ):
        list(crew.survey([(batch, products)]))


def test_a_crew_that_loses_a_process_is_to_be_tried_again(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "shop.parquet")
    with SurveyCrew(instructions(catalog), 2) as crew:
        processes = crew.processes
        os.kill(processes[0], signal.SIGKILL)
        with pytest.raises(TryAgain, match=r"is gone \(exit code -9\)"):
            list(crew.survey([next(catalog.batches())] * 8))
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.slow
def test_a_crew_left_in_the_midst_of_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = catalog_of(tmp_path / "shop.parquet")
    monkeypatch.setattr(survey_crew, "_ALONE_ROWS", 1)
    monkeypatch.setattr(survey_crew, "processors", lambda: 2)
    crews: list[SurveyCrew] = []

    class Watched(SurveyCrew):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            crews.append(self)

    monkeypatch.setattr(survey_crew, "SurveyCrew", Watched)
    found = survey_batches(instructions(catalog), catalog.batches())
    next(found), next(found)
    processes = crews[0].processes
    os.kill(processes[0], 0)
    found.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("lines", [0, 1])
def test_a_process_whose_starter_is_killed_ends_without_a_word(tmp_path: Path, lines: int) -> None:
    told = instructions(catalog_of(tmp_path / "shop.parquet")).as_json() + "\n" if lines else ""
    command = [sys.executable, "-m", "enrich.stages.survey_crew"]
    done = subprocess.run(command, input=told.encode() + b"\xff\xff\xff\xff" * lines, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def break_off(enrich: Callable[..., Any]) -> None:
    asked = iter([0] * 45)
    with pytest.raises(Interrupted):
        enrich(HOME, limit=60, batch_size=16, should_stop=lambda: next(asked, signal.SIGTERM))


def test_a_resumed_run_does_not_read_the_catalog_for_its_keys_again(
    enrich: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = enrich(HOME, "whole.parquet", limit=60)
    break_off(enrich)
    assert (tmp_path / "out.parquet.checkpoint" / "survey.parquet").is_file()

    def never(*_: Any) -> Iterator[Findings]:
        raise AssertionError("surveyed again")

    monkeypatch.setattr(survey, "survey_batches", never)
    summary = enrich(HOME, limit=60)
    assert summary.resumed_rows > 0
    assert summary.generated == expected.generated
    columns = pl.read_parquet(HOME).columns
    whole, resumed = pl.read_parquet(tmp_path / "whole.parquet"), pl.read_parquet(tmp_path / "out.parquet")
    assert resumed.select(columns).equals(whole.select(columns))
    assert not (tmp_path / "out.parquet.checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
def test_a_damaged_survey_is_made_again(
    enrich: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    enrich(HOME, "whole.parquet", limit=60)
    break_off(enrich)
    kept = tmp_path / "out.parquet.checkpoint" / "survey.parquet"
    if damage == "truncated":
        kept.write_bytes(kept.read_bytes()[:-20])
    elif damage == "flipped":
        data = bytearray(kept.read_bytes())
        data[60] ^= 1
        kept.write_bytes(data)
    else:
        pl.DataFrame({"a": [1]}).write_parquet(kept)
    summary = enrich(HOME, limit=60)
    assert "the survey is damaged" in caplog.text
    assert summary.resumed_rows > 0
    whole, resumed = pl.read_parquet(tmp_path / "whole.parquet"), pl.read_parquet(tmp_path / "out.parquet")
    assert resumed["description"].to_list() == whole["description"].to_list()
