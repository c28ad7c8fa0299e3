"""Layers of transformers' classes that are multiplied by oneDNN's kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from device_checks import of_kind
from engine_rows import make_requests, run

from enrich.engine.continuous import ContinuousEngine
from enrich.engine.linear import Linear
from enrich.engine.loading import load_model
from enrich.engine.packed import PackedLinear, pack
from enrich.engine.protocol import EngineStats, SamplingParams

HAS_KERNELS = Linear.of(torch.zeros(32, 32), None).is_laid_out


def made(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model with sizes that are no powers of two."""
    return of_kind(kind, hidden=96, inner=200).to(dtype)


def packed_in(model: Any) -> list[PackedLinear]:
    return [layer for layer in model.modules() if isinstance(layer, PackedLinear)]


@pytest.mark.skipif(not HAS_KERNELS, reason="torch has no such kernels here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt_neox", "gptj", "opt", "gpt2"])
@torch.inference_mode()
def test_a_packed_model_has_its_scores_and_its_matrices_once(kind: str, dtype: torch.dtype) -> None:
    model, ids = made(kind, dtype), torch.arange(1, 25).view(2, 12)
    expected = model(input_ids=ids).logits
    before = sum(one.nbytes for one in model.parameters())
    pack(model)
    layers = packed_in(model)
    assert len(layers) >= 9  # four of each layer, and the head
    found = model(input_ids=ids).logits
    largest = expected.abs().max()
    assert ((found - expected).abs().max() / largest) < (1e-5 if dtype == torch.float32 else 0.03)
    assert sum(one.nbytes for one in model.parameters()) < before / 2
    assert (model.dtype, model.device.type) == (dtype, "cpu")
    assert model.get_output_embeddings().weight.shape == (400, 96)
    assert model.get_output_embeddings().weight.untyped_storage().nbytes() == 400 * 96 * dtype.itemsize
    pack(model)
    assert packed_in(model) == layers


def test_a_model_without_fused_attention_loads_in_sixteen_bits(tmp_path: Path) -> None:
    made("gptj").save_pretrained(tmp_path)
    model = load_model(cast(Any, SimpleNamespace(name="gptj", directory=tmp_path)), "cpu", "bfloat16")
    assert model.dtype == torch.bfloat16


def test_other_formats_and_tiny_layers_stay_as_they_are() -> None:
    model = made("opt", torch.float16)
    pack(model)
    assert not packed_in(model)
    small = made("opt")
    small.model.decoder.layers[0].fc1 = torch.nn.Linear(96, 8)
    pack(small)
    assert isinstance(small.model.decoder.layers[0].fc1, torch.nn.Linear)


@pytest.mark.parametrize("kind", ["gpt_neox", "gptj"])
def test_texts_are_the_same_for_every_number_of_slots(kind: str) -> None:
    model, requests = made(kind), [replace(one, max_new_tokens=12) for one in make_requests(70, seed=3)]
    params = SamplingParams(24, temperature=0.9)
    found = [
        run(ContinuousEngine(model, 0, params, EngineStats(), deterministic=True), requests, rows)
        for rows in (8, 32, 128)
    ]
    assert found[0] == found[1] == found[2]
    assert len({completion.token_ids for completion in found[0]}) > 50
