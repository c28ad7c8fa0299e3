"""Hold the engine's tokens against the reference engine's: 500 ragged prompts, two kinds of model.

    python benchmarks/peers/check.py [gpt2-small llama-small]

Also says how many rows have the same 16-bit text in another order. One line of JSON for each model.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import torch
from shapes import SHAPES

from enrich.engine.continuous import ContinuousEngine
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams
from enrich.engine.reference import ReferenceEngine

ROWS, SLOTS, LONGEST = 500, 64, 128
GREEDY = SamplingParams(LONGEST, temperature=0, repetition_penalty=1.0)
SAMPLED = SamplingParams(LONGEST, temperature=0.8, repetition_penalty=1.1)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    for name in sys.argv[1:] or ("gpt2-small", "llama-small"):
        torch.manual_seed(0)
        model = SHAPES[name]()
        for parameter in model.parameters():  # fresh ones give scores that hardly differ
            if parameter.dim() > 1:
                parameter.data.mul_(2)
        model.set_attn_implementation("eager")
        print(json.dumps({"check": name, "device": device, **check(model.to(device).eval())}), flush=True)


def check(model: Any) -> dict[str, Any]:
    requests = make_requests(model.config.vocab_size)
    ours, theirs = (run(kind, model, GREEDY, requests) for kind in (ContinuousEngine, ReferenceEngine))
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    order = random.Random(1).sample(range(ROWS), ROWS)
    model = model.to(torch.bfloat16)
    there = run(ContinuousEngine, model, SAMPLED, requests)
    back = run(ContinuousEngine, model, SAMPLED, [requests[row] for row in order])
    stable = sum(back[place] == there[row] for place, row in enumerate(order))
    return {
        "of": ROWS, "float32_equal_to_reference": same, "different_texts": len(set(ours)),
        "bfloat16_equal_in_another_order": stable,
    }  # fmt: skip


def make_requests(vocabulary: int) -> list[Request]:
    draw = random.Random(0)
    return [
        Request(
            tuple(draw.randrange(1, vocabulary) for _ in range(draw.randint(8, 62))),
            seed=draw.getrandbits(62),
            max_new_tokens=draw.randint(8, LONGEST),
        )
        for _ in range(ROWS)
    ]


def run(kind: type, model: Any, params: SamplingParams, requests: list[Request]) -> list[Completion]:
    engine = kind(model, None, params, EngineStats())
    return [completion for _, completion in sorted(engine.generate(requests, 64, SLOTS, lambda: False))]


if __name__ == "__main__":
    main()
