"""How a command ends: exit codes, signals, runs that are stuck, and the metrics file that says so."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from enrich.config import RunConfig
from enrich.errors import EnrichError, TryAgain

if TYPE_CHECKING:
    from enrich.summary import Summary

log = logging.getLogger("enrich")


def exit_code_of(error: Exception) -> int:
    """Return the exit code that tells a scheduler about an error."""
    if isinstance(error, EnrichError):
        return error.exit_code
    if isinstance(error, OSError):
        return 75 if error.errno in _TEMPORARY else 2 if error.errno in _PERMANENT else 1
    return 75 if isinstance(error, MemoryError) else 1


_TEMPORARY = {errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
_PERMANENT = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


_SAME_SIGNAL_SECONDS = 1.0


@contextmanager
def signals() -> Iterator[list[int]]:
    """Note the first SIGINT or SIGTERM for the run to see; let a later one end the process at once.

    One that follows within a second is the same one: `timeout` and terminals signal a process and its group.
    """
    stopped_by = [0]
    stopped_at = 0.0

    def note(number: int, _frame: object) -> None:
        nonlocal stopped_at
        if not stopped_by[0]:
            stopped_by[0], stopped_at = number, time.monotonic()
            log.warning("%s: finishing; once more to stop at once", signal.Signals(number).name)
        elif time.monotonic() - stopped_at >= _SAME_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped_by
    finally:
        for number, handler in previous.items():
            # A process that was stopped is about to end, and the same signal must not replace its exit code. Python
            # takes handlers of its own away before it ends, so only to ignore helps.
            signal.signal(number, signal.SIG_IGN if stopped_by[0] else handler)


_STUCK_SECONDS = 600.0


@contextmanager
def never_stuck(config: RunConfig, should_stop: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """End the process if its time is up and nothing has moved for long: an engine or a disk that never answers.

    Who gives a run an end does not expect it to hold the lock for ever. The run must ask the function yielded, in place
    of `should_stop`, as often as it moves.
    """
    seconds = config.seconds_left()
    if seconds is None:
        yield should_stop
        return
    started = moved = time.monotonic()
    is_over = threading.Event()

    def asked() -> int:
        nonlocal moved
        moved = time.monotonic()
        return should_stop()

    def watch(wait: float) -> None:
        while not is_over.wait(wait):
            now = time.monotonic()
            wait = moved + _STUCK_SECONDS - now
            if wait <= 0:
                _give_up(config, now - started, now - moved)

    threading.Thread(target=watch, args=(seconds,), daemon=True).start()
    try:
        yield asked
    finally:
        is_over.set()


def _give_up(config: RunConfig, seconds: float, stuck: float) -> NoReturn:
    """End the process at once, as one that is out of time."""
    click.echo(
        f"enrich: time is up, and nothing has moved for {stuck:.0f} s; committed rows are safe, the same command goes"
        " on from them",
        err=True,
    )
    with suppress(Exception):  # whatever it is, the process must end
        note_ending(config.metrics_file, TryAgain.exit_code, seconds, None, TryAgain("stuck"))
    os._exit(TryAgain.exit_code)


@contextmanager
def failure_noted(metrics_file: str | None) -> Iterator[None]:
    """Write an error's exit code to the metrics file, if there is to be one, and let the error go its way."""
    started = time.monotonic()
    try:
        yield
    except Exception as error:
        try:
            note_ending(
                metrics_file, exit_code_of(error), time.monotonic() - started, getattr(error, "summary", None), error
            )
        except (OSError, ImportError) as second:  # what went wrong first is what counts
            log.warning("%s: no metrics: %s", metrics_file, second)
        raise


def check_metrics(metrics_file: str | None) -> None:
    """Refuse a metrics file before the run if it could not be written after it."""
    if metrics_file is not None:
        from enrich import metrics

        metrics.check_available()


def note_ending(
    metrics_file: str | None, exit_code: int, seconds: float, summary: Summary | None, error: Exception | None = None
) -> None:
    """Write the metrics file, if there is to be one."""
    if metrics_file is not None:
        from enrich import metrics

        values = dataclasses.asdict(summary) if summary else None
        metrics.write_metrics(
            Path(metrics_file), exit_code=exit_code, succeeded=error is None, seconds=seconds, summary=values
        )
