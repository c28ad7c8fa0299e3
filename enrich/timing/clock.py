"""The end of a run's time: a deadline by the clock, or so long from now."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

_UNITS = {"h": 3600, "m": 60, "min": 60, "s": 1, "sec": 1}
_PACE_SECONDS = 2.0  # over how long a pace is taken: a single step may be slow by chance
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
    """Says whether there is time to begin with more rows, from how long the last ones are taking."""

    def __init__(self, seconds: float | None) -> None:
        """Begin to count; `seconds` from now is the end, None is never."""
        self._end = None if seconds is None else time.monotonic() + seconds
        self._pace = 0.0  # seconds per position
        self.resume(0)

    def resume(self, done: int) -> None:
        """Leave out of the pace what time has passed so far, after `done` positions (rows × tokens)."""
        self._since = (time.monotonic(), done)

    def allows(self, more: int, done: int) -> bool:
        """Say whether so many more positions would be computed in time, `done` having been computed so far."""
        now = time.monotonic()
        then, before = self._since
        if now - then >= _PACE_SECONDS and done > before:
            self._pace = (now - then) / (done - before)
            self._since = (now, done)
        # A tenth more than by the pace: the machine may become slower, and the texts are to be committed as well.
        return self._end is None or now + 1.1 * self._pace * more < self._end
