"""Linear layers laid out once for the processor's own kernels, with what follows them computed in the same pass.

oneDNN, which torch brings along, has kernels for the vector units of the processor that it finds, in float32 as in
bfloat16, but wants the matrix in blocks. Called on the model's own tensors it would lay them out anew each time, or not
be called at all: on AMD's processors torch's plain products use half the vector width.

Shapes: N rows, I inputs, O outputs.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine.memory import TILE_ROWS

_USUAL_ROWS = 64  # what the layout is chosen for; any number can be multiplied
_SMALL_BYTES = 320 << 20


class Linear(NamedTuple):
    """A matrix [O, I] as it is or laid out for oneDNN, and its bias [O] or None."""

    matrix: Tensor
    bias: Tensor | None
    is_laid_out: bool

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None) -> "Linear":
        """Lay a matrix out, if there are kernels for that."""
        laid_out = _laid_out(weight)
        return Linear(weight if laid_out is None else laid_out, bias, laid_out is not None)


def tile_of(layer: Linear) -> int:
    """Return in multiples of how many rows each row's bits are the same, whatever the others are."""
    return 4 if layer.is_laid_out else TILE_ROWS


def product(inputs: Tensor, by: Linear) -> Tensor:
    """Return what a layer makes of inputs [N, I]: [N, O]."""
    if not by.is_laid_out:
        return F.linear(inputs, by.matrix, by.bias)
    # TorchScript finds an operation by its arguments. Python is slow at that, but can name the very one.
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, by.matrix, by.bias, "none", [], "")
        return made
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(inputs, by.matrix, by.bias, "none", [], ""))


def product_then_gelu(inputs: Tensor, by: Linear) -> Tensor:
    """Return the same through GELU's tanh form."""
    if not by.is_laid_out:
        return F.gelu(F.linear(inputs, by.matrix, by.bias), approximate="tanh")
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, by.matrix, by.bias, "gelu", [], "tanh")
        return made
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(inputs, by.matrix, by.bias, "gelu", [], "tanh"))


def product_added_to(others: Tensor, inputs: Tensor, by: Linear) -> Tensor:
    """Return the same, added to `others` [N, O]."""
    if not by.is_laid_out:
        return F.linear(inputs, by.matrix, by.bias).add_(others)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, others, by.matrix, by.bias, "add")
        return made
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(inputs, others, by.matrix, by.bias, "add"))


def _laid_out(weight: Tensor) -> Tensor | None:
    """Return the matrix in oneDNN's blocks; None where there is no such kernel."""
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)
        inputs, others = weight.new_zeros(16, weight.shape[1]), weight.new_zeros(16, weight.shape[0])
        product_then_gelu(inputs, Linear(laid_out, None, True))
        product_added_to(others, inputs, Linear(laid_out, None, True))
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    return cast(Tensor, laid_out)


def let_go(layer: Any) -> None:
    """Free a layer's weight."""
    layer.weight.data = hollow(layer.weight.detach())


def hollow(weight: Tensor) -> Tensor:
    """Return what has a matrix's shape and format, for those who ask for them, and no numbers."""
    return weight.new_zeros(1, 1).expand(weight.shape)


def is_small(model: torch.nn.Module) -> bool:
    """Say whether several threads may each read all of a model's weights at the same time."""
    return sum(weight.nbytes for weight in model.parameters()) <= _SMALL_BYTES
