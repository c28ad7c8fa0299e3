"""Linear layers laid out once for the processor's own kernels, with what follows them computed in the same pass.

oneDNN, which torch brings along, has kernels for the vector units of the processor that it finds, in float32 as in
bfloat16, but wants the matrix in blocks. Called on the model's own tensors it would lay them out anew each time, or not
be called at all: on AMD's processors torch's plain products use half the vector width.

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine.memory import TILE_ROWS

_USUAL_ROWS = 64  # what the layout is chosen for; any number can be multiplied
_SMALL_BYTES = 320 << 20


class Linear:
    """A matrix [O, I] and its bias [O] or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._bias = bias
        self._laid_out = _laid_out(weight)
        self.tile = TILE_ROWS if self._laid_out is None else 4
        """In multiples of so many rows each row's bits are the same, whatever the others are."""
        self._weight = weight if self._laid_out is None else None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return what it makes of inputs [N, I]: [N, O]."""
        if self._laid_out is None:
            return F.linear(inputs, cast(Tensor, self._weight), self._bias)
        return _pointwise(inputs, self._laid_out, self._bias, "none", [], "")

    def then_gelu(self, inputs: Tensor) -> Tensor:
        """Return the same through GELU's tanh form."""
        if self._laid_out is None:
            return F.gelu(self(inputs), approximate="tanh")
        return _pointwise(inputs, self._laid_out, self._bias, "gelu", [], "tanh")

    def added_to(self, others: Tensor, inputs: Tensor) -> Tensor:
        """Return the same, added to `others` [N, O]."""
        if self._laid_out is None:
            return self(inputs).add_(others)
        return _binary(inputs, others, self._laid_out, self._bias, "add")


def _pointwise(*arguments: Any) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(*arguments))


def _binary(*arguments: Any) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(*arguments))


def _laid_out(weight: Tensor) -> Tensor | None:
    """Return the matrix in oneDNN's blocks; None where there is no such kernel."""
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)
        inputs, others = weight.new_zeros(16, weight.shape[1]), weight.new_zeros(16, weight.shape[0])
        _pointwise(inputs, laid_out, None, "gelu", [], "tanh")
        _binary(inputs, others, laid_out, None, "add")
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    return cast(Tensor, laid_out)


def is_small(model: torch.nn.Module) -> bool:
    """Say whether several threads may each read all of a model's weights at the same time."""
    return sum(weight.nbytes for weight in model.parameters()) <= _SMALL_BYTES
