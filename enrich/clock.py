"""The end of a run's time: a deadline by the clock, or so long from now."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

_UNITS = {"h": 3600, "m": 60, "min": 60, "s": 1, "sec": 1}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|sec|s)")


def seconds_of(duration: str) -> float:
    """Read "2h", "90m", "1h30m" or "45s". Raises ValueError for anything else."""
    parts = _DURATION.findall(duration.strip().lower())
    if not parts or _DURATION.sub("", duration.strip().lower()).strip():
        raise ValueError(f"{duration!r} is no duration such as 2h, 90m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def seconds_until(clock_time: str, now: datetime) -> float:
    """Return the seconds from `now` to the next time that clocks show "05:30". Raises ValueError if it is no time."""
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", clock_time.strip())
    if not match:
        raise ValueError(f"{clock_time!r} is no time of day such as 05:30")
    then = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return then.timestamp() - now.timestamp()  # not their difference: the clocks may be changed in between


class Deadline:
    """Says whether there is time for one more batch, from how long batches have taken so far."""

    def __init__(self, seconds: float | None) -> None:
        """Begin to count; `seconds` from now is the end, None is never."""
        self._end = None if seconds is None else time.monotonic() + seconds
        self._slowest = 0.0  # seconds per position

    def allows(self, positions: int) -> bool:
        """Say whether a batch of so many positions (rows × tokens) would be done in time."""
        # A tenth more than the slowest so far: the next may be slower, and its texts are to be committed as well.
        return self._end is None or time.monotonic() + 1.1 * self._slowest * positions < self._end

    def learn(self, positions: int, seconds: float) -> None:
        """Take note of how long a batch took."""
        self._slowest = max(self._slowest, seconds / positions)
