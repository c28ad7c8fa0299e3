"""Which operations give a row other bits in another place among the same rows: what makes a text depend on the order.

The shapes are GPT-2 small's, as the engine computes them on a GPU: every step and every prefill of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from enrich.engine import sampling
from enrich.engine.protocol import SamplingParams

_SIZE, _HEADS, _VOCABULARY = 768, 12, 50257
_MATRICES = {"queries, keys, values": (768, 2304), "gather": (768, 768), "up": (768, 3072), "down": (3072, 768)}
Operation = Callable[..., Tensor]


def rows_that_differ(device: str, dtype: torch.dtype, slots: int, width: int, new: int) -> Iterator[tuple[str, int]]:
    """Yield each operation and how many of its rows come out otherwise once all rows have changed places."""
    draw = torch.Generator(device).manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=device).to(dtype)

    def differ(operation: Operation, *inputs: Tensor) -> int:
        places = torch.arange(len(inputs[0]), device=device).roll(len(inputs[0]) // 2 + 1)
        there, back = operation(*inputs), operation(*(one[places] for one in inputs))
        return int((back != there[places]).flatten(1).any(dim=1).sum())

    prompts = max(1, slots // 8)
    for name, (inputs, outputs) in _MATRICES.items():
        weight, bias = numbers(inputs, outputs), numbers(outputs)
        yield f"step: {name}", differ(lambda x, w=weight, b=bias: torch.addmm(b, x, w), numbers(slots, inputs))
        prompt = numbers(prompts, width, inputs)
        yield (
            f"prefill: {name}",
            differ(lambda x, w=weight, b=bias: torch.addmm(b, x.flatten(0, 1), w).view(len(x), -1), prompt),
        )
    head = numbers(_VOCABULARY, _SIZE)
    yield "step: head", differ(lambda x: F.linear(x, head), numbers(slots, _SIZE))
    yield "step: norm", differ(lambda x: F.layer_norm(x, (_SIZE,)), numbers(slots, _SIZE))
    size, length = _SIZE // _HEADS, width + new
    seen = torch.randint(width, length, (slots, 1, 1, 1), generator=draw, device=device)
    mask = torch.where(torch.arange(length, device=device) < seen, 0.0, torch.finfo(dtype).min).to(dtype)
    keys, values = numbers(slots, _HEADS, length, size), numbers(slots, _HEADS, length, size)
    query = numbers(slots, _HEADS, 1, size)
    yield "step: attention", differ(F.scaled_dot_product_attention, query, keys, values, mask)
    causal = torch.full((width, width), torch.finfo(dtype).min, dtype=dtype, device=device).triu(1)
    parts = [numbers(prompts, _HEADS, width, size) for _ in range(3)]
    yield "prefill: attention", differ(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, causal), *parts)
    params = SamplingParams(new, temperature=0.8, top_k=50)
    scores, uniforms = numbers(slots, _VOCABULARY), torch.rand(slots, generator=draw, device=device).double()
    yield "step: draw", differ(lambda x, u: sampling.draw(x.float(), u, params)[:, None], scores, uniforms)
