"""Attention of one token of each row to the keys and values of a paged cache, in operations that can be scripted.

It is two weighted sums: of the lines of a row's values, weighted by their shares, and, keys being stored with a block
of positions in a line, of such lines weighted by the numbers of its query. torch has a kernel for weighted sums of
lines, `embedding_bag`, made for reading large tables: it goes through keys and values several times as fast as matrix
products do.

Shapes: A rows, M blocks in use of B positions each, H key-value heads, G queries of each, D head size, L positions of
the row that sees most.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Lines(NamedTuple):
    """A layer's keys and values, each as what is written and read at once."""

    key_numbers: Tensor  # one after the other, as integers of their size: [N·H·D·B]
    key_lines: Tensor  # [N·H·D, B]
    value_lines: Tensor  # [N·H·B, D]


class Seen(NamedTuple):
    """Where the rows of a step keep what they see, and where their next token goes."""

    new_keys: Tensor  # room for [A, H, D]
    new_numbers: Tensor  # the same as integers [A·H·D]
    key_places: Tensor  # where each of them goes
    value_places: Tensor  # and each line of values [A·H]
    mask: Tensor  # [A, 1, L]: minus infinity where a row sees nothing
    owners: Tensor  # the row of each block [M], in the order in which they lie
    places: Tensor  # where a block's lines of B numbers stand among [A, H·G, L / B] of them
    key_lines: Tensor  # the lines of all blocks, and where each sum begins
    key_begins: Tensor
    value_lines: Tensor
    value_begins: Tensor
    in_rows: Tensor  # the blocks in the order of rows, and where each row begins
    row_begins: Tensor
    scatters: bool  # whether one thread writes keys, which one does sooner so
    spread_lines: int  # A·H·G·L / B


def attend(queries: Tensor, keys: Tensor, values: Tensor, lines: Lines, seen: Seen, scale: float) -> Tensor:
    """Put keys and values [A, H, D] of a token of each row in place; return what queries [A, H, G, D] see.

    It is [A, H·G·D].
    """
    rows = len(queries)
    seen.new_keys.copy_(keys)
    if seen.scatters:
        lines.key_numbers.scatter_(0, seen.key_places, seen.new_numbers)
    else:  # which several threads share, if slower by one alone
        lines.key_numbers.index_copy_(0, seen.key_places, seen.new_numbers)
    lines.value_lines.index_copy_(0, seen.value_places, values.reshape(-1, values.shape[2]))
    weights = queries.reshape(rows, -1).index_select(0, seen.owners).view(-1)
    found = sums(lines.key_lines, seen.key_lines, seen.key_begins, weights)
    scores = found.new_zeros(seen.spread_lines, found.shape[1]).index_copy_(0, seen.places, found)
    shares = torch.softmax(torch.add(seen.mask, scores.view(rows, -1, seen.mask.shape[2]), alpha=scale), dim=2)
    weights = shares.view(-1, found.shape[1]).index_select(0, seen.places).view(-1)
    found = sums(lines.value_lines, seen.value_lines, seen.value_begins, weights)
    return sums(found.view(len(seen.owners), -1), seen.in_rows, seen.row_begins, None)


def sums(lines: Tensor, indices: Tensor, begins: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sums of lines, weighted or not: those at `indices` from each begin up to the next."""
    return torch.embedding_bag(lines, indices, begins, False, 0, False, weights)[0]
