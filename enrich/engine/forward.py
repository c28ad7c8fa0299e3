"""Forward passes of our own, in float32 on a CPU, for kinds of model where they are much faster than transformers'.

A pass knows a model's weights and what surrounds attention; `cohorts` does attention itself, since that is where rows
of unlike length meet. Weights are the model's own tensors, save the head's, which is packed for its kernel.

Shapes: N tokens, C hidden size, H key-value heads, G queries of each, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

# Sums of fewer products than this are computed by another kernel of torch's, whose bits differ from the usual one's.
_LEAST_HEAD_SIZE = 16
_SMALL_BYTES = 64 << 20


class Forward(Protocol):
    """A model between its embedding and its logits, attention left out."""

    layers: int
    kv_heads: int
    group: int  # queries of each key-value head
    head_size: int
    scale: float
    is_small: bool  # so that several threads may each read all of the weights

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the hidden states [N, C] of tokens [N] at positions [N]."""

    def project(self, layer: int, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [N, H, G, D], keys and values [N, H, D] for a layer's attention."""

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output [N, C] for what attention gave [N, H·G·D]; may reuse `hidden`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores [N, V]."""


def forward_of(model: Any) -> Forward | None:
    """Return the model's forward pass; None where transformers' own is to be used."""
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    config = model.config
    if config.model_type != "gpt2" or config.n_embd // config.n_head < _LEAST_HEAD_SIZE:
        return None
    odd = config.scale_attn_by_inverse_layer_idx or config.add_cross_attention or not config.scale_attn_weights
    return None if odd or config.activation_function not in _ACTIVATIONS else Gpt2Forward(model)


class Gpt2Forward:
    """The forward pass of GPT-2: positions learned, layer norms before, matrices stored [in, out]."""

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.transformer
        self.layers = config.n_layer
        self.kv_heads, self.group, self.head_size = config.n_head, 1, config.n_embd // config.n_head
        self.scale = 1 / math.sqrt(self.head_size)
        self.is_small = sum(weight.nbytes for weight in model.parameters()) <= _SMALL_BYTES
        self._epsilon = config.layer_norm_epsilon
        self._activate = _ACTIVATIONS[config.activation_function]
        self._words, self._places = body.wte.weight.detach(), body.wpe.weight.detach()
        self._blocks = [
            [
                weight.detach()
                for part in (b.ln_1, b.attn.c_attn, b.attn.c_proj, b.ln_2, b.mlp.c_fc, b.mlp.c_proj)
                for weight in (part.weight, part.bias)
            ]
            for b in body.h
        ]
        self._norm = (body.ln_f.weight.detach(), body.ln_f.bias.detach())
        self._head = packed(model.lm_head.weight.detach())

    def _normed(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:], weight, bias, self._epsilon)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """See `Forward`."""
        return F.embedding(tokens, self._words).add_(F.embedding(positions, self._places))

    def project(self, layer: int, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Forward`."""
        norm, norm_bias, weight, bias = self._blocks[layer][:4]
        mixed = torch.addmm(bias, self._normed(hidden, norm, norm_bias), weight)
        queries, keys, values = mixed.view(len(hidden), 3, self.kv_heads, self.head_size).unbind(1)
        return queries.unsqueeze(2), keys, values

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Forward`."""
        weight, bias, norm, norm_bias, up, up_bias, down, down_bias = self._blocks[layer][4:]
        hidden.add_(bias).addmm_(attended, weight)
        inner = self._activate(torch.addmm(up_bias, self._normed(hidden, norm, norm_bias), up))
        return hidden.add_(down_bias).addmm_(inner, down)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Forward`."""
        return self._head(self._normed(hidden, *self._norm))


def packed(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that multiplies by a matrix [out, in], laid out for oneDNN's kernel where there is one."""
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, 64)
        multiply: Any = torch.ops.mkldnn._linear_pointwise
        multiply(weight.new_zeros(16, weight.shape[1]), laid_out, None, "none", [], "")
    except (AttributeError, NotImplementedError, RuntimeError):
        return lambda inputs: F.linear(inputs, weight)

    def head(inputs: Tensor) -> Tensor:
        return cast(Tensor, multiply(inputs, laid_out, None, "none", [], ""))

    return head


def _tanh_gelu(inputs: Tensor) -> Tensor:
    """Return GELU's tanh form, written with the logistic function: the same, at half the time of torch's kernel."""
    scores = torch.addcmul(inputs, inputs * inputs, inputs, value=0.044715)
    return scores.mul_(2 * math.sqrt(2 / math.pi)).sigmoid_().mul_(inputs)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}
