"""The judging crew: what its processes find is what this one finds, whatever becomes of them."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from enrich.categories import Categories
from enrich.errors import Interrupted
from enrich.product import Attribute, Product
from enrich.quality import Rulebook
from enrich.rulebooks import rulebooks
from enrich.stages import judging_crew
from enrich.stages.judging_crew import Draft, JudgingCrew, judge
from enrich.stages.process import Process

SETTINGS: dict[str, str] = {"banned_words": "bargain bin|ünder", "max_words": "90", "emoji": "quarantine"}
BOOKS = {category.name: book for category, book in rulebooks(Categories(), SETTINGS, strict_facts=True).items()}
TEXTS = (
    "This oak table seats six. It is made of oak. It is made of oak. And it",
    "A bargain bin table of walnut, 6 ft. long and 100% safe. Order now at www.example.com!",
    "Der Tisch ist aus Eiche und sehr schön für jedes Haus.",
    "\ud800 broken 🙂 surrogates\u2028and all.",
    "   ",
    "Dining table of oak, 72 in.",
)


def drafts() -> list[Draft]:
    made = []
    for number, text in enumerate(TEXTS * 8):
        attributes = tuple(Attribute(f"Name {n}", f"{n} \ud83d ü") for n in range(number % 3))
        product = Product(number, "", f"Oak table {number}", "Home > Tables", attributes, "")
        beginning = text[:9] if number % 2 else ""
        made.append(Draft(text, number % 5 == 0, beginning, product, list(BOOKS)[number % len(BOOKS)]))
    return made


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[], JudgingCrew[int]]:
    monkeypatch.setattr(judging_crew, "processors", lambda: 3)

    def started() -> JudgingCrew[int]:
        crew: JudgingCrew[int] = JudgingCrew(BOOKS)
        crew.expect(judging_crew._ALONE_ROWS)
        assert len(crew.processes) == 2
        while len(crew._up) < 2:
            time.sleep(0.01)
        return crew

    return started


def gone(processes: list[int]) -> bool:
    for process in processes:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            continue
        return False
    return True


def test_a_rulebook_survives_being_told_to_another_process() -> None:
    for book in BOOKS.values():
        told = Rulebook.of_values(json.loads(json.dumps(book.as_values())))
        assert (told.limits, told.severities, told.digest) == (book.limits, book.severities, book.digest)


def test_a_crew_finds_what_this_process_finds_in_the_same_order(start: Callable[[], JudgingCrew[int]]) -> None:
    crew, found = start(), []
    for number, draft in enumerate(drafts()):
        crew.hand_in(number, draft)
        found += crew.judged()
    found += crew.judged(wait=True)
    processes = crew.processes
    crew.close()
    assert found == [(number, judge(draft, BOOKS)) for number, draft in enumerate(drafts())]
    verdicts = [judged.verdict for _, judged in found]
    assert any(not verdict.accepted for verdict in verdicts) and any(verdict.failures for verdict in verdicts)
    assert crew.judged(wait=True) == []
    assert gone(processes)


@pytest.mark.parametrize(
    ("rows", "processors", "books"),
    [
        (judging_crew._ALONE_ROWS - 1, 8, BOOKS),
        (10_000, 1, BOOKS),
        (10_000, 8, {name: Rulebook(settings={"all": "off"}) for name in BOOKS}),
    ],
    ids=["few rows", "one processor", "no rules"],
)
def test_what_is_little_work_starts_no_process(
    monkeypatch: pytest.MonkeyPatch, rows: int, processors: int, books: dict[str, Rulebook]
) -> None:
    monkeypatch.setattr(judging_crew, "processors", lambda: processors)
    crew: JudgingCrew[int] = JudgingCrew(books)
    crew.expect(rows)
    assert crew.processes == []
    crew.hand_in(7, drafts()[0])
    assert crew.judged() == [(7, judge(drafts()[0], books))]
    crew.close()


def test_a_crew_whose_processes_are_killed_loses_no_text(
    start: Callable[[], JudgingCrew[int]], caplog: pytest.LogCaptureFixture
) -> None:
    crew = start()
    with caplog.at_level(logging.WARNING, logger="enrich"):
        for number, draft in enumerate(drafts()):
            if number == 20:
                for process in crew.processes:
                    os.kill(process, signal.SIGKILL)
            crew.hand_in(number, draft)
        found = crew.judged(wait=True)
    processes = crew.processes
    crew.close()
    assert found == [(number, judge(draft, BOOKS)) for number, draft in enumerate(drafts())]
    assert 1 <= caplog.text.count("is gone (exit code -9); they are judged in this one") <= 2
    assert gone(processes)


def test_what_a_process_can_not_judge_is_raised_here(start: Callable[[], JudgingCrew[int]]) -> None:
    crew = start()
    crew.hand_in(0, Draft("A table.", False, "", Product(0, "", "Table", "", (), ""), "no such book"))
    with pytest.raises(KeyError, match="no such book"):
        crew.judged(wait=True)
    crew.hand_in(1, drafts()[0])
    assert crew.judged(wait=True) == [(1, judge(drafts()[0], BOOKS))]
    crew.close()


@pytest.mark.parametrize("told", [b"", b"{}\n", b"{}\n[[", b"{"])
def test_a_process_whose_starter_is_killed_ends_without_a_word(told: bytes) -> None:
    command = [sys.executable, "-m", "enrich.stages.judging_crew"]
    done = subprocess.run(command, input=told, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[]\n" * told.count(b"\n"), b"")


def test_until_a_process_is_up_texts_are_judged_in_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging_crew, "processors", lambda: 2)
    crew: JudgingCrew[int] = JudgingCrew(BOOKS)
    crew.expect(judging_crew._ALONE_ROWS)
    os.kill(crew.processes[0], signal.SIGSTOP)
    for number, draft in enumerate(drafts()):
        crew.hand_in(number, draft)
        assert crew.judged() == [(number, judge(draft, BOOKS))]
    os.kill(crew.processes[0], signal.SIGKILL)
    crew.hand_in(0, drafts()[0])
    assert crew.judged(wait=True) == [(0, judge(drafts()[0], BOOKS))]
    crew.close()


@pytest.mark.parametrize("room", [0, 1])
def test_where_there_is_no_room_for_processes_there_are_fewer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    started = []

    def start(module: str) -> Process:
        if len(started) == room:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(Process(module))
        return started[-1]

    monkeypatch.setattr(judging_crew, "processors", lambda: 3)
    monkeypatch.setattr(judging_crew, "Process", start)
    crew: JudgingCrew[int] = JudgingCrew(BOOKS)
    crew.expect(judging_crew._ALONE_ROWS)
    assert len(crew.processes) == room
    assert f"(Resource temporarily unavailable); {room} do" in caplog.text.replace("[Errno 11] ", "")
    crew.hand_in(0, drafts()[0])
    assert crew.judged(wait=True) == [(0, judge(drafts()[0], BOOKS))]
    crew.close()


def test_an_engine_that_is_faster_than_who_judges_waits(
    start: Callable[[], JudgingCrew[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging_crew, "_LONGEST_SECONDS", 60.0)
    crew, most, found = start(), 0, 0
    for number, draft in enumerate(drafts() * 20):
        crew.hand_in(number, draft)
        found += len(crew.judged())
        most = max(most, number + 1 - found)
    assert most <= (2 * judging_crew._ASKED + 1) * judging_crew._BATCH
    crew.close()


# Random weights write some six words in float32, now more, now fewer: about half of the attempts fail.
RULES = "all=off,too_short=retry,min_words=7"
CATALOG = pl.DataFrame({"id": [str(n) for n in range(60)], "title": [f"Oak table number {n}" for n in range(60)]})


def texts(path: Path) -> list[tuple[Any, ...]]:
    rows = pl.read_parquet(path).rows(named=True)
    return [(row["description"], row["generation"]["attempt"], row["generation"]["status"]) for row in rows]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every run have a crew of one, up before it generates; return the ids of its processes."""
    started: list[int] = []
    expect = JudgingCrew.expect

    def noted(self: JudgingCrew[Any], rows: int) -> None:
        expect(self, rows)
        started.extend(self.processes)
        while len(self._up) < len(self.processes):
            time.sleep(0.01)

    monkeypatch.setattr(judging_crew, "_ALONE_ROWS", 1)
    monkeypatch.setattr(judging_crew, "processors", lambda: 2)
    monkeypatch.setattr(JudgingCrew, "expect", noted)
    return started


