"""The path that a GPU takes: on a GPU where there is one, and as far as a CPU can go everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from device_checks import CHECKS, GREEDY, MODELS, SAMPLED, AsOnGpu, check_sixteen_bit_scores
from engine_rows import make_requests, run
from torch.utils._python_dispatch import TorchDispatchMode

from enrich.engine.continuous import ContinuousEngine
from enrich.engine.fixed import FixedBatch
from enrich.engine.protocol import SamplingParams

pytestmark = pytest.mark.slow
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("check", CHECKS)
def test_on_a_cpu_as_on_a_gpu(check: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    CHECKS[check](MODELS[model]())


@needs_gpu
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("check", CHECKS)
def test_on_a_gpu(check: str, model: str) -> None:
    CHECKS[check](MODELS[model]().to("cuda"))


class _Counting(TorchDispatchMode):
    """Counts operations that compute or copy something: on a GPU, kernels."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and func not in (torch.ops.aten.dropout.default, torch.ops.aten.reshape.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("params", "most"), [(GREEDY, 25), (SAMPLED, 60)], ids=["greedy", "sampled"])
def test_a_decode_step_is_few_operations(params: SamplingParams, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a GPU each is a kernel of some microseconds, however few numbers there are.
    counts, decode = [], FixedBatch._decode

    def counted(batch: FixedBatch) -> None:
        with _Counting() as counting:
            decode(batch)
        counts.append(counting.count)

    monkeypatch.setattr(FixedBatch, "_decode", counted)
    model = MODELS["gpt2"]()
    run(AsOnGpu(model, params), make_requests(8), 8)
    layers = model.config.n_layer
    assert counts[1] <= 16 * layers + most


@pytest.mark.parametrize("model", MODELS)
def test_sixteen_bit_scores_of_the_path_that_a_cpu_takes_are_near_those_of_float32(model: str) -> None:
    check_sixteen_bit_scores(MODELS[model](), ContinuousEngine)


def test_the_checks_need_nothing_but_torch_and_transformers() -> None:
    here = Path(__file__).parent
    program = f"""
import sys
sys.modules.update(dict.fromkeys(["polars", "pyarrow", "click", "pytest", "hypothesis", "jsonschema", "obstore"]))
sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}, {str(here.parents[1] / "benchmarks" / "peers")!r}]
import device_checks, ours, hugging, places, roofline, shapes
assert set(sys.modules["enrich"].__path__) == {{{str(here.parents[1] / "enrich")!r}}}
print(len(device_checks.CHECKS))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(CHECKS)}\n"), done.stderr


def test_without_a_gpu_it_is_said_that_nothing_was_checked() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    command = [sys.executable, Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("gpu-check: no GPU here") and done.stdout.count("\n") == 1
