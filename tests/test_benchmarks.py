"""What benchmarks reckon themselves: the least time that the engine's is held against, and what depends on places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

PEERS = Path(__file__).parent.parent / "benchmarks" / "peers"


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PEERS))
    import roofline

    return roofline


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PEERS))
    import places

    return places


def test_prompts_are_arithmetic_and_steps_what_takes_longer(roofline: Any) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2))
    layers, head = 2 * (8 * 24 + 8 * 8 + 2 * 8 * 32), 50 * 8
    # A prompt's first two tokens see 1 and 2 positions, the two that are decoded 3 and 4: a product and a sum each.
    prompts = 2 * 2 * layers + 3 * 4 * 8 * 2
    steps = 2 * 2 * (layers + head) + 7 * 4 * 8 * 2
    read = 2 * 4 * (layers + head) + 7 * 2 * 2 * 8 * 4
    job = roofline.Job([[1, 2, 3]], [2], 2, False, 1)
    assert roofline.least_seconds(model, job, roofline.Machine(1.0, 1.0)) == prompts + max(steps, read) == 22720
    assert roofline.least_seconds(model, job, roofline.Machine(1.0, 4.0)) == prompts + steps
    two = roofline.Job([[1, 2, 3]] * 2, [2, 2], 2, False, 2)  # for which the weights are read once
    of_two = 2 * prompts + read + 7 * 2 * 2 * 8 * 4
    assert roofline.least_seconds(model, two, roofline.Machine(1.0, 1.0)) == max(of_two, 2 * (prompts + steps))


def test_a_machine_s_speeds_are_measured(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(roofline, "_SIZE", {"cpu": 256})
    machine = roofline.Machine.measured("cpu", torch.float32)
    assert 1e8 < machine.flops_per_second < 1e14
    assert 1e7 < machine.bytes_per_second < 1e13


def test_operations_whose_bits_depend_on_a_row_s_place_are_named(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(places.rows_that_differ("cpu", torch.bfloat16, 8, 32, 32))
    assert len(before) == 13
    norm = torch.nn.functional.layer_norm

    def by_place(inputs: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        outputs = norm(inputs, shape)
        outputs[0] *= 2
        return outputs

    monkeypatch.setattr(places.F, "layer_norm", by_place)
    found = dict(places.rows_that_differ("cpu", torch.bfloat16, 8, 32, 32))
    assert found.pop("step: norm") == 2  # the one that was first, and the one that is now
    assert before.pop("step: norm") == 0 and found == before
