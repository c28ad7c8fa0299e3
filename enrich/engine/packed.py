"""Packed layers: linear layers of transformers' own model classes, multiplied by oneDNN's kernels on a CPU.

A pass of our own has its matrices laid out anyway (`linear`). Here they take the place of a model's layers, whose own
weights are let go: a large model has room for its matrices once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from enrich.engine.linear import Linear, hollow, product

_FORMATS = (torch.float32, torch.bfloat16)
_SMALLEST = 16  # inputs and outputs


class PackedLinear(nn.Module):
    """A linear layer [.., I] -> [.., O] in the place of another."""

    def __init__(self, weight: Tensor, by: Linear, keeps_weight: bool) -> None:
        super().__init__()
        self.bias = by.bias
        self.weight = weight if keeps_weight else hollow(weight)
        self._by = by

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the layer makes of inputs."""
        made = product(inputs.reshape(-1, inputs.shape[-1]), self._by)
        return made.view(*inputs.shape[:-1], made.shape[1])


def pack(model: Any) -> bool:
    """Put packed layers in the place of a CPU model's linear ones, where there are kernels for its number format.

    Its head keeps its weight, which often is the embedding's too. Returns whether no other linear layers are left.
    """
    if model.device.type != "cpu" or model.dtype not in _FORMATS:
        return False
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if type(layer) not in (nn.Linear, Conv1D) or min(layer.weight.shape) < _SMALLEST:
                continue
            weight = layer.weight.detach()
            bias = None if layer.bias is None else layer.bias.detach()
            by = Linear.of(weight.t().contiguous() if isinstance(layer, Conv1D) else weight, bias)
            if by.is_laid_out:
                setattr(module, name, PackedLinear(weight, by, keeps_weight=layer is head))
    return not any(isinstance(module, nn.Linear | Conv1D) for module in model.modules())
