"""Streams: a file's bytes, unpacked on the way, and what all formats share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

BATCH_ROWS = 8192
CHUNK = 1 << 20
LONGEST_ROW = (
    16 << 20
)  # bytes of text, unpacked; a longer one is a mistake, or a few kilobytes that unpack to a disk full
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def open_stream(path: Path) -> Any:
    """Open a file for reading bytes, decompressed if it is gzip or zstd, whatever its name."""
    with path.open("rb") as file:
        magic = file.read(4)
    compression = next((name for head, name in _COMPRESSIONS.items() if magic.startswith(head)), None)
    return pa.input_stream(str(path), compression=compression)


def short(name: str) -> str:
    """Return a name in quotes, cut off where it is too long for a message."""
    return repr(name if len(name) <= 60 else name[:60] + "…")


def one_line(error: BaseException) -> str:
    """Return what an error says, fit for one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
