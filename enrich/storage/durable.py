"""Durable files: complete under their name, or not there; never half."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name in one atomic step, after its bytes have reached the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    sync_directory(final.parent)


def temporary_of(final: Path) -> Path:
    """Return the name under which a file is written until it is whole; what a killed run left there is written over."""
    return final.with_name(f".{final.name}.tmp")


@contextmanager
def aside(final: Path) -> Iterator[Path]:
    """Lend a name beside the final one to write a file under, and publish it; after an error nothing is left."""
    temporary = temporary_of(final)
    try:
        yield temporary
        publish(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def abandon(writer: Any) -> None:
    """Close a Parquet writer whose file is not wanted, even where a full disk does not let it write to its end."""
    try:
        writer.close()
    except OSError:
        writer.is_open = False  # or it would try again when it is collected, and print what it met


def write_table(table: Any, path: Path) -> None:
    """Write an Arrow table as Parquet; after an error nothing is left of it."""
    import pyarrow.parquet as pq

    writer = pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
    try:
        writer.write_table(table)
        writer.close()
    except BaseException:
        abandon(writer)
        path.unlink(missing_ok=True)
        raise


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
