"""The forward pass of Llama and its kin: rotary positions, grouped heads, RMS norms, a gated MLP. See `forward`."""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine.attention import Lines, Seen, attend
from enrich.engine.head import Head
from enrich.engine.linear import Linear, is_small, let_go, product, product_added_to
from enrich.engine.scripted import scripted

_KINDS = ("llama", "mistral", "qwen2", "qwen3")
_FIXED_POSITIONS = ("default", "linear", "llama3")  # whose angles do not depend on how long a text has become


class _Block(NamedTuple):
    norm: Tensor
    mix: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    gather: Linear
    inner_norm: Tensor
    gate_and_up: Linear
    down: Linear


class _Shape(NamedTuple):
    kv_heads: int
    group: int
    head_size: int
    scale: float
    epsilon: float


class RotaryForward:
    """A model of Llama's build between embedding and logits; see `Forward`."""

    def __init__(self, model: Any, takes_weights: bool = False) -> None:
        config, body = model.config, model.model
        first = body.layers[0].self_attn
        self.layers = config.num_hidden_layers
        self.head_size = first.head_dim
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // self.kv_heads
        self.scale = first.scaling
        self.dtype, self.is_small = model.dtype, is_small(model)
        self.vocabulary = model.lm_head.weight.shape[0]
        self._shape = _Shape(self.kv_heads, self.group, self.head_size, self.scale, config.rms_norm_eps)
        self._words = body.embed_tokens.weight.detach()
        self._rotary = body.rotary_emb
        self._blocks = [
            _Block(
                layer.input_layernorm.weight.detach(),
                _stacked(
                    layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, takes_weights=takes_weights
                ),
                _weight_of(layer.self_attn, "q_norm"),
                _weight_of(layer.self_attn, "k_norm"),
                _stacked(layer.self_attn.o_proj, takes_weights=takes_weights),
                layer.post_attention_layernorm.weight.detach(),
                _stacked(layer.mlp.gate_proj, layer.mlp.up_proj, takes_weights=takes_weights),
                _stacked(layer.mlp.down_proj, takes_weights=takes_weights),
            )
            for layer in body.layers
        ]
        self._norm = body.norm.weight.detach()
        self.head = Head(model.lm_head.weight.detach())
        self.tile = self.head.tile
        self._decode = scripted(_decode)  # here, since threads are to share it

    @staticmethod
    def can_run(model: Any) -> bool:
        """Say whether a model is of one of these kinds, with angles that are the same for texts of any length."""
        config = model.config
        if config.model_type not in _KINDS or config.hidden_act != "silu":
            return False
        return model.model.rotary_emb.rope_type in _FIXED_POSITIONS

    def embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See `Forward`; of the positions their angles' cosines and sines [N, 1, D] are needed."""
        hidden = F.embedding(tokens, self._words)
        cosines, sines = self._rotary(hidden, positions[None])
        return hidden, (cosines[0].unsqueeze(1), sines[0].unsqueeze(1))

    def project(self, layer: int, hidden: Tensor, places: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See `Forward`."""
        return _project(hidden, places[0], places[1], self._blocks[layer], self._shape)

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Forward`."""
        return _advance(hidden, attended, self._blocks[layer], self._shape)

    def decode(self, hidden: Tensor, places: tuple[Tensor, Tensor], lines: list[Lines], seen: Seen) -> Tensor:
        """See `Forward`."""
        return cast(Tensor, self._decode(hidden, *places, self._blocks, self._shape, lines, seen))

    def finish(self, hidden: Tensor) -> Tensor:
        """See `Forward`."""
        return _normed(hidden, self._norm, self._shape.epsilon)


def _normed(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return torch.rms_norm(hidden, [hidden.shape[-1]], weight, epsilon)


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of numbers of `heads` [N, heads, D] by its position's angle (Su et al. 2021, RoFormer)."""
    low, high = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-high, low), dim=-1) * sines


def _project(
    hidden: Tensor, cosines: Tensor, sines: Tensor, block: _Block, shape: _Shape
) -> tuple[Tensor, Tensor, Tensor]:
    mixed = product(_normed(hidden, block.norm, shape.epsilon), block.mix).view(len(hidden), -1, shape.head_size)
    queries, keys, values = torch.split(mixed, [shape.kv_heads * shape.group, shape.kv_heads, shape.kv_heads], dim=1)
    query_norm, key_norm = block.query_norm, block.key_norm
    if query_norm is not None and key_norm is not None:
        queries, keys = _normed(queries, query_norm, shape.epsilon), _normed(keys, key_norm, shape.epsilon)
    queries = _turned(queries, cosines, sines).view(-1, shape.kv_heads, shape.group, shape.head_size)
    return queries, _turned(keys, cosines, sines), values


def _advance(hidden: Tensor, attended: Tensor, block: _Block, shape: _Shape) -> Tensor:
    hidden = product_added_to(hidden, attended, block.gather)
    gate, inner = product(_normed(hidden, block.inner_norm, shape.epsilon), block.gate_and_up).chunk(2, dim=1)
    return product_added_to(hidden, F.silu(gate).mul_(inner), block.down)


def _decode(
    hidden: Tensor,
    cosines: Tensor,
    sines: Tensor,
    blocks: list[_Block],
    shape: _Shape,
    lines: list[Lines],
    seen: Seen,
) -> Tensor:
    rows = len(seen.new_keys)
    attended = hidden.new_zeros(len(hidden), shape.kv_heads * shape.group * shape.head_size)
    for layer, block in enumerate(blocks):
        queries, keys, values = _project(hidden, cosines, sines, block, shape)
        attended[:rows] = attend(queries[:rows], keys[:rows], values[:rows], lines[layer], seen, shape.scale)
        hidden = _advance(hidden, attended, block, shape)
    return hidden


def _weight_of(attention: Any, norm: str) -> Tensor | None:
    return getattr(attention, norm).weight.detach() if hasattr(attention, norm) else None


def _stacked(*stored: Any, takes_weights: bool) -> Linear:
    """Return several linear layers as one, their outputs side by side; take their weights, if that is told."""
    weight = stored[0].weight if len(stored) == 1 else torch.cat([one.weight for one in stored])
    biases = [one.bias for one in stored]
    bias = None if biases[0] is None else torch.cat(biases).detach()
    made = Linear.of(weight.detach(), bias)
    if takes_weights:
        for one in stored:
            let_go(one)
    return made
