"""Points: every change that a run makes to its directory, counted, and what is to happen at one of them.

Lives in the process under test, put there by `server.py`; the product knows nothing of it. It stands in front of the
functions of `os`, `open` and pyarrow's writer, so a point is the moment before something is made durable, gets or loses
its name, or is written.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# What fails when there is no room; names can still be taken away and exchanged.
_NEEDS_ROOM = {"open", "mkdir", "fsync", "begin", "write", "close"}


@dataclass(frozen=True)
class Plan:
    """What to do at the point with this number, from 1, or at the first one that `match` is found in.

    `kill`: the process dies. `torn`: before it does, what was not synced of a file about to be is cut at random, as if
    the machine had lost its power. `full`: from here on whatever needs room fails with ENOSPC. `fill`: the file system
    is really filled to the last byte. `error`: the operation fails once, with `number`. Points are those below `root`,
    the run's directory if it is not given.
    """

    at: int | None = None
    match: str | None = None
    action: str = "kill"
    number: int = errno.EIO
    seed: int = 0
    root: str | None = None


class Points:
    """Counts the changes below `root` and writes them to the file `listing`, a line of JSON each."""

    def __init__(self, root: Path, listing: Path, plan: Plan) -> None:
        self._root = os.path.realpath(root)
        self._listing = os.open(listing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._plan = plan
        self._count = 0
        self._is_full = False
        self._synced: dict[str, int] = {}  # bytes of a file that would outlive the machine

    def install(self) -> None:
        """Stand in front of what changes files, from now on."""
        for name in ("unlink", "remove", "rmdir", "mkdir", "truncate"):
            setattr(os, name, self._before(getattr(os, name), name))
        for name in ("replace", "rename"):
            setattr(os, name, self._before(getattr(os, name), name, named=1))
        os.fsync = self._before(os.fsync, "fsync")
        os_open, io_open = os.open, io.open

        def open_descriptor(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if flags & _WRITING:
                self._reached("open", path, options.get("dir_fd"))
            return os_open(path, flags, *args, **options)

        def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not isinstance(file, int) and set(mode) & set("wax+"):
                self._reached("open", file)
                if "a" in mode and os.path.exists(file):
                    self._synced.setdefault(os.path.realpath(file), os.path.getsize(file))
            return io_open(file, mode, *args, **options)

        os.open, io.open, builtins.open = open_descriptor, open_file, open_file
        self._install_in_pyarrow()

    def _install_in_pyarrow(self) -> None:
        from pyarrow.parquet import core

        writer: Any = core.ParquetWriter
        begin, write, close = writer.__init__, writer.write_table, writer.close
        reached = self._reached

        def begin_file(self: Any, where: Any, *args: Any, **options: Any) -> None:
            self.told_as = where
            self.is_open = False  # if what comes next fails
            reached("begin", where)
            begin(self, where, *args, **options)

        def write_table(self: Any, *args: Any, **options: Any) -> None:
            reached("write", self.told_as)
            write(self, *args, **options)

        def close_file(self: Any) -> None:
            if self.is_open:
                reached("close", self.told_as)
            close(self)

        writer.__init__, writer.write_table, writer.close = begin_file, write_table, close_file

    def _before(self, function: Callable[..., Any], name: str, named: int = 0) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._reached(name, args[named], options.get("dir_fd"))
            result = function(*args, **options)
            if name == "fsync":
                path = _path_of(args[0])
                if os.path.isfile(path):
                    self._synced[path] = os.path.getsize(path)
            return result

        return call

    def _reached(self, operation: str, target: Any, directory: int | None = None) -> None:
        path = _path_of(target, directory)
        if not path.startswith(self._root + os.sep) and path != self._root:
            return
        self._count += 1
        name = os.path.relpath(path, self._root)
        line = json.dumps({"point": self._count, "operation": operation, "name": name}) + "\n"
        os.write(self._listing, line.encode())
        if self._is_full and operation in _NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        plan = self._plan
        is_meant = plan.match is not None and re.search(plan.match, f"{operation} {name}")
        if self._count == plan.at or is_meant:
            self._act(operation, path, name)

    def _act(self, operation: str, path: str, name: str) -> None:
        plan = self._plan
        if plan.action == "error":
            self._plan = Plan()
            raise OSError(plan.number, os.strerror(plan.number), name)
        if plan.action == "full":
            self._plan = Plan()
            self._is_full = True
            if operation in _NEEDS_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            return
        if plan.action == "fill":
            self._plan = Plan()
            _fill(self._root)
            return
        if plan.action == "torn" and operation == "fsync" and os.path.isfile(path):
            rng = random.Random(plan.seed)
            size = os.path.getsize(path)
            kept = min(self._synced.get(path, 0), size)
            self._plan = Plan()  # this very cut is no point
            os.truncate(path, rng.randint(kept, max(kept, size - 1)))
        os.kill(os.getpid(), signal.SIGKILL)


def _path_of(target: Any, directory: int | None = None) -> str:
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}")
    path = os.fspath(target)
    path = os.fsdecode(path)
    if directory is not None:
        path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
    head, tail = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(head), tail)  # a link counts as itself


def _fill(directory: str) -> None:
    """Take all room that is left on a file system."""
    for size in (1 << 16, 1 << 10, 1):
        with open(os.path.join(directory, "..", f"ballast-{size}"), "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
