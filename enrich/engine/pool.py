"""A pool of memory: what one batch of rows has let go of is taken by the next.

Memory that is new costs a fault for every page of it, which can be as dear as computing what goes there: hence large
pages, where the system has them.
"""

from __future__ import annotations

import math
import mmap
import threading
from contextlib import suppress

import torch
from torch import Tensor

_PAGE = 2 << 20  # bytes of a large page
# Memory that is shared, as is the default, gets large pages on few systems.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_LARGEST = 4  # times the size that is asked for: what is larger is left for those who need it


class Pool:
    """Lends out tensors on a CPU. Several threads may use one."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []  # of numbers of one kind each, without a shape
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        """What it holds that nobody has."""
        with self._lock:
            return sum(one.nbytes for one in self._free)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of finite numbers, zeros or what it was given back with."""
        size = math.prod(shape)
        with self._lock:
            fitting = [one for one in self._free if one.dtype == dtype and size <= len(one) <= _LARGEST * size]
            if fitting:
                found = min(fitting, key=len)
                self._free = [one for one in self._free if one is not found]
                return found[:size].view(shape)
        return _zeros(size * dtype.itemsize).view(dtype)[:size].view(shape)

    def give_back(self, *tensors: Tensor) -> None:
        """Take tensors back that were lent; nobody may use them any more."""
        with self._lock:
            for tensor in tensors:
                begin, storage = tensor.storage_offset(), tensor.untyped_storage()
                rest = storage.nbytes() // tensor.itemsize - begin
                self._free.append(tensor.new_empty(0).set_(storage, begin, (rest,), (1,)))


def _zeros(size: int) -> Tensor:
    """Return so many bytes, or a few more: zeros, which take memory when they are reached."""
    if size < _PAGE:
        return torch.zeros(-(-size // 8) * 8, dtype=torch.uint8)
    try:
        memory = mmap.mmap(-1, (-(-size // _PAGE) + 1) * _PAGE, **_PRIVATE)
    except OSError as error:
        raise MemoryError(f"no room for {size:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    return whole[-whole.data_ptr() % _PAGE :]
