"""The forward pass of Llama and its kin: rotary positions, grouped heads, RMS norms, a gated MLP. See `forward`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine.head import Head
from enrich.engine.linear import Linear, is_small

_KINDS = ("llama", "mistral", "qwen2", "qwen3")
_FIXED_POSITIONS = ("default", "linear", "llama3")  # whose angles do not depend on how long a text has become


class RotaryForward:
    """A model of Llama's build between embedding and logits; see `Forward`."""

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.model
        first = body.layers[0].self_attn
        self.layers = config.num_hidden_layers
        self.head_size = first.head_dim
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // self.kv_heads
        self.scale = first.scaling
        self.dtype, self.is_small = model.dtype, is_small(model)
        self.vocabulary = model.lm_head.weight.shape[0]
        self._epsilon = config.rms_norm_eps
        self._words = body.embed_tokens.weight.detach()
        self._rotary = body.rotary_emb
        self._blocks = [
            (
                layer.input_layernorm.weight.detach(),
                _stacked(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                [
                    getattr(layer.self_attn, name).weight.detach() if hasattr(layer.self_attn, name) else None
                    for name in ("q_norm", "k_norm")
                ],
                _stacked(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight.detach(),
                _stacked(layer.mlp.gate_proj, layer.mlp.up_proj),
                _stacked(layer.mlp.down_proj),
            )
            for layer in body.layers
        ]
        self._norm = body.norm.weight.detach()
        self.head = Head(model.lm_head.weight.detach())
        self.tile = self.head.tile

    @staticmethod
    def can_run(model: Any) -> bool:
        """Say whether a model is of one of these kinds, with angles that are the same for texts of any length."""
        config = model.config
        if config.model_type not in _KINDS or config.hidden_act != "silu":
            return False
        return model.model.rotary_emb.rope_type in _FIXED_POSITIONS

    def _normed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], weight, self._epsilon)

    def embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See `Forward`; of the positions their angles' cosines and sines [N, 1, D] are needed."""
        hidden = F.embedding(tokens, self._words)
        cosines, sines = self._rotary(hidden, positions[None])
        return hidden, (cosines[0].unsqueeze(1), sines[0].unsqueeze(1))

    def project(self, layer: int, hidden: Tensor, places: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See `Forward`."""
        norm, mix, (query_norm, key_norm), *_ = self._blocks[layer]
        heads = self.kv_heads
        mixed = mix(self._normed(hidden, norm)).view(len(hidden), -1, self.head_size)
        queries, keys, values = torch.split(mixed, [heads * self.group, heads, heads], dim=1)
        if query_norm is not None and key_norm is not None:
            queries, keys = self._normed(queries, query_norm), self._normed(keys, key_norm)
        queries = _turned(queries, *places).view(-1, heads, self.group, self.head_size)
        return queries, _turned(keys, *places), values

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Forward`."""
        _, _, _, gather, norm, up, down = self._blocks[layer]
        hidden = gather.added_to(hidden, attended)
        gate, inner = up(self._normed(hidden, norm)).chunk(2, dim=1)
        return down.added_to(hidden, F.silu(gate).mul_(inner))

    def finish(self, hidden: Tensor) -> Tensor:
        """See `Forward`."""
        return self._normed(hidden, self._norm)


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of numbers of `heads` [N, heads, D] by its position's angle (Su et al. 2021, RoFormer)."""
    low, high = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-high, low), dim=-1) * sines


def _stacked(*stored: Any) -> Linear:
    """Return several linear layers as one, their outputs side by side."""
    weight = stored[0].weight if len(stored) == 1 else torch.cat([one.weight for one in stored])
    biases = [one.bias for one in stored]
    bias = None if biases[0] is None else torch.cat(biases).detach()
    return Linear(weight.detach(), bias)
