"""Memory: how many rows are computed at once, and what happens when that was too many."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from enrich.errors import TryAgain

log = logging.getLogger("enrich")

# On a CPU, matrix products give a row the same float32 bits whatever rows stand beside it, if their number is a
# multiple of the kernels' tile height (4 with AVX2). Rows are filled up to a multiple of this.
TILE_ROWS = 16
_FIXED_ROWS = 32  # at once where bits depend on their number and must not depend on what is wanted
# At once where few rows are filled up to the number wanted, which on a CPU takes as long as if all were rows.
_FILLED_UP_ROWS = 128
_PART_OF_FREE = 1 / 2  # for keys and values; the rest is for what is computed with them

# Where control groups of the first and the second version tell their limit, what is used, and the files in that.
_OF_GROUPS = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file"),
    2: ("memory.max", "memory.current", "memory.stat", "inactive_file"),
}


class Room:
    """The rows for which a model has room: as many as are wanted, and half as many each time that is too many.

    `has_own_pass` says that the model's pass is one of ours, in which bits never depend on the number of rows,
    `attends_wide` that its keys and values are float32 whatever it is, `same_bits` that its bits are as in float32.
    """

    def __init__(
        self,
        model: Any,
        deterministic: bool = False,
        has_own_pass: bool = False,
        attends_wide: bool = False,
        same_bits: bool = False,
    ) -> None:
        self._device = model.device
        self.same_bits = (model.dtype == torch.float32 or same_bits) and model.device.type == "cpu"
        """Whether a row's bits don't depend on the number of rows, as long as it is filled up."""
        self.cache_dtype: torch.dtype = torch.float32 if attends_wide else model.dtype
        self._deterministic = deterministic
        self._fills_up = self._device.type == "cpu" and not self.same_bits and not has_own_pass
        self._position_bytes = position_bytes(model) // model.dtype.itemsize * self.cache_dtype.itemsize
        self._largest: int | None = None  # set once memory has run out
        self._told: int | None = None  # how many rows fit, as was last logged

    @property
    def _smallest(self) -> int:
        return TILE_ROWS if self.same_bits else _FIXED_ROWS if self._deterministic else 1

    def rows(self, wanted: int, positions: int = 0, held: int = 0) -> int:
        """Return how many rows to take at most, halved until their keys and values fit into what memory is free.

        Each row may come to so many positions; `held` are bytes that are not free but at hand for keys and values.
        """
        if self._deterministic and not self.same_bits:
            return _FIXED_ROWS
        rows = min(wanted, self._largest or wanted, _FILLED_UP_ROWS if self._fills_up else wanted)
        free = free_memory(self._device) if positions else None
        if free is None:
            return rows
        of_a_row = positions * self._position_bytes
        fitting = rows
        while fitting > self._smallest and fitting * of_a_row > (free + held) * _PART_OF_FREE:
            fitting = max(self._smallest, fitting // 2)
        if fitting < rows and fitting != self._told:
            self._told = fitting
            log.info(
                "%d rows at once instead of %d, whose keys and values take up to %d MiB: %d MiB are free",
                fitting, rows, rows * of_a_row >> 20, (free + held) >> 20,
            )  # fmt: skip
        return fitting

    def has_room(self, rows: int, positions: int) -> bool:
        """Say whether keys and values of so many more rows fit into what memory is free."""
        free = free_memory(self._device)
        return free is None or rows * positions * self._position_bytes <= free * _PART_OF_FREE

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
        if rows <= self._smallest:
            raise TryAgain(
                f"out of memory on {self._device} with {rows} rows of {width} + {new_tokens} tokens; free memory, or"
                " lower --max-new-tokens or --dtype"
            ) from error
        self._largest = max(self._smallest, rows // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a lack of memory, of a device's or of the machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # As torch's allocator for the CPU tells it, on Windows and elsewhere.
    return any(words in str(error).lower() for words in ("not enough memory", "can't allocate memory"))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a device has for more, None where that can't be told.

    On a CPU, Linux is asked what the machine has and what the control groups that this process is in leave of it: a
    container, or a service with a limit, is ended when it goes beyond.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return _free_of_machine() if device.type == "cpu" else None


def _free_of_machine(root: Path = Path("/")) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return min([available, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> Iterator[int]:
    """Yield the bytes that each control group with a limit leaves, those above this process's own too."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _OF_GROUPS[1 if controllers else 2]
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / path.strip("/")
        for directory in (group, *group.parents):
            with suppress(OSError, ValueError, KeyError):  # there is no limit, or not of memory
                limit, used, stat = ((directory / name).read_text() for name in files[:3])
                entries = dict(entry.split() for entry in stat.splitlines())
                yield int(limit) - int(used) + int(entries[files[3]])  # files that were read make room
            if directory == top:
                break


def head_size(config: Any) -> int:
    """Return how many numbers a key of one head has; 0 for a model that doesn't tell."""
    heads = getattr(config, "num_attention_heads", None)
    return int(getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0))


def position_bytes(model: Any) -> int:
    """Return the bytes that the keys and values of one token take up; 0 for a model that doesn't tell."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0
    shared_by_all = getattr(config, "multi_query", False)  # as GPT-BigCode calls it
    kept = 1 if shared_by_all else getattr(config, "num_key_value_heads", None) or heads
    size = head_size(config)
    return int(2 * config.num_hidden_layers * kept * size * model.dtype.itemsize)
