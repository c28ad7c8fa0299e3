"""The engine itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from job import TEMPERATURE, TOP_K, Job, Peer

from enrich import __version__
from enrich.engine.continuous import ContinuousEngine
from enrich.engine.files import find_model
from enrich.engine.loading import load_model
from enrich.engine.protocol import EngineStats, Request, SamplingParams


def load(name: str, directory: Path, dtype: str, threads: int) -> Peer:
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = None
    if name == "engine":  # the same for the engine of another source tree, which may lack what this takes
        from roofline import Machine, least_seconds

        machine = Machine.measured(device, getattr(torch, dtype))
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    model = load_model(find_model(str(directory)), device, dtype)
    model.generation_config.eos_token_id = None
    made: dict[SamplingParams, ContinuousEngine] = {}  # as a run makes it once

    def run(job: Job) -> tuple[list[int], dict[str, Any]]:
        params = params_of(job)
        if params not in made:
            made.clear()  # what the one before has laid out for itself is let go
            made[params] = ContinuousEngine(model, None, params, EngineStats())
        engine = made[params]
        engine.stats = stats = EngineStats()
        requests = requests_of(job)
        width = -(-max(map(len, job.prompts)) // 16) * 16
        lengths = [0] * len(requests)
        for row, completion in engine.generate(requests, width, job.batch, lambda: False):
            lengths[row] = len(completion.token_ids)
        figures: dict[str, Any] = {"useful_slot_steps": round(1 - stats.decode_waste, 3)}
        if machine is not None:
            figures["least_seconds"] = least_seconds(model, job, machine)
        if device == "cuda":
            figures["peak_device_mib"] = torch.cuda.max_memory_allocated() >> 20
        return lengths, figures

    return Peer(run, f"enrich {__version__}, torch {torch.__version__}", device)


def params_of(job: Job) -> SamplingParams:
    """Return the sampling that all peers are given; the rest is off."""
    if job.sampled:
        return SamplingParams(job.limit, temperature=TEMPERATURE, top_k=TOP_K, top_p=1.0, repetition_penalty=1.0)
    return SamplingParams(job.limit, temperature=0, repetition_penalty=1.0)


def requests_of(job: Job) -> list[Request]:
    draw = random.Random(0)
    return [
        Request(tuple(prompt), seed=draw.getrandbits(62), max_new_tokens=most)
        for prompt, most in zip(job.prompts, job.new_tokens, strict=True)
    ]
