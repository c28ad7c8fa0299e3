"""Memory: telling that it ran out."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, on the device or beside it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error).lower()
