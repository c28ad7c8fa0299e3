"""Streaming: one text, token by token, for whoever watches it being written.

The tokens are those that the engines draw for the same request, up to the last bits of the arithmetic; see
`enrich.engine.sampling`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from enrich.engine import sampling
from enrich.engine.forward import Forward
from enrich.engine.loading import take_over
from enrich.engine.pool import Pool
from enrich.engine.protocol import EngineStats, Request, SamplingParams
from enrich.engine.ragged import RaggedBatch
from enrich.engine.stopping import StopStrings
from enrich.engine.tokenizer import Tokenizer


@torch.inference_mode()
def stream(
    model: Any, tokenizer: Tokenizer, request: Request, params: SamplingParams, forward: Forward | None
) -> Iterator[int]:
    """Yield the tokens of a text as they are drawn, the end-of-text token left out.

    `forward` is the model's own pass, as `forward_of` gives it.
    """
    ends = set(take_over(model, tokenizer.end_token_id))
    stops = StopStrings.of(tokenizer, params)
    if forward is not None:
        forward.head.prepare(sampling.considered(params, forward.vocabulary))
        yield from RaggedBatch(forward, Pool(), params, EngineStats(), ends, 1, stops).stream(request)
        return
    device = model.device
    input_ids = torch.tensor([request.prompt_token_ids], device=device)
    seeds, attempts = (torch.tensor([number], device=device) for number in (request.seed, request.attempt))
    generated = input_ids[:, :0]
    cache = None
    for step in range(min(params.max_new_tokens, request.max_new_tokens or params.max_new_tokens)):
        output = model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        uniforms = sampling.uniform(seeds, attempts, step)
        token = sampling.choose(output.logits[:, -1].float(), generated, uniforms, params)
        if int(token) in ends:
            return
        generated = torch.cat([generated, token[:, None]], dim=1)
        input_ids = token[:, None]
        yield int(token)
        if stops is not None and stops.length(generated[0].tolist(), step) is not None:
            return
