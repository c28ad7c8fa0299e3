"""The paged cache: keys and values of the rows in flight on a CPU.

They are read by sums of lines (`attention`), which are as fast as memory only where they read on without a gap, since a
processor fetches ahead along what it has been reading. So a row takes a block of positions at a time, the first that is
free, and all blocks are read in the order in which they lie, whosever they are; only then is what was found brought
together row by row.

A row's bits do not depend on its neighbours: each sum is one loop over a row's own, in the order of its positions. A
test holds it.

Shapes: S slots, A rows in flight, N blocks of B positions, M of them in use, H key-value heads, G queries of each, D
head size.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enrich.engine.attention import Lines, Seen
from enrich.engine.forward import Forward
from enrich.engine.pool import Pool

_BLOCK = 32  # positions: a line of keys
_WORDS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class PagedCache:
    """Keys [layers, N, H, D, B] and values [layers, N, H, B, D], and whose blocks they are."""

    def __init__(self, forward: Forward, pool: Pool, slots: int, length: int) -> None:
        self._forward, self._pool = forward, pool
        self._heads, self._group, self._size = forward.kv_heads, forward.group, forward.head_size
        self._blocks_of = np.zeros((slots, 0), dtype=np.int64)  # the blocks of each slot, in the order of positions
        self._counts = np.zeros(slots, dtype=np.int64)  # how many it has
        self._free: list[int] = []  # a heap: the first free block is taken
        self._reading: _Reading | None = None
        self.seen: Seen
        """What the rows of the step that was begun see."""
        self._take(_blocks(length))

    def _take(self, of_a_slot: int) -> None:
        slots, before = self._blocks_of.shape
        shape = (self._forward.layers, slots * of_a_slot, self._heads)
        self._keys = self._pool.take((*shape, self._size, _BLOCK), self._forward.dtype)
        self._values = self._pool.take((*shape, _BLOCK, self._size), self._forward.dtype)
        words = _WORDS[self._keys.dtype]  # numbers of 16 bits are scattered a hundred times as fast as words
        self.lines = [
            Lines(keys.view(-1).view(words), keys.view(-1, _BLOCK), values.view(-1, self._size))
            for keys, values in zip(self._keys, self._values, strict=True)
        ]
        self._blocks_of = np.pad(self._blocks_of, ((0, 0), (0, of_a_slot - before)))
        self._free += range(slots * before, slots * of_a_slot)  # which leaves a heap a heap

    def make_room(self, length: int) -> None:
        """See to it that a slot may have so many positions; what is there stays."""
        old_keys, old_values = self._keys, self._values
        slots, of_a_slot = self._blocks_of.shape
        if _blocks(length) <= of_a_slot:
            return
        self._take(_blocks(length))
        self._keys[:, : slots * of_a_slot] = old_keys
        self._values[:, : slots * of_a_slot] = old_values
        self._pool.give_back(old_keys, old_values)

    def give_back(self) -> None:
        """Let go of the memory."""
        self._pool.give_back(self._keys, self._values)

    def _grow(self, slot: int, blocks: int) -> None:
        for number in range(self._counts[slot], blocks):
            self._blocks_of[slot, number] = heapq.heappop(self._free)
        self._counts[slot] = blocks
        self._reading = None

    def release(self, slot: int) -> None:
        """Take a slot's blocks back."""
        for block in self._blocks_of[slot, : self._counts[slot]].tolist():
            heapq.heappush(self._free, block)
        self._counts[slot] = 0
        self._reading = None

    def begin_prompts(self, slots: Sequence[int], lengths: Sequence[int], width: int) -> None:
        """Have free slots take blocks for so many positions, which `store` is to fill from rows of `width`."""
        for slot, length in zip(slots, lengths, strict=True):
            self._grow(slot, -(-length // _BLOCK))
        owners, numbers = _owners(self._counts[list(slots)])
        self._stored = torch.from_numpy(self._blocks_of[np.array(slots)[owners], numbers])
        in_heads = (owners[:, None] * self._heads + np.arange(self._heads)) * (width // _BLOCK) + numbers[:, None]
        self._stored_from = torch.from_numpy(in_heads.reshape(-1))  # [M·H]

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Fill the blocks of prompts just begun: keys and values [rows, H, width, D]."""
        shape = (-1, self._heads, _BLOCK, self._size)
        for room, new, is_turned in ((self._keys[layer], keys, True), (self._values[layer], values, False)):
            filled = new.view(-1, _BLOCK * self._size).index_select(0, self._stored_from).to(room.dtype).view(shape)
            room.index_copy_(0, self._stored, filled.mT if is_turned else filled)

    def begin_step(self, slots: np.ndarray, positions: np.ndarray) -> None:
        """Lay out where the rows in `slots` [A] keep what they see, their next token going to `positions` [A]."""
        own, at = positions // _BLOCK, positions % _BLOCK  # the block of the next token, and where in it
        for place in np.flatnonzero(self._counts[slots] <= own):
            self._grow(slots[place], own[place] + 1)
        if self._reading is None or not np.array_equal(self._reading.slots, slots):
            owners, numbers = _owners(self._counts[slots])
            blocks = self._blocks_of[slots[owners], numbers]
            shape = (self._heads, self._group, self._size)
            self._reading = _Reading(slots.copy(), owners, numbers, blocks, shape)
        heads = torch.from_numpy(self._blocks_of[slots, own])[:, None] * self._heads + torch.arange(self._heads)
        in_block = torch.from_numpy(at)[:, None]
        lines = heads[:, :, None] * self._size + torch.arange(self._size)  # [A, H, D]
        hidden = torch.arange(self._reading.width) > torch.from_numpy(positions)[:, None]
        new_keys = torch.empty(lines.shape, dtype=self._keys.dtype)
        self.seen = Seen(
            new_keys=new_keys,
            new_numbers=new_keys.view(-1).view(self.lines[0].key_numbers.dtype),
            key_places=(lines * _BLOCK + in_block[:, :, None]).view(-1),
            value_places=(heads * _BLOCK + in_block).view(-1),
            mask=torch.zeros(hidden.shape, dtype=self._keys.dtype).masked_fill_(hidden, -torch.inf)[:, None],
            scatters=torch.get_num_threads() == 1,
            **self._reading.found,
        )


class _Reading:
    """The blocks in use in the order in which they lie, for queries of the shape [A, H, G, D].

    Of each of the M blocks, given in the order of rows: whose it is, which of that row's, where it lies.
    """

    def __init__(
        self, slots: np.ndarray, owners: np.ndarray, numbers: np.ndarray, blocks: np.ndarray, shape: tuple[int, ...]
    ) -> None:
        self.slots = slots
        heads, group, size = shape
        queries, most = heads * group, int(numbers.max()) + 1
        self.width = most * _BLOCK
        """Positions of the row that sees most."""
        order = np.argsort(blocks)
        # Where a block's lines of B numbers stand among [A, H·G, most] of them
        places = (owners[order, None] * queries + np.arange(queries)) * most + numbers[order, None]
        of_heads = np.repeat(blocks[order, None] * heads + np.arange(heads), group, axis=1).reshape(-1)
        key_lines, value_lines = _lines(of_heads, size), _lines(of_heads, _BLOCK)
        self.found: dict[str, Any] = {
            "owners": torch.from_numpy(owners[order]),
            "places": torch.from_numpy(places.reshape(-1)),
            "key_lines": key_lines,
            "key_begins": torch.arange(len(of_heads), dtype=key_lines.dtype) * size,
            "value_lines": value_lines,
            "value_begins": torch.arange(len(of_heads), dtype=value_lines.dtype) * _BLOCK,
            "in_rows": torch.from_numpy(np.argsort(order)),
            "row_begins": torch.from_numpy(np.flatnonzero(numbers == 0)),
            "spread_lines": len(slots) * queries * most,
        }
        """Of `Seen` what is the same while rows and blocks are."""


def _owners(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, row after row, whose each of their blocks is, and which of that row's."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)


def _lines(units: np.ndarray, length: int) -> Tensor:
    """Return the numbers of all lines of some units, each of so many."""
    numbers = torch.from_numpy(units if units.max() * length >= 2**31 - length else units.astype(np.int32))
    return (numbers[:, None] * length + torch.arange(length, dtype=numbers.dtype)).view(-1)


def _blocks(length: int) -> int:
    return stepped(length) // _BLOCK


def stepped(length: int) -> int:
    """Return the positions of whole blocks that have room for so many, one block at least."""
    return max(1, -(-length // _BLOCK)) * _BLOCK
