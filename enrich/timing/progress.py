"""Progress: a bar on a terminal or in a notebook, a plain line a minute in a log, nothing when asked to be quiet.

The time left is reckoned from the buckets: by what their rows took in earlier runs on this machine, or else by the
lengths of their prompts.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tqdm import tqdm

_LOG_SECONDS = 60.0
_STATE_SECONDS = 2.0
_PROMPT_COST = 0.25  # of a prompt's position beside one of a new token: it is computed with its neighbours
_SHORTEST_PACE = 20.0  # seconds by which a pace can be told: rows come in bunches
_MOST_MARKS = 512
log = logging.getLogger("enrich")


class Slots(Protocol):
    """What an engine says of the moment; see `enrich.engine.protocol.EngineStats`."""

    @property
    def slots(self) -> int:
        """Rows that are computed at once."""

    @property
    def active_slots(self) -> int:
        """How many of them have a text that is not done."""


class Progress:
    """Counts finished rows and generated tokens and shows both with the time left.

    The same stands in the file `state`, for whoever asks from outside. `slots` is asked how many rows are in flight,
    `usual_seconds` how long a row of a bucket takes as a rule.
    """

    def __init__(
        self,
        total: int,
        done: int,
        *,
        bar: bool,
        state: Path,
        slots: Slots | None = None,
        usual_seconds: Callable[[int], float] | None = None,
    ) -> None:
        self._total, self._done, self._new = total, done, 0
        self._state, self._noted = state, 0.0
        self._slots = slots
        self._usual_seconds = usual_seconds
        self._tokens = self._quarantined = 0
        self._edge = 0
        self._waiting: dict[int, int] = {}  # rows of the window that are not done, by their bucket
        self._weights = 0.0  # of the rows done
        self._started = self._shown = time.monotonic()
        # When how many rows of which weight were done.
        self._marks = deque([(self._started, 0, 0.0)], maxlen=_MOST_MARKS)
        self._bar = _bar(total, done) if bar else None

    def expect(self, rows: Mapping[int, int]) -> None:
        """Take in how many rows each bucket of the next window has."""
        self._waiting = dict(rows)

    def enter(self, edge: int) -> None:
        """Note that the rows of a bucket are generated from now on."""
        if not self._edge:  # the model has been loaded, which is no part of the pace
            self._started = time.monotonic()
            self._marks[0] = (self._started, 0, 0.0)
        self._edge = edge

    def advance(self, tokens: int, *, quarantined: bool = False) -> None:
        """Count one more row with the tokens of all attempts at it."""
        self._new += 1
        self._tokens += tokens
        self._quarantined += quarantined
        self._weights += self._weight(self._edge)
        if self._waiting.get(self._edge):
            self._waiting[self._edge] -= 1
        now = time.monotonic()
        if now - self._marks[-1][0] >= max(0.5, (now - self._started) / _MOST_MARKS):
            self._marks.append((now, self._new, self._weights))
        if now - self._noted >= _STATE_SECONDS:
            self._note(now)
        if self._bar is not None:
            self._bar.set_postfix_str(self._now(now), refresh=False)
            self._bar.update()
        elif now - self._shown >= _LOG_SECONDS:
            self._shown = now
            log.info("%s of %s rows, %s", f"{self._done + self._new:,}", f"{self._total:,}", self._now(now))

    def _now(self, now: float) -> str:
        parts = [f"{self._rate(now):,.0f} tok/s"]
        if self._slots is not None and self._slots.slots:
            parts.append(f"{self._slots.active_slots}/{self._slots.slots} slots")
        if self._edge:
            parts.append(f"bucket {self._edge}")
        if self._quarantined:
            parts.append(f"{self._quarantined:,} quarantined")
        return ", ".join([*parts, f"about {duration(self._left(now))} left"])

    def _left(self, now: float) -> float:
        """Return the seconds that the rows left will take, if work goes on taking as long as it has taken."""
        new = self._tokens / max(self._new, 1)

        def work(rows: float, weights: float) -> float:
            return weights if self._usual_seconds else weights + rows * new

        rows = sum(self._waiting.values())
        ahead = work(rows, sum(count * self._weight(edge) for edge, count in self._waiting.items()))
        later = max(self._total - self._done - self._new - rows, 0)  # of windows that have not been looked at
        ahead += later / max(self._new, 1) * work(self._new, self._weights)
        # Rows in flight are half done, as a rule; but the last ones of a bucket leave slots without work, and those of
        # them that are tried again for long.
        flying = self._slots.active_slots if self._slots is not None else 0
        in_flight = work(flying, flying * self._weight(self._edge))
        # By the pace of the last third: a machine that others use as well is not as fast as it was.
        since = now - max((now - self._started) / 3, _SHORTEST_PACE)
        mark = next((mark for mark in reversed(self._marks) if mark[0] <= since), self._marks[0])
        done = work(self._new - mark[1], self._weights - mark[2]) + (0.0 if mark[1] else in_flight / 2)
        return (ahead + in_flight / 3) * (now - mark[0]) / done if done else 0.0

    def _weight(self, edge: int) -> float:
        """Return what a row of a bucket costs beside its new tokens, or in all where that is known."""
        return self._usual_seconds(edge) if self._usual_seconds else _PROMPT_COST * edge

    def _note(self, now: float) -> None:
        self._noted = now
        state = {
            "rows": self._total,
            "done": self._done + self._new,
            "tokens_per_second": round(self._rate(now), 1),
            "seconds_left": round(self._left(now)) if self._new else None,
            "bucket": self._edge or None,
            "quarantined": self._quarantined,
            "slots_in_use": self._slots.active_slots if self._slots is not None else None,
            "process": os.getpid(),
        }
        temporary = self._state.with_suffix(".tmp")
        with suppress(OSError):  # nothing depends on it; a disk that is full, say, is told by who must write to it
            temporary.write_text(json.dumps(state), encoding="utf-8")
            temporary.replace(self._state)

    def _rate(self, now: float) -> float:
        return self._tokens / max(now - self._started, 1e-9)

    def __enter__(self) -> Progress:
        self._note(time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note(time.monotonic())
        if self._bar is not None:
            self._bar.close()


def is_watched() -> bool:
    """Say whether someone can see a bar: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _bar(total: int, done: int) -> tqdm:
    from tqdm import auto

    kind = auto.tqdm if _in_notebook() else tqdm  # a widget where there are widgets
    return kind(total=total, initial=done, unit="row", dynamic_ncols=True, file=sys.stderr, bar_format=_FORMAT)


# Without tqdm's own time left, which knows nothing of buckets.
_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def duration(seconds: float) -> str:
    """Write a time as people do: "2 h 05 min", "3 min 10 s"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
