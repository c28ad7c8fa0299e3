"""Float32 attention in bfloat16 models of transformers' classes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from device_checks import check_sixteen_bit_scores, of_kind
from engine_rows import make_requests, run

from enrich.engine.continuous import KINDS, ContinuousEngine
from enrich.engine.protocol import EngineStats, SamplingParams
from enrich.engine.wide_attention import attend, widen

OWN = {"gpt2", "llama", "mistral", "qwen2", "qwen3"}
NARROW = {"codegen", "gptj", "stablelm"}  # attention of their own, which transformers' interface does not reach


def made(kind: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    return of_kind(kind).to(dtype)


def test_it_is_the_attention_of_the_formula() -> None:
    torch.manual_seed(1)
    query, keys, values = torch.randn(3, 6, 5, 16), torch.randn(3, 2, 9, 16), torch.randn(3, 2, 9, 16)
    mask = torch.zeros(1, 1, 5, 9).masked_fill_(torch.rand(5, 9) < 0.3, -torch.inf)
    found, _ = attend(None, query.bfloat16(), keys, values.bfloat16(), mask, scaling=0.3)
    rounded = query.bfloat16().float(), keys, values.bfloat16().float()
    wanted = torch.nn.functional.scaled_dot_product_attention(*rounded, attn_mask=mask, scale=0.3, enable_gqa=True)
    assert found.shape == (3, 5, 6, 16)
    assert torch.allclose(found.float(), wanted.transpose(1, 2), atol=2e-2)


def test_other_formats_are_left_alone() -> None:
    assert not widen(made("gpt_neox", torch.float32))
    assert not widen(made("gptj"))
    assert widen(made("gpt_neox"))


@pytest.mark.parametrize("kind", sorted(KINDS - OWN))
def test_texts_do_not_depend_on_slots_and_neighbours(kind: str) -> None:
    model, requests = made(kind), make_requests(70, seed=3)
    assert widen(model) == (kind not in NARROW)
    params = SamplingParams(12, temperature=0.9)
    found = [run(ContinuousEngine(model, 0, params, EngineStats()), requests, rows) for rows in (8, 32, 128)]
    if kind not in NARROW:
        assert found[0] == found[1] == found[2]
    order = random.Random(1).sample(range(len(requests)), len(requests))
    engine = ContinuousEngine(model, 0, params, EngineStats())
    others = run(engine, [requests[row] for row in order], 32)
    assert [others[order.index(row)] for row in range(len(requests))] == found[1]
    assert len({completion.token_ids for completion in found[1]}) > 50


@pytest.mark.parametrize("kind", ["gpt_neox", "gemma"])
def test_scores_are_near_those_of_float32(kind: str) -> None:
    check_sixteen_bit_scores(made(kind, torch.float32), ContinuousEngine)
