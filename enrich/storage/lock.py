"""The lock of an output: one run at a time writes it, and a second one learns who does."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock

from enrich.errors import CatalogError, TryAgain


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. `since` is ISO 8601, UTC."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Hold the lock of an output. Raises TryAgain, naming the holder, if another process has it.

    The operating system lets go of a dead process's lock, so there is none to be taken over; its note is written over.
    """
    if not output.parent.is_dir():
        raise CatalogError(f"{output}: there is no directory {output.parent}")
    lock_file, note = _files(output)
    lock_file.touch()  # a directory that can't be written to is an error of its own, not a lock that is held
    # Half a second: `enrich status` holds it for a moment to see whether anyone else does.
    lock = filelock.FileLock(lock_file, timeout=0.5)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        by = holder(output) or "a process that has not said which"
        raise TryAgain(f"{output} is being written by {by} (lock {lock_file}); try again when it is done") from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        note.write_text(json.dumps(asdict(Holder(socket.gethostname(), os.getpid(), since))), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # one that is left says nothing wrong: the lock tells who is alive
            note.unlink(missing_ok=True)
        lock.release()


def forget(output: Path) -> None:
    """Remove the lock's files of an output that is gone for good, while holding it.

    Who waits for it meanwhile sees that the file has lost its name, and makes another.
    """
    lock_file, note = _files(output)
    note.unlink(missing_ok=True)
    with suppress(PermissionError):  # of Windows, which does not remove what is open: then it stays, empty
        lock_file.unlink(missing_ok=True)


def holder(output: Path) -> Holder | None:
    """Return who holds an output's lock, as far as is written down; the note of a killed process may be left over."""
    try:
        return Holder(**json.loads(_files(output)[1].read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_held(output: Path) -> bool:
    """Say whether a living process holds the output's lock."""
    lock_file, _ = _files(output)
    if not lock_file.exists():
        return False
    try:
        with filelock.FileLock(lock_file, timeout=0):
            return False
    except filelock.Timeout:
        return True


def _files(output: Path) -> tuple[Path, Path]:
    return output.with_name(f".{output.name}.lock"), output.with_name(f".{output.name}.holder")
