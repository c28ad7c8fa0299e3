"""Measure the engine beside `generate` of transformers, on the same prompts in one run; one JSON line a case.

    python benchmarks/bench_engine.py [--model home-mini] [--rows 512] [--slots 64,256] [--dtype bfloat16] [--check]

Without --model it runs the shape of GPT-2 small with random weights. Tokens that count are those a row asked for: what
`generate` computes for rows that had finished is its waste. --check first holds the engine's tokens against the
reference engine's. Needs torch and transformers, nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from enrich.engine.continuous import ContinuousEngine
from enrich.engine.protocol import EngineStats, Request, SamplingParams
from enrich.engine.reference import ReferenceEngine

NEW_TOKENS = 64
RAGGED = (8, 128)
CASES = {
    "greedy": SamplingParams(NEW_TOKENS, temperature=0, repetition_penalty=1.0),
    "sampled": SamplingParams(NEW_TOKENS, temperature=0.8, top_k=50, top_p=1.0, repetition_penalty=1.0),
}


def gpt2_small() -> Any:
    return GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None))


def llama_small() -> Any:
    """Rotary positions and grouped heads, about the size of GPT-2 small."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=None,
        )
    )  # fmt: skip


def make_requests(rows: int, vocabulary: int, ragged: bool) -> list[Request]:
    """Prompts of 8 to 62 tokens, 35 in the mean; with `ragged` each row asks for its own number of new tokens."""
    rng = random.Random(0)
    return [
        Request(
            tuple(rng.randrange(1, vocabulary) for _ in range(rng.randint(8, 62))),
            seed=rng.getrandbits(62),
            max_new_tokens=rng.randint(*RAGGED) if ragged else None,
        )
        for _ in range(rows)
    ]


def clock(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def run_engine(kind: type, model: Any, params: SamplingParams, requests: Sequence[Request], slots: int) -> Any:
    stats = EngineStats()
    width = max(len(request.prompt_token_ids) for request in requests)
    config = model.generation_config
    engine = kind(model, None, params, stats)
    completions = dict(engine.generate(requests, -(-width // 16) * 16, slots, lambda: False))
    model.generation_config = config  # which the engine has cleared
    return completions, stats


@torch.inference_mode()
def run_generate(model: Any, params: SamplingParams, requests: Sequence[Request], batch: int) -> None:
    """Generate the usual way: sorted by length, left-padded, one batch after the other."""
    ours = model.config._attn_implementation
    model.set_attn_implementation("sdpa")  # its default, faster than the plain one that float32 texts need
    ordered = sorted(requests, key=lambda request: len(request.prompt_token_ids))
    for start in range(0, len(ordered), batch):
        rows = [request.prompt_token_ids for request in ordered[start : start + batch]]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=params.max_new_tokens, pad_token_id=0,
            do_sample=params.temperature > 0, temperature=params.temperature or None, top_k=params.top_k,
        )  # fmt: skip
    model.set_attn_implementation(ours)


def check(make: Callable[[], Any], device: str) -> dict[str, Any]:
    """Hold the engine's float32 tokens against the reference's; 16-bit ones against another order of the rows."""
    torch.manual_seed(0)
    model = make().to(device).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(2)
    requests = make_requests(500, model.config.vocab_size, ragged=True)
    params = SamplingParams(RAGGED[1], temperature=0, repetition_penalty=1.0)
    torch.backends.cuda.matmul.allow_tf32 = False
    ours, _ = run_engine(ContinuousEngine, model, params, requests, 64)
    reference, _ = run_engine(ReferenceEngine, model, params, requests, 64)
    same = sum(ours[index] == reference[index] for index in ours)
    model = model.to(torch.bfloat16)
    sampled = SamplingParams(RAGGED[1], temperature=0.8, repetition_penalty=1.1)
    there, _ = run_engine(ContinuousEngine, model, sampled, requests, 64)
    order = random.Random(1).sample(range(len(requests)), len(requests))
    back, _ = run_engine(ContinuousEngine, model, sampled, [requests[index] for index in order], 64)
    stable = sum(back[place] == there[index] for place, index in enumerate(order))
    return {"float32_equal_to_reference": same, "bfloat16_equal_in_another_order": stable, "of": len(requests)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a directory or embedded model; default: GPT-2 small's shape")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--slots", default="64,256")
    parser.add_argument("--dtype", default="bfloat16" if torch.cuda.is_available() else "float32")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case, in alternation; medians are printed")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformers.logging.set_verbosity_error()
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(json.dumps({"device": name, "torch": torch.__version__, "transformers": transformers.__version__}))
    if args.check:
        for make in (gpt2_small, llama_small):
            print(json.dumps({"check": make.__name__, **check(make, device)}), flush=True)
    if args.model:
        from enrich.engine.files import find_model
        from enrich.engine.loading import load_model

        model = load_model(find_model(args.model), device, args.dtype)
        model.generation_config.eos_token_id = None
    else:
        torch.manual_seed(0)
        model = gpt2_small().to(device=device, dtype=getattr(torch, args.dtype)).eval()
    fixed = make_requests(args.rows, model.config.vocab_size, ragged=False)
    ragged = make_requests(args.rows, model.config.vocab_size, ragged=True)
    for slots in map(int, args.slots.split(",")):
        for case, params in CASES.items():
            peers = {
                "engine": lambda p=params, s=slots: run_engine(ContinuousEngine, model, p, fixed, s),
                "generate": lambda p=params, s=slots: run_generate(model, p, fixed, s),
            }
            if device == "cuda":
                for work in peers.values():
                    work()  # warm-up
            seconds: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(args.repeat):  # in alternation, since a shared machine's speed drifts
                for peer, work in peers.items():
                    seconds[peer].append(clock(work, device)[0])
            for peer in peers:
                middle = statistics.median(seconds[peer])
                line = {"peer": peer, "case": case, "rows": slots, "seconds": round(middle, 3)}
                print(json.dumps(line | {"tokens_per_second": round(len(fixed) * NEW_TOKENS / middle)}), flush=True)
            ratios = sorted(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True))
            line = {"case": case, "rows": slots, "times_as_fast": round(statistics.median(ratios), 2)}
            print(json.dumps(line | {"from_to": [round(ratios[0], 2), round(ratios[-1], 2)]}), flush=True)
        params = SamplingParams(RAGGED[1], temperature=0.8, top_k=50, top_p=1.0, repetition_penalty=1.0)
        seconds, (_, stats) = clock(lambda s=slots, p=params: run_engine(ContinuousEngine, model, p, ragged, s), device)
        useful = 1 - stats.decode_waste
        line = {"peer": "engine", "case": "ragged 8-128", "rows": slots, "seconds": round(seconds, 3)}
        print(json.dumps(line | {"useful_slot_steps": round(useful, 3)}), flush=True)
    if device == "cuda":
        print(json.dumps({"peak_device_mib": torch.cuda.max_memory_allocated() >> 20}))


if __name__ == "__main__":
    main()
