"""The shelf: batches of fixed shapes that are not at work, kept for the next bucket of the same shape.

On a GPU a batch is dear to make, as its decode step is captured anew, and a catalog's windows have buckets of the same
few shapes.
"""

from __future__ import annotations

import torch

from enrich.engine.fixed import FixedBatch
from enrich.engine.memory import Room


class Shelf:
    """Keeps batches as long as memory has room for those at work beside them."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._batches: list[FixedBatch] = []  # the one used last at the end

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def held_bytes(self) -> int:
        """What the keys and values of the batches take up."""
        return sum(batch.cache_bytes for batch in self._batches)

    def take(self, slots: int, width: int, heeds_forbidden: bool) -> FixedBatch | None:
        """Return a batch for such rows, if there is one."""
        for batch in reversed(self._batches):
            if batch.fits(slots, width, heeds_forbidden):
                self._batches.remove(batch)
                return batch
        return None

    def put(self, batch: FixedBatch) -> None:
        """Keep a batch that is done."""
        if batch.is_idle:
            self._batches.append(batch)

    def make_room(self, rows: int, positions: int) -> None:
        """Let go of batches, the one that was used longest ago first, until so many more rows have room."""
        while self._batches and not self._room.has_room(rows, positions):
            del self._batches[0]
            _give_back()

    def clear(self) -> bool:
        """Let go of all batches; say whether there were any."""
        had_any = bool(self._batches)
        self._batches.clear()
        _give_back()
        return had_any


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
