"""The paged cache against attention by the book, and the pool that its memory comes from."""

from __future__ import annotations

import errno
import mmap
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from enrich.engine.attention import attend
from enrich.engine.paged import PagedCache
from enrich.engine.pool import Pool

LAYERS, SLOTS, HEADS, GROUP, SIZE = 2, 6, 2, 3, 16


def make_cache(length: int, dtype: torch.dtype = torch.float32) -> PagedCache:
    forward: Any = SimpleNamespace(
        layers=LAYERS, kv_heads=HEADS, group=GROUP, head_size=SIZE, dtype=dtype, vocabulary=9
    )
    return PagedCache(forward, Pool(), SLOTS, length)


def by_the_book(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of queries [H, G, D] to keys and values [H, positions, D]: [H·G·D]."""
    shares = torch.softmax(0.25 * queries.float() @ keys.float().mT, dim=2)
    return (shares @ values.float()).reshape(-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_each_row_sees_its_own_positions_and_no_others(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    cache = make_cache(20, dtype)
    slots, prompts = [4, 0, 3], [3, 31, 32]
    seen: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[], [], []]  # (keys, values) [LAYERS, H, positions, D]
    for place, (slot, length) in enumerate(zip(slots, prompts, strict=True)):
        cache.make_room(length + 40)
        keys, values = (torch.randn(LAYERS, 1, HEADS, 32, SIZE).to(dtype) for _ in range(2))
        cache.begin_prompts([slot], [length], 32)
        for layer in range(LAYERS):
            cache.store(layer, keys[layer], values[layer])
        seen[place].append((keys[:, 0, :, :length], values[:, 0, :, :length]))
    rows = [0, 1, 2]
    for step in range(40):
        if step == 10:  # one leaves, the last takes its place
            rows = [2, 1]
            cache.release(slots[0])
        if step == 30:  # more room is wanted while rows are in flight
            cache.make_room(150)
        cache.begin_step(np.array([slots[row] for row in rows]), np.array([prompts[row] + step for row in rows]))
        for layer in range(LAYERS):
            queries = torch.randn(len(rows), HEADS, GROUP, SIZE).to(dtype)
            keys, values = (torch.randn(len(rows), HEADS, SIZE).to(dtype) for _ in range(2))
            attended = attend(queries, keys, values, cache.lines[layer], cache.seen, 0.25)
            for place, row in enumerate(rows):
                if not layer:
                    new = torch.zeros(LAYERS, HEADS, 1, SIZE, dtype=dtype)
                    seen[row].append((new, new.clone()))
                seen[row][-1][0][layer, :, 0], seen[row][-1][1][layer, :, 0] = keys[place], values[place]
                all_keys, all_values = (torch.cat(parts, dim=2)[layer] for parts in zip(*seen[row], strict=True))
                expected = by_the_book(queries[place], all_keys, all_values)
                assert torch.allclose(attended[place].float(), expected, atol=tolerance), (step, row)


def test_a_row_has_the_same_bits_alone_and_beside_longer_ones() -> None:
    torch.manual_seed(1)
    prompts = torch.randn(LAYERS, 3, HEADS, 64, SIZE)
    queries, new = torch.randn(3, HEADS, GROUP, SIZE), torch.randn(3, HEADS, SIZE)

    def attended(rows: list[int]) -> torch.Tensor:
        cache = make_cache(100)
        lengths = np.array([5, 40, 63])[rows]
        cache.begin_prompts(rows, lengths.tolist(), 64)
        cache.store(0, prompts[0, rows], prompts[1, rows])
        cache.begin_step(np.array(rows), lengths)
        return attend(queries[rows], new[rows], new[rows], cache.lines[0], cache.seen, 0.25)

    together = attended([0, 1, 2])
    for row in range(3):
        assert torch.equal(attended([row])[0], together[row])


def test_blocks_that_are_let_go_of_are_taken_first_and_show_nothing_of_their_last_row() -> None:
    torch.manual_seed(2)
    prompts, queries, new = (
        torch.randn(2, 1, HEADS, 64, SIZE),
        torch.randn(1, HEADS, GROUP, SIZE),
        torch.randn(1, HEADS, SIZE),
    )

    def attended(cache: PagedCache, slot: int) -> torch.Tensor:
        cache.begin_prompts([slot], [33], 64)
        cache.store(0, prompts[0], prompts[1])
        cache.begin_step(np.array([slot]), np.array([33]))
        return attend(queries, new, new, cache.lines[0], cache.seen, 0.25)

    used = make_cache(64)  # two blocks for each slot
    for slot in range(SLOTS):
        used.begin_prompts([slot], [64], 64)
        used.store(0, torch.full((1, HEADS, 64, SIZE), 99.0), torch.full((1, HEADS, 64, SIZE), 99.0))
    used.release(2)
    used.release(4)
    assert torch.equal(attended(used, 4), attended(make_cache(64), 4))
    assert used._blocks_of[4].tolist() == [4, 5]  # the released slot 2's, which lie first


def test_memory_that_can_t_be_had_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(MemoryError):
        Pool().take((4 << 20,), torch.float32)
