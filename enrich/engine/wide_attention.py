"""Wide attention: float32 attention to float32 keys and values in a 16-bit model of transformers' classes, on a CPU.

torch's batched products and its fused kernel read 16-bit keys and values at less than 1 GB/s, those of float32 at ten
times that. And their bits do not depend on how many rows there are.

Shapes: N rows, H heads, K key-value heads, Q queries, L positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

_NAME = "enrich_wide"


def widen(model: Any) -> bool:
    """Have a bfloat16 model on a CPU attend so; say whether it does, which not all of transformers' classes can."""
    if (
        model.device.type != "cpu"
        or model.dtype != torch.bfloat16
        or not getattr(model, "_supports_attention_backend", False)
    ):
        return False
    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, eager_mask)
    model.set_attn_implementation(_NAME)
    return True


def attend(
    module: Any,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return what queries [N, H, Q, D] see of keys and values [N, K, L, D], as transformers asks for it: [N, Q, H, D].

    The mask [N or 1, 1, Q, L] is added.
    """
    rows, heads, queries, size = query.shape
    group = heads // key.shape[1]
    grouped = query.float().reshape(rows, -1, group * queries, size) * (size**-0.5 if scaling is None else scaling)
    scores = torch.matmul(grouped, key.float().mT)
    if attention_mask is not None:
        scores += attention_mask.float().repeat(1, 1, group, 1)
    seen = torch.matmul(torch.softmax(scores, dim=-1), value.float())
    return seen.view(rows, heads, queries, size).transpose(1, 2).contiguous().to(query.dtype), None
