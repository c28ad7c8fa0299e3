"""A pool of memory: what one cohort of rows has let go of is taken by the next.

Memory that is new costs a fault for every page of it, which for keys and values is as dear as computing them.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from torch import Tensor

_WORDS = {torch.float32: np.int32, torch.bfloat16: np.int16}
_LARGEST = 4  # times the size that is asked for: what is larger is left for those who need it


class Pool:
    """Lends out tensors on a CPU. Several threads may use one."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []  # of numbers of one kind each, without a shape
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of finite numbers, zeros or what it was given back with."""
        size = math.prod(shape)
        with self._lock:
            fitting = [one for one in self._free if one.dtype == dtype and size <= len(one) <= _LARGEST * size]
            if fitting:
                found = min(fitting, key=len)
                self._free = [one for one in self._free if one is not found]
                return found[:size].view(shape)
        # numpy leaves zeros to the kernel: memory is only taken for the pages that are reached.
        return torch.from_numpy(np.zeros(size, dtype=_WORDS[dtype])).view(dtype).view(shape)

    def give_back(self, *tensors: Tensor) -> None:
        """Take tensors back that were lent; nobody may use them any more."""
        with self._lock:
            for tensor in tensors:
                whole = tensor.untyped_storage()
                self._free.append(torch.empty(0, dtype=tensor.dtype).set_(whole))
