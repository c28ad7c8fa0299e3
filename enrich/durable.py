"""Durable files: complete under their name, or not there; never half."""

from __future__ import annotations

import os
from pathlib import Path


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name in one atomic step, after its bytes have reached the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    sync_directory(final.parent)


def behind_links(path: Path) -> Path:
    """Return the path of what a symbolic link names, so that it is replaced and the link stays; other paths as is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def sync_directory(directory: Path) -> None:
    """Make the names in a directory as durable as the files (on POSIX; elsewhere the system does it)."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
