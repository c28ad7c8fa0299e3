from __future__ import annotations

from datetime import datetime

import pytest

from enrich.clock import Deadline, seconds_of, seconds_until


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


def test_a_batch_that_would_end_too_late_is_not_begun() -> None:
    deadline = Deadline(100)
    assert deadline.allows(1_000_000)  # nothing is known yet
    deadline.learn(1000, 10)
    assert deadline.allows(9000)
    assert not deadline.allows(9500)
    assert not Deadline(0).allows(1)
    assert Deadline(None).allows(10**12)
