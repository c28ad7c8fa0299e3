from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from enrich.timing.clock import Deadline, seconds_of, seconds_until


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), (" 10 min ", 600), ("1h 5s", 3605)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2d", "-1h", "2h and a bit", "05:30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [("05:30", 2.5 * 3600), ("5:30", 2.5 * 3600), ("03:00", 86400), ("02:59", 86340), ("23:59", 75540)],
)
def test_the_next_time_that_clocks_show(clock: str, seconds: float) -> None:
    assert seconds_until(clock, datetime(2026, 1, 15, 3, 0)) == seconds


@pytest.mark.parametrize("clock", ["24:00", "5", "5:3", "noon", "12:60", ""])
def test_what_is_no_time_of_day(clock: str) -> None:
    with pytest.raises(ValueError, match="no time of day"):
        seconds_until(clock, datetime(2026, 1, 15, 3, 0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock; return what lets so many seconds pass."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_rows_that_would_be_done_too_late_are_not_begun(clock: Callable[[float], None]) -> None:
    deadline = Deadline(100)
    assert deadline.allows(1_000_000, done=0)  # nothing is known yet
    clock(10)
    assert deadline.allows(8000, done=1000)  # 80 s and a tenth more, of 90 s
    assert not deadline.allows(8300, done=1000)
    clock(91)
    assert not deadline.allows(0, done=10_100)
    assert Deadline(None).allows(10**12, done=0)


def test_the_pace_is_that_of_the_last_rows(clock: Callable[[float], None]) -> None:
    deadline = Deadline(100)
    clock(10)
    assert deadline.allows(80, done=10)
    clock(1)
    assert not deadline.allows(100, done=1000)  # one fast second says nothing yet
    clock(1)
    assert deadline.allows(10_000, done=2010)
    clock(50)  # spent on other things
    deadline.resume(2010)
    assert deadline.allows(10_000, done=2010)
    clock(10)
    assert not deadline.allows(10_000, done=2020)  # it has become slower


def test_there_is_no_time_at_all(clock: Callable[[float], None]) -> None:
    deadline = Deadline(0)
    clock(0)
    assert not deadline.allows(1, done=0)
