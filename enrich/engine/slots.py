"""Slots: the key-value cache of a fixed number of rows, each at its own position.

A slot belongs to one row until that row is done, then to another. transformers' model classes write to it and read from
it through their cache interface, so that every architecture of theirs can run on it.

Shapes: S slots, P rows of a prefill, H key-value heads, L positions, W prompt width, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, [S + 1, H, L, D]: the last slot takes what a prefill's filler rows write."""

    is_compileable = True

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the heads and the head size that the first keys show."""
        slots, length = self._cache.slots, self._cache.length
        self.keys, self.values = (
            states.new_zeros(slots + 1, states.shape[1], length, states.shape[3], dtype=self._cache.dtype)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return those to attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        cache = self._cache
        if cache.prefilled is not None:  # [P, H, W, D], whole prompts: they see nothing but themselves
            width = key_states.shape[2]
            self.keys.narrow(2, 0, width).index_copy_(0, cache.prefilled, key_states.to(cache.dtype))
            self.values.narrow(2, 0, width).index_copy_(0, cache.prefilled, value_states.to(cache.dtype))
            return key_states, value_states
        keys, values = self.keys[: cache.slots], self.values[: cache.slots]
        index = cache.positions.view(-1, 1, 1, 1).expand_as(key_states)  # [S, H, 1, D]
        keys.scatter_(2, index, key_states.to(cache.dtype))
        values.scatter_(2, index, value_states.to(cache.dtype))
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length of what is attended to, and its offset."""
        return (query_length if self._cache.prefilled is not None else self._cache.length), 0

    def get_seq_length(self) -> int:
        """Return 0: positions are told to the model, not counted by the cache."""
        return 0

    def get_max_length(self) -> int:
        """Return L."""
        return self._cache.length


class SlotCache(Cache):  # type: ignore[misc]
    """The cache of all layers: `positions` [S] is where a decode step writes, `prefilled` [P] the rows of a prefill."""

    def __init__(self, num_layers: int, slots: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        self.slots = slots
        self.dtype = dtype  # that keys and values are kept in
        self.length = length
        self.positions = torch.zeros(slots, dtype=torch.long, device=device)
        self.prefilled: Tensor | None = None
        super().__init__(layers=[SlotLayer(self) for _ in range(num_layers)])

    @property
    def nbytes(self) -> int:
        """The bytes of all keys and values; 0 before the first are known."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def keep(self, slots: Tensor, num_slots: int) -> None:
        """Make room for `num_slots` only, the given ones first."""
        for layer in self.layers:
            for name in ("keys", "values"):
                kept = getattr(layer, name)
                shrunk = kept.new_zeros(num_slots + 1, *kept.shape[1:])
                shrunk[: len(slots)] = kept[slots]
                setattr(layer, name, shrunk)
        positions = self.positions.new_zeros(num_slots)
        positions[: len(slots)] = self.positions[slots]
        self.positions, self.slots = positions, num_slots
