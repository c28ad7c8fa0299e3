"""Lines: the keys and values of the rows in flight on a CPU, and the attention of one token of each row to them.

Attention of one token is two weighted sums: of the lines of its values, weighted by their shares, and, keys being
stored with a block of positions in a line, of such lines weighted by the numbers of its query. torch has a kernel for
weighted sums of lines, `embedding_bag`, made for reading large tables: it goes through keys and values several times as
fast as matrix products do. And its sums may be of unlike length, so each row has its own blocks read and no more.

A row's bits do not depend on its neighbours: each sum of lines is one loop, and blocks behind a row's own add exact
zeros at the end of sums. A test holds it.

Shapes: S slots, A rows in flight, H key-value heads, G queries of each, D head size, B positions of a block, L = N·B
positions of a slot.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from enrich.engine.forward import Forward
from enrich.engine.pool import Pool

_BLOCK = 32  # positions: a line of keys
_WORDS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class LineCache:
    """Keys [layers, S, H, N, D, B] and values [layers, S, H, L, D], and where a step finds those of each row."""

    def __init__(self, forward: Forward, pool: Pool, slots: int, length: int) -> None:
        self._forward, self._pool, self._slots = forward, pool, slots
        self._heads, self._group, self._size = forward.kv_heads, forward.group, forward.head_size
        self._take(stepped(length))

    def _take(self, length: int) -> None:
        self._length = length
        entries = (self._forward.layers, self._slots, self._heads)
        self._keys = self._pool.take((*entries, length // _BLOCK, self._size, _BLOCK), self._forward.dtype)
        self._values = self._pool.take((*entries, length, self._size), self._forward.dtype)
        words = _WORDS[self._keys.dtype]  # numbers of 16 bits are scattered a hundred times as fast as words
        self._views = [
            (keys.view(-1).view(words), keys.view(-1, _BLOCK), values.view(-1, self._size))
            for keys, values in zip(self._keys, self._values, strict=True)
        ]
        self._seen: _Seen | None = None

    def make_room(self, length: int) -> None:
        """See to it that a slot has so many positions; what is there stays."""
        if length <= self._length:
            return
        old_keys, old_values, old_length = self._keys, self._values, self._length
        self._take(stepped(length))
        self._keys[:, :, :, : old_length // _BLOCK] = old_keys
        self._values[:, :, :, :old_length] = old_values
        self._pool.give_back(old_keys, old_values)

    def give_back(self) -> None:
        """Let go of the memory."""
        self._pool.give_back(self._keys, self._values)

    def store(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put the first positions, whole blocks of them, into slots: keys and values [rows, H, positions, D]."""
        rows, _, width, _ = keys.shape
        blocks = keys.to(self._keys.dtype).view(rows, self._heads, -1, _BLOCK, self._size).mT
        self._keys[layer, :, :, : width // _BLOCK].index_copy_(0, slots, blocks)
        self._values[layer, :, :, :width].index_copy_(0, slots, values.to(self._values.dtype))

    def begin_step(self, slots: np.ndarray, positions: np.ndarray) -> None:
        """Lay out where the rows in `slots` [A] keep what they see, their next token going to `positions` [A]."""
        blocks = positions // _BLOCK + 1
        if self._seen is None or not self._seen.is_of(slots, blocks):
            shape = (len(slots), self._heads, self._group)
            self._seen = _Seen(shape, slots, blocks, self._length // _BLOCK, self._size)
        entries = torch.from_numpy(slots)[:, None] * self._heads + torch.arange(self._heads)  # [A, H]
        at = torch.from_numpy(positions)[:, None]
        self._value_places = (entries * self._length + at).view(-1)
        in_blocks = entries * (self._length * self._size) + at // _BLOCK * (self._size * _BLOCK) + at % _BLOCK
        self._key_places = (in_blocks[:, :, None] + torch.arange(self._size) * _BLOCK).view(-1)
        hidden = torch.arange(self._seen.width) > at
        self._mask = torch.zeros(hidden.shape, dtype=self._keys.dtype).masked_fill_(hidden, -torch.inf)[:, None]

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what one token of each row sees [A, H·G·D]; queries are [A, H, G, D], keys and values [A, H, D]."""
        assert self._seen
        key_numbers, key_lines, value_lines = self._views[layer]
        key_numbers.scatter_(0, self._key_places, keys.reshape(-1).view(key_numbers.dtype))
        value_lines.index_copy_(0, self._value_places, values.reshape(-1, self._size))
        scores = self._seen.scores(queries.reshape(-1, self._size), key_lines).view(len(queries), -1, self._seen.width)
        shares = torch.softmax(torch.add(self._mask, scores, alpha=self._forward.scale), dim=2)
        return self._seen.sums(shares, value_lines).view(len(queries), -1)


class _Seen:
    """Where the lines stand that rows see, `blocks` [A] of a slot's N blocks, for queries of the shape [A, H, G]."""

    def __init__(
        self, shape: tuple[int, int, int], slots: np.ndarray, blocks: np.ndarray, of_a_slot: int, size: int
    ) -> None:
        self._slots, self._blocks = slots.copy(), blocks
        most = int(blocks.max())
        self.width = most * _BLOCK
        """Positions of the row that sees most."""
        entries = slots[:, None] * shape[1] + np.arange(shape[1])  # [A, H]
        has = np.broadcast_to((np.arange(most) < blocks[:, None])[:, None, None], (*shape, most))
        own = np.broadcast_to((entries * of_a_slot)[:, :, None, None] + np.arange(most), has.shape)[has]
        places = np.flatnonzero(has)
        self._places, self._queries = torch.from_numpy(places), torch.from_numpy(places // most)
        self._key_lines, self._value_lines = _lines(own, size), _lines(own, _BLOCK)
        # A score of a block that a row does not have is a sum of no lines.
        self._key_sums = _begins(has.reshape(-1) * size)
        self._value_sums = _begins(np.repeat(blocks * _BLOCK, shape[1] * shape[2]))

    def is_of(self, slots: np.ndarray, blocks: np.ndarray) -> bool:
        """Say whether rows in these slots that see so many blocks see the same."""
        return np.array_equal(self._slots, slots) and np.array_equal(self._blocks, blocks)

    def scores(self, queries: Tensor, lines: Tensor) -> Tensor:
        """Return the products of queries [A·H·G, D] with the keys they see: [A·H·G, width]."""
        weights = queries.index_select(0, self._queries).view(-1)
        return _sums(lines, self._key_lines, self._key_sums, weights)

    def sums(self, shares: Tensor, lines: Tensor) -> Tensor:
        """Return the sums of the values seen, weighted by shares [A·H·G, width]: [A·H·G, D]."""
        weights = shares.view(-1, _BLOCK).index_select(0, self._places).view(-1)
        return _sums(lines, self._value_lines, self._value_sums, weights)


def _lines(units: np.ndarray, length: int) -> Tensor:
    """Return the numbers of all lines of some units, each of so many."""
    numbers = torch.from_numpy(units if units.max() * length >= 2**31 - length else units.astype(np.int32))
    return (numbers[:, None] * length + torch.arange(length, dtype=numbers.dtype)).view(-1)


def _sums(lines: Tensor, indices: Tensor, begins: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of lines: those at `indices` from each begin up to the next."""
    return torch.embedding_bag(lines, indices, begins.to(indices.dtype), False, 0, False, weights)[0]


def _begins(counts: np.ndarray) -> Tensor:
    """Return where each of several runs begins that have these lengths."""
    return torch.from_numpy((np.cumsum(counts) - counts).astype(np.int32))


def stepped(length: int) -> int:
    """Return the positions of whole blocks that have room for so many, one block at least."""
    return max(1, -(-length // _BLOCK)) * _BLOCK
