"""Memory: how many rows are computed at once, and what happens when that was too many."""

from __future__ import annotations

from typing import Any

import torch

from enrich.errors import TryAgain

# On a CPU, matrix products give a row the same float32 bits whatever rows stand beside it, if their number is a
# multiple of the kernels' tile height (4 with AVX2). Rows are filled up to a multiple of this.
TILE_ROWS = 16
_FIXED_ROWS = 32  # at once where bits depend on their number and must not depend on what is wanted


class Room:
    """The rows for which a model has room: as many as are wanted, and half as many each time memory has run out."""

    def __init__(self, model: Any, deterministic: bool = False) -> None:
        self._device = model.device
        self.same_bits = model.dtype == torch.float32 and model.device.type == "cpu"
        """Whether a row's bits don't depend on the number of rows, as long as it is filled up."""
        self._deterministic = deterministic
        self._largest: int | None = None  # set once memory has run out

    def rows(self, wanted: int) -> int:
        """Return how many rows to take at most."""
        if self._deterministic and not self.same_bits:
            return _FIXED_ROWS
        return min(wanted, self._largest or wanted)

    def filled(self, rows: int, most: int) -> int:
        """Return how many rows to compute for so many, filler included: `most` where bits depend on the number."""
        return -(-rows // TILE_ROWS) * TILE_ROWS if self.same_bits else most

    def shrink(self, rows: int, width: int, new_tokens: int, error: BaseException) -> None:
        """Take half as many rows from now on.

        Raises the error itself if it is no lack of memory, TryAgain if there is no room for the smallest number.
        """
        if not is_out_of_memory(error):
            raise error
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        smallest = TILE_ROWS if self.same_bits else _FIXED_ROWS if self._deterministic else 1
        if rows <= smallest:
            raise TryAgain(
                f"out of memory on {self._device} with {rows} rows of {width} + {new_tokens} tokens; free memory, or"
                " lower --max-new-tokens or --dtype"
            ) from error
        self._largest = max(smallest, rows // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a lack of memory, of a device's or of the machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # As torch's allocator for the CPU tells it, on Windows and elsewhere.
    return any(words in str(error).lower() for words in ("not enough memory", "can't allocate memory"))
