"""The forward pass of GPT-2: positions learned, layer norms before, matrices stored [in, out]. See `forward`."""

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine.attention import Lines, Seen, attend
from enrich.engine.head import Head
from enrich.engine.linear import Linear, is_small, let_go, product, product_added_to, product_then_gelu
from enrich.engine.scripted import scripted

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")
_ACTIVATIONS = (*_TANH_GELU, "gelu", "relu", "silu")


class _Block(NamedTuple):
    norm: Tensor
    norm_bias: Tensor
    mix: Linear
    gather: Linear
    inner_norm: Tensor
    inner_norm_bias: Tensor
    up: Linear
    down: Linear


class _Shape(NamedTuple):
    heads: int
    scale: float
    epsilon: float
    activation: str


class Gpt2Forward:
    """GPT-2 between embedding and logits; see `Forward`."""

    def __init__(self, model: Any, takes_weights: bool = False) -> None:
        config, body = model.config, model.transformer
        self.layers = config.n_layer
        self.kv_heads, self.group, self.head_size = config.n_head, 1, config.n_embd // config.n_head
        self.scale = 1 / math.sqrt(self.head_size)
        self.dtype, self.is_small = model.dtype, is_small(model)
        is_tanh_gelu = config.activation_function in _TANH_GELU
        self._shape = _Shape(
            config.n_head,
            self.scale,
            config.layer_norm_epsilon,
            "tanh" if is_tanh_gelu else config.activation_function,
        )
        self.vocabulary = model.lm_head.weight.shape[0]
        self._words, self._positions = body.wte.weight.detach(), body.wpe.weight.detach()
        self._blocks = [
            _Block(
                *(b.ln_1.weight.detach(), b.ln_1.bias.detach()),
                *(_linear(b.attn.c_attn, takes_weights), _linear(b.attn.c_proj, takes_weights)),
                *(b.ln_2.weight.detach(), b.ln_2.bias.detach()),
                *(_linear(b.mlp.c_fc, takes_weights), _linear(b.mlp.c_proj, takes_weights)),
            )
            for b in body.h
        ]
        self._norm = (body.ln_f.weight.detach(), body.ln_f.bias.detach())
        self.head = Head(model.lm_head.weight.detach())
        self.tile = self.head.tile
        self._decode = scripted(_decode)  # here, since threads are to share it

    @staticmethod
    def can_run(model: Any) -> bool:
        """Say whether a model is a GPT-2 without its rarer options."""
        config = model.config
        if config.model_type != "gpt2":
            return False
        odd = config.scale_attn_by_inverse_layer_idx or config.add_cross_attention or not config.scale_attn_weights
        return not odd and config.activation_function in _ACTIVATIONS

    def embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        """See `Forward`."""
        return F.embedding(tokens, self._words).add_(F.embedding(positions, self._positions)), None

    def project(self, layer: int, hidden: Tensor, places: None) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """See `Forward`."""
        return _project(hidden, self._blocks[layer], self._shape)

    def advance(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Forward`."""
        return _advance(hidden, attended, self._blocks[layer], self._shape)

    def decode(self, hidden: Tensor, places: None, lines: list[Lines], seen: Seen) -> Tensor:  # noqa: ARG002
        """See `Forward`."""
        return cast(Tensor, self._decode(hidden, self._blocks, self._shape, lines, seen))

    def finish(self, hidden: Tensor) -> Tensor:
        """See `Forward`."""
        return F.layer_norm(hidden, hidden.shape[-1:], *self._norm, self._shape.epsilon)


def _project(hidden: Tensor, block: _Block, shape: _Shape) -> tuple[Tensor, Tensor, Tensor]:
    normed = torch.layer_norm(hidden, [hidden.shape[1]], block.norm, block.norm_bias, shape.epsilon)
    mixed = product(normed, block.mix).view(len(hidden), 3, shape.heads, -1)
    return mixed[:, 0].unsqueeze(2), mixed[:, 1], mixed[:, 2]


def _advance(hidden: Tensor, attended: Tensor, block: _Block, shape: _Shape) -> Tensor:
    hidden = product_added_to(hidden, attended, block.gather)
    normed = torch.layer_norm(hidden, [hidden.shape[1]], block.inner_norm, block.inner_norm_bias, shape.epsilon)
    if shape.activation == "tanh":
        inner = product_then_gelu(normed, block.up)
    elif shape.activation == "gelu":
        inner = F.gelu(product(normed, block.up))
    elif shape.activation == "relu":
        inner = F.relu(product(normed, block.up))
    else:
        inner = F.silu(product(normed, block.up))
    return product_added_to(hidden, inner, block.down)


def _decode(hidden: Tensor, blocks: list[_Block], shape: _Shape, lines: list[Lines], seen: Seen) -> Tensor:
    rows = len(seen.new_keys)
    attended = torch.zeros_like(hidden)
    for layer, block in enumerate(blocks):
        queries, keys, values = _project(hidden, block, shape)
        attended[:rows] = attend(queries[:rows], keys[:rows], values[:rows], lines[layer], seen, shape.scale)
        hidden = _advance(hidden, attended, block, shape)
    return hidden


def _linear(stored: Any, takes_weights: bool) -> Linear:
    made = Linear.of(stored.weight.detach().t().contiguous(), stored.bias.detach())
    if takes_weights:
        let_go(stored)
    return made
