"""Buckets: prompts of like length together, padded to a fixed edge, cut into batches within a token budget.

A batch's width is its bucket's edge, not the longest prompt that happens to be in it. So the shape in which a row is
computed depends on the row alone, and its text does not depend on its neighbours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

# 8 tokens apart where most prompts are: few enough that a few hundred rows still fill batches, close enough that one
# position in thirty, of prompts and new tokens together, holds no token. An eighth to a quarter apart above.
_EDGES: tuple[int, ...] = (
    *range(16, 128, 8), 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560,
    3072, 3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336, 16384, 20480, 24576, 28672, 32768,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bucket:
    """Items whose prompts are at most `edge` tokens long and longer than the next smaller edge."""

    edge: int
    items: tuple[int, ...]
    prompt_tokens: int

    @property
    def padding_tokens(self) -> int:
        """How many positions of the prompts' batches hold no token."""
        return self.edge * len(self.items) - self.prompt_tokens


def edge_of(length: int, longest: int) -> int:
    """Return the edge of the bucket for a prompt of `length` tokens where none may be longer than `longest`."""
    if not 1 <= length <= longest:
        raise ValueError(f"a prompt of {length} tokens where 1 to {longest} are possible")
    if length > _EDGES[-1]:
        return longest
    return min(_EDGES[bisect_left(_EDGES, length)], longest)


def group(lengths: Iterable[int], longest: int) -> list[Bucket]:
    """Group items, numbered from 0, by the lengths of their prompts; longest bucket first.

    The longest comes first so that a run that can't hold it in memory learns so at once.
    """
    items: dict[int, list[int]] = defaultdict(list)
    tokens: dict[int, int] = defaultdict(int)
    for index, length in enumerate(lengths):
        edge = edge_of(length, longest)
        items[edge].append(index)
        tokens[edge] += length
    return [Bucket(edge, tuple(items[edge]), tokens[edge]) for edge in sorted(items, reverse=True)]


def joined(buckets: Iterable[Bucket], num_items: int) -> list[Bucket]:
    """Put neighbouring buckets together until each has at least `num_items` items, under the longest one's edge.

    For engines that compute no padding. Each bucket ends with few rows at work, which is dear where buckets are small.
    Prompts less than half as long as the longest are not joined to it: fewer rows of its length fit into memory.
    """
    found: list[Bucket] = []
    for bucket in buckets:
        last = found[-1] if found else None
        if last is not None and len(last.items) < num_items and bucket.edge * 2 >= last.edge:
            found[-1] = Bucket(last.edge, last.items + bucket.items, last.prompt_tokens + bucket.prompt_tokens)
        else:
            found.append(bucket)
    return found


def batch_rows(edge: int, max_new_tokens: int, batch_size: int, batch_tokens: int) -> int:
    """Return how many rows of a bucket make a batch: `batch_size`, or fewer to stay within the token budget."""
    return max(1, min(batch_size, batch_tokens // (edge + max_new_tokens)))
