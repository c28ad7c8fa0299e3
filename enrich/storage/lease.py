"""The lease of an output in remote storage: one run at a time writes it, wherever it runs.

An object `<output>.lock` says who has it and until when. It is made and renewed by writes that the server makes only if
it is as it was seen, so that of two that reach for it one gets it. A run that dies stops renewing; its lease is taken
over when it is over, or at once where it can be seen that the process is gone.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from enrich.errors import EnrichError, TryAgain
from enrich.storage.remote import Changed, Remote, Version
from enrich.storage.url import Url

log = logging.getLogger("enrich")

SECONDS = 120.0  # that a lease lasts from its last renewal


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease. `since` is ISO 8601, UTC; `expires` seconds since 1970.

    `process` names the process among all that a kernel has ever run, where that can be known.
    """

    host: str
    pid: int
    since: str
    expires: float
    token: str
    process: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def is_over(self) -> bool:
        """Whether the lease can be taken over."""
        return time.time() > self.expires or _is_gone(self.process)

    def as_bytes(self) -> bytes:
        """Return it as it is written."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, content: bytes) -> Holder | None:
        """Return what is written; None if it is nothing of ours."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return None


def lease_url(output: Url) -> Url:
    """Return where the lease of an output is."""
    return output.with_suffix(".lock")


def holder(remote: Remote, output: Url) -> Holder | None:
    """Return who holds an output's lease now, if anyone does."""
    found = remote.read(lease_url(output))
    held = Holder.read(found[0]) if found else None
    return held if held and not held.is_over else None


class Lease:
    """Holds the lease of an output while it is entered, renewing it from a thread of its own.

    Entering it raises TryAgain, naming the holder, if another run has it.
    """

    def __init__(self, remote: Remote, output: Url, seconds: float = SECONDS) -> None:
        self._remote, self._output, self._url, self._seconds = remote, output, lease_url(output), seconds
        self._is_over = threading.Event()
        self._lost: TryAgain | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Lease:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        me = Holder(socket.gethostname(), os.getpid(), since, 0.0, secrets.token_hex(8), _process(os.getpid()))
        found = self._remote.read(self._url)
        if found is not None:
            held = Holder.read(found[0])
            if held is not None and not held.is_over:
                raise self._held_by(held)
            log.info("the lock %s was left by %s; taking it over", self._url, held or "something else")
        self._me = me
        try:
            self._renew(found[1] if found else None)
        except Changed:
            raise self._held_by(holder(self._remote, self._output)) from None
        self._thread.start()
        return self

    def _held_by(self, held: Holder | None) -> TryAgain:
        by = held or "a process that has not said which"
        return TryAgain(f"{self._output} is being written by {by} (lock {self._url}); try again when it is done")

    def _renew(self, seen: Version | None) -> None:
        begun = time.monotonic()
        me = replace(self._me, expires=time.time() + self._seconds)
        self._version = self._remote.replace(self._url, me.as_bytes(), seen)
        self._until = begun + self._seconds

    def _keep(self) -> None:
        while not self._is_over.wait(self._seconds / 4):
            try:
                self._renew(self._version)
            except Changed:
                held = holder(self._remote, self._output)
                self._lost = TryAgain(f"{self._output} was taken over by {held or 'another run'} (lock {self._url})")
                return
            except EnrichError as error:
                log.warning("the lock could not be renewed: %s", error)

    def check(self) -> None:
        """Raise TryAgain if the lease is not ours any more, or may not be."""
        if self._lost is not None:
            raise self._lost
        if time.monotonic() > self._until:
            raise TryAgain(f"the lock {self._url} could not be renewed in time; another run may have {self._output}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        # One that is about to be over may be someone else's by the time it would be deleted.
        if self._lost is None and time.monotonic() < self._until - self._seconds / 4:
            with suppress(EnrichError):
                self._remote.delete(self._url)


def _process(pid: int) -> str | None:
    """Name a process so that no other ever has the same name; None where that can't be known, or there is none.

    Numbers come again, and are counted anew in each container and after each start of the machine.
    """
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it names no path
        started = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return f"{kernel} {space} {pid} {started}"


def _is_gone(process: str | None) -> bool:
    """Say whether a process is known to have ended: only where it ran beside this one."""
    mine = _process(os.getpid())
    if process is None or mine is None or process.split()[:2] != mine.split()[:2]:
        return False
    try:
        return _process(int(process.split()[2])) != process
    except (IndexError, ValueError):
        return False
