"""A process beside this one: a module of this package, asked and answering through pipes.

Nothing of what it is told is pickled, it does not import its starter's main module, and it does not outlive a starter
that is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from enrich import errors

_ENDING_SECONDS = 5.0


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Process:
    """A process that runs a module as `python -m` does, until its input ends."""

    def __init__(self, module: str) -> None:
        package = str(Path(errors.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        # -P: what lies in the working directory, beside a catalog say, is not for importing.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        self.told = cast("BinaryIO", self._process.stdin)
        self.tells = cast("BinaryIO", self._process.stdout)

    @property
    def id(self) -> int:
        """Its number, as the system knows it."""
        return self._process.pid

    def wait(self) -> int | None:
        """Return the exit code of a process whose pipes are gone, None if it does not come to its end even so."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_SECONDS)  # its pipes are gone before it is
        return self._process.returncode

    def kill(self) -> None:
        """End it in the midst of what it does."""
        self._process.kill()

    def close(self) -> None:
        """Let it come to its end, which it does at its input's."""
        for pipe in (self.told, self.tells):
            with suppress(OSError):
                pipe.close()
        self._process.wait()


def leave_signals_to_the_starter() -> None:
    """Let this process, which another has started, go on at signals that are sent to both: the other answers them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
