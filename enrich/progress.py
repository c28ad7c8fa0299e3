"""Progress: a bar on a terminal, a plain line a minute in a log, nothing when asked to be quiet."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

_LOG_SECONDS = 60.0
log = logging.getLogger("enrich")


class Progress:
    """Counts finished rows and generated tokens and shows both with the time left."""

    def __init__(self, total: int, done: int, *, bar: bool) -> None:
        self._total, self._done, self._new = total, done, 0
        self._tokens = 0
        self._started = self._shown = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit="row", dynamic_ncols=True, file=sys.stderr) if bar else None

    def advance(self, tokens: int) -> None:
        """Count one more row with its generated tokens."""
        self._new += 1
        self._tokens += tokens
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rate(now):,.0f} tok/s", refresh=False)
            self._bar.update()
        elif now - self._shown >= _LOG_SECONDS:
            self._shown = now
            left = (self._total - self._done - self._new) * (now - self._started) / self._new
            log.info(
                "%s of %s rows, %.0f tok/s, about %s left",
                f"{self._done + self._new:,}", f"{self._total:,}", self._rate(now), _duration(left),
            )  # fmt: skip

    def _rate(self, now: float) -> float:
        return self._tokens / max(now - self._started, 1e-9)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