def test_a_run_with_a_crew_writes_what_a_run_without_writes(
    enrich: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: list[int]
) -> None:
    run = partial(enrich, CATALOG, rules=RULES, max_quarantined="100%", batch_size=16)
    summary = run(name="beside.parquet")
    assert len(watched) == 1
    monkeypatch.setattr(judging_crew, "processors", lambda: 1)
    alone = run(name="alone.parquet")
    assert len(watched) == 1
    assert summary.retried == alone.retried > 0
    assert texts(tmp_path / "beside.parquet") == texts(tmp_path / "alone.parquet")
    assert gone(watched)


def test_the_engine_does_not_end_before_the_last_verdict(
    enrich: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(enrich, CATALOG, rules=RULES, max_quarantined="100%", batch_size=16)
    expected = run(name="expected.parquet")
    judged = JudgingCrew.judged
    monkeypatch.setattr(JudgingCrew, "judged", lambda self, *, wait: judged(self, wait=True) if wait else [])
    late = run(name="late.parquet")
    assert late.retried == expected.retried > 0
    assert texts(tmp_path / "late.parquet") == texts(tmp_path / "expected.parquet")


def test_a_run_that_is_stopped_has_judged_and_kept_what_was_written(
    enrich: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: list[int]
) -> None:
    handed_in = []
    hand_in = JudgingCrew.hand_in
    monkeypatch.setattr(JudgingCrew, "hand_in", lambda self, *given: (handed_in.append(given), hand_in(self, *given)))
    run = partial(enrich, CATALOG, rules="all=off,too_short=flag", batch_size=16)
    asked = iter([0] * 30)
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM: (\d+) rows are done"):
        run(should_stop=lambda: next(asked, signal.SIGTERM))
    assert gone(watched) and len(watched) == 1
    written = len(handed_in)
    resumed = run()
    assert 0 < resumed.resumed_rows == written < 60
    assert resumed.generated == 60
    run(name="whole.parquet")
    assert texts(tmp_path / "out.parquet") == texts(tmp_path / "whole.parquet")
