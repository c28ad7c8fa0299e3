"""Forward passes of our own on a CPU, for kinds of model where they are much faster than transformers'.

A pass knows a model's weights and what surrounds attention. That itself is in `attention` for a step, in `ragged` for
prompts, since there rows of unlike length meet. Small weights are the model's own tensors, matrices are laid out anew
(`linear`).

Shapes: N tokens, C hidden size, H key-value heads, G queries of each, D head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from enrich.engine.attention import Lines, Seen
from enrich.engine.gpt2 import Gpt2Forward
from enrich.engine.head import Head
from enrich.engine.memory import head_size
from enrich.engine.rotary import RotaryForward

_LEAST_HEAD_SIZE = 16  # sums of fewer products are computed by another kernel of torch's, whose bits differ
_FORMATS = (torch.float32, torch.bfloat16)


class Forward(Protocol):
    """A model between its embedding and its head."""

    layers: int
    kv_heads: int
    group: int  # queries of each key-value head
    head_size: int
    vocabulary: int
    head: Head
    scale: float
    dtype: torch.dtype
    tile: int  # in multiples of so many rows each row's bits are the same, whatever the others are
    is_small: bool  # so that several threads may each read all of the weights

    def embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Any]:
        """Return the hidden states [N, C] of tokens [N] at positions [N], and what `project` needs of the positions."""

    def project(self, layer: int, hidden: Tensor, places: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [N, H, G, D], keys and values [N, H, D] for a layer's attention."""

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output [N, C] for what attention gave [N, H·G·D]."""

    def decode(self, hidden: Tensor, places: Any, lines: list[Lines], seen: Seen) -> Tensor:
        """Return the last layer's output [N, C] for a token of each row, whose keys and values are put among `lines`.

        Only of those rows that `seen` tells of is there attention; those behind are filler.
        """

    def finish(self, hidden: Tensor) -> Tensor:
        """Return what the head is given [N, C] for the last layer's output."""


def forward_of(model: Any, *, takes_weights: bool = False) -> Forward | None:
    """Return the model's forward pass; None where transformers' own is to be used.

    If it takes the weights, the model lets go of each matrix that is laid out anew, and can't compute any more.
    """
    if model.device.type != "cpu" or model.dtype not in _FORMATS:
        return None
    if head_size(model.config.get_text_config()) < _LEAST_HEAD_SIZE:
        return None
    for kind in (Gpt2Forward, RotaryForward):
        if kind.can_run(model):
            forward: Forward = kind(model, takes_weights)
            return forward
    return None
