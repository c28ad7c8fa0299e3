"""The roofline: the least time that a job can take by what the machine was seen to do at its best.

Williams, Waterman, Patterson 2009: a computation takes as long as its arithmetic at the highest speed of that, or as
its bytes at the highest speed of memory, whichever is more. Prompts are arithmetic; decode steps read the weights once
for all rows at work, and the keys and values of every position that a row sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from job import Job

from enrich.engine.linear import Linear, product
from enrich.engine.memory import head_size, position_bytes

_TRIES = 5
_ROWS = {"cpu": 512, "cuda": 8192}
_SIZE = {"cpu": 2048, "cuda": 8192}  # of a matrix, each side
_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}


@dataclass(frozen=True, slots=True)
class Machine:
    """The highest speeds that were seen, of products in one number format and of memory, read and written."""

    flops_per_second: float
    bytes_per_second: float

    @staticmethod
    def measured(device: str, dtype: torch.dtype) -> Machine:
        """Measure this machine with the threads that torch has now."""
        rows, size = _ROWS[device], _SIZE[device]
        inputs = torch.randn(rows, size, device=device).to(dtype)
        weight = torch.randn(size, size, device=device).to(dtype)
        by = Linear.of(weight, None) if device == "cpu" else Linear(weight, None, False)
        copied = torch.zeros(_BYTES[device], dtype=torch.uint8, device=device)
        target = torch.zeros_like(copied)
        return Machine(
            2 * rows * size * size / _shortest(lambda: product(inputs, by), device),
            2 * copied.nbytes / _shortest(lambda: target.copy_(copied), device),
        )


def least_seconds(model: Any, job: Job, machine: Machine) -> float:
    """Return the least time for a job with its batch's rows at once; that prompts may begin alike is left out."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)} | {id(head)}
    matrices = [one for one in model.parameters() if one.dim() == 2 and id(one) not in embeddings]
    layers = sum(one.numel() for one in matrices)
    width = config.num_attention_heads * head_size(config)
    prefilled = sum(len(prompt) - 1 for prompt in job.prompts)
    decoded = sum(job.new_tokens)
    seen_by_prompts = sum((len(prompt) - 1) * len(prompt) // 2 for prompt in job.prompts)
    seen = sum(
        new * len(prompt) + new * (new - 1) // 2 for prompt, new in zip(job.prompts, job.new_tokens, strict=True)
    )
    of_seen = 4 * width * config.num_hidden_layers  # a product and a sum, of each number of a key and of a value
    prompts = 2 * layers * prefilled + of_seen * seen_by_prompts
    steps = 2 * (layers + head.numel()) * decoded + of_seen * seen
    read = (layers + head.numel()) * head.itemsize * decoded / job.batch + position_bytes(model) * seen
    return prompts / machine.flops_per_second + max(steps / machine.flops_per_second, read / machine.bytes_per_second)


def _shortest(work: Callable[[], object], device: str) -> float:
    def timed() -> float:
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        return time.perf_counter() - started

    return min(timed() for _ in range(_TRIES))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
