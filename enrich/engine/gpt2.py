"""The forward pass of GPT-2: positions learned, layer norms before, matrices stored [in, out]. See `forward`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine.head import Head
from enrich.engine.linear import Linear, is_small

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class Gpt2Forward:
    """GPT-2 between embedding and logits; see `Forward`."""

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.transformer
        self.layers = config.n_layer
        self.kv_heads, self.group, self.head_size = config.n_head, 1, config.n_embd // config.n_head
        self.scale = 1 / math.sqrt(self.head_size)
        self.dtype, self.is_small = model.dtype, is_small(model)
        self._epsilon = config.layer_norm_epsilon
        self._activate = _ACTIVATIONS.get(config.activation_function)
        self.vocabulary = model.lm_head.weight.shape[0]
        self._words, self._positions = body.wte.weight.detach(), body.wpe.weight.detach()
        self._blocks = [
            (
                (b.ln_1.weight.detach(), b.ln_1.bias.detach()),
                _linear(b.attn.c_attn),
                _linear(b.attn.c_proj),
                (b.ln_2.weight.detach(), b.ln_2.bias.detach()),
                _linear(b.mlp.c_fc),
                _linear(b.mlp.c_proj),
            )
            for b in body.h
        ]
        self._norm = (body.ln_f.weight.detach(), body.ln_f.bias.detach())
        self.head = Head(model.lm_head.weight.detach())
        self.tile = self.head.tile

    @staticmethod
    def can_run(model: Any) -> bool:
        """Say whether a model is a GPT-2 without its rarer options."""
        config = model.config
        if config.model_type != "gpt2":
            return False
        odd = config.scale_attn_by_inverse_layer_idx or config.add_cross_attention or not config.scale_attn_weights
        return not odd and config.activation_function in (*_TANH_GELU, *_ACTIVATIONS)

    def _normed(self, hidden: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:], *norm, self._epsilon)

    def embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        """See `Forward`."""
        return F.embedding(tokens, self._words).add_(F.embedding(positions, self._positions)), None

    def project(self, layer: int, hidden: Tensor, places: None) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """See `Forward`."""
        norm, mix, *_ = self._blocks[layer]
        mixed = mix(self._normed(hidden, norm)).view(len(hidden), 3, self.kv_heads, self.head_size)
        queries, keys, values = mixed.unbind(1)
        return queries.unsqueeze(2), keys, values

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Forward`."""
        _, _, gather, norm, up, down = self._blocks[layer]
        hidden = gather.added_to(hidden, attended)
        inner = self._normed(hidden, norm)
        inner = self._activate(up(inner)) if self._activate else up.then_gelu(inner)
        return down.added_to(hidden, inner)

    def finish(self, hidden: Tensor) -> Tensor:
        """See `Forward`."""
        return self._normed(hidden, self._norm)


def _linear(stored: Any) -> Linear:
    weight: torch.Tensor = stored.weight.detach()
    return Linear(weight.t().contiguous(), stored.bias.detach())
