"""OpenVINO GenAI's continuous batching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai
from job import TEMPERATURE, TOP_K, Job, Peer

_CACHE_GIB = 2
_BATCHED_TOKENS = 2048  # that go through the model at once, prompts' and new ones; not tuned


def load(name: str, directory: Path, dtype: str, threads: int) -> Peer:
    exported = directory.with_name(f"{directory.name}.openvino")
    if not exported.is_dir():
        raise FileNotFoundError(f"{exported}: not exported")
    precision = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[dtype]
    cache = precision if name.endswith("-wide") else "u8"  # which is its default
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = _CACHE_GIB
    scheduler.max_num_batched_tokens = _BATCHED_TOKENS
    pipe = genai.ContinuousBatchingPipeline(
        str(exported), scheduler, "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": cache, "INFERENCE_NUM_THREADS": threads},
    )  # fmt: skip

    def run(job: Job) -> list[int]:
        configs = []
        for most in job.new_tokens:
            config = genai.GenerationConfig(max_new_tokens=most, ignore_eos=True, do_sample=job.sampled)
            if job.sampled:
                config.temperature, config.top_k = TEMPERATURE, TOP_K
            configs.append(config)
        prompts = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompt in job.prompts]
        return [len(result.m_generation_ids[0]) for result in pipe.generate(prompts, configs)]

    version = f"openvino-genai {genai.__version__.split('-')[0]}"
    return Peer(run, version, f"keys and values {cache}")
