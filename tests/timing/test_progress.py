from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from enrich.timing import progress as progressing
from enrich.timing.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(progressing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_time_left_accounts_for_the_buckets(clock: list[float], tmp_path: Path) -> None:
    # Long prompts first, as a run has them, at more than twice the time of the many short ones that come after.
    with Progress(110, 0, bar=False, state=tmp_path / "p") as progress:
        progress.expect({400: 10, 40: 100})
        progress.enter(400)
        for _ in range(10):
            clock[0] += 4.0
            progress.advance(60)
        progress.enter(40)
        for done in range(50):
            if done == 0:
                assert progress._left(clock[0]) == pytest.approx(175, rel=0.05)
            clock[0] += 1.75
            progress.advance(60)
        assert progress._left(clock[0]) == pytest.approx(87.5, rel=0.05)


def test_what_rows_took_in_earlier_runs_says_how_they_compare(clock: list[float], tmp_path: Path) -> None:
    # Few rows take four times as long as the many that follow; the machine is half as fast as it was.
    usual = {40: 4.0, 24: 1.0}
    with Progress(200, 0, bar=False, state=tmp_path / "p", usual_seconds=usual.__getitem__) as progress:
        clock[0] += 300  # for loading the model
        progress.expect({40: 20, 24: 180})
        progress.enter(40)
        for _ in range(20):
            clock[0] += 8.0
            progress.advance(60)
        assert progress._left(clock[0]) == pytest.approx(360)
        progress.enter(24)
        for _ in range(90):
            clock[0] += 2.0
            progress.advance(60)
        assert progress._left(clock[0]) == pytest.approx(180, rel=0.02)


def test_rows_of_a_resumed_run_are_not_counted_as_fast(clock: list[float], tmp_path: Path) -> None:
    with Progress(1_000, 900, bar=False, state=tmp_path / "p") as progress:
        progress.expect({40: 100})
        progress.enter(40)
        for _ in range(50):
            clock[0] += 2.0
            progress.advance(30)
        assert progress._left(clock[0]) == pytest.approx(100, rel=0.01)
    assert json.loads((tmp_path / "p").read_text())["done"] == 950


def test_off_a_terminal_a_line_a_minute_says_what_is_going_on(
    clock: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="enrich")
    slots = SimpleNamespace(slots=64, active_slots=60)
    with Progress(500, 0, bar=False, state=tmp_path / "p", slots=slots) as progress:
        progress.expect({56: 500})
        progress.enter(56)
        for number in range(130):
            clock[0] += 1.0
            progress.advance(50, quarantined=number == 3)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "60/64 slots, bucket 56, 1 quarantined, about" in lines[0]


def test_a_notebook_gets_its_own_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progressing.is_watched() is False
    monkeypatch.setitem(progressing.sys.modules, "ipykernel", SimpleNamespace())
    assert progressing.is_watched() is True
