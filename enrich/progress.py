"""Progress: a bar on a terminal, a plain line a minute in a log, nothing when asked to be quiet."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

_LOG_SECONDS = 60.0
_STATE_SECONDS = 2.0
log = logging.getLogger("enrich")


class Progress:
    """Counts finished rows and generated tokens and shows both with the time left.

    The same stands in the file `state`, for whoever asks from outside.
    """

    def __init__(self, total: int, done: int, *, bar: bool, state: Path) -> None:
        self._total, self._done, self._new = total, done, 0
        self._state, self._noted = state, 0.0
        self._tokens = 0
        self._started = self._shown = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit="row", dynamic_ncols=True, file=sys.stderr) if bar else None

    def advance(self, tokens: int) -> None:
        """Count one more row with its generated tokens."""
        self._new += 1
        self._tokens += tokens
        now = time.monotonic()
        if now - self._noted >= _STATE_SECONDS:
            self._note(now)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rate(now):,.0f} tok/s", refresh=False)
            self._bar.update()
        elif now - self._shown >= _LOG_SECONDS:
            self._shown = now
            log.info(
                "%s of %s rows, %.0f tok/s, about %s left",
                f"{self._done + self._new:,}", f"{self._total:,}", self._rate(now), duration(self._left(now)),
            )  # fmt: skip

    def _left(self, now: float) -> float:
        return (self._total - self._done - self._new) * (now - self._started) / max(self._new, 1)

    def _note(self, now: float) -> None:
        self._noted = now
        state = {
            "rows": self._total,
            "done": self._done + self._new,
            "tokens_per_second": round(self._rate(now), 1),
            "seconds_left": round(self._left(now)) if self._new else None,
            "process": os.getpid(),
        }
        temporary = self._state.with_suffix(".tmp")
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


def duration(seconds: float) -> str:
    """Write a time as people do: "2 h 05 min", "3 min 10 s"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
