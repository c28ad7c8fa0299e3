from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_rows import make_requests, run
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from enrich.engine import gpt2, linear, rotary
from enrich.engine.continuous import ContinuousEngine
from enrich.engine.protocol import EngineStats, SamplingParams
from enrich.engine.scripted import scripted

PARAMS = SamplingParams(max_new_tokens=12, temperature=0.9)


def small_gpt2(activation: str = "gelu_new") -> GPT2LMHeadModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=400, n_positions=96, n_embd=64, n_layer=2, n_head=4, activation_function=activation,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def rotary_of(kind: type, config: type, **more: Any) -> Any:
    torch.manual_seed(2)
    return kind(
        config(
            vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=96, bos_token_id=0, eos_token_id=0, **more,
        )
    )  # fmt: skip


MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": small_gpt2,
    "gpt2 relu": lambda: small_gpt2("relu"),
    "gpt2 gelu": lambda: small_gpt2("gelu"),
    "gpt2 silu": lambda: small_gpt2("silu"),
    "llama": lambda: rotary_of(LlamaForCausalLM, LlamaConfig),
    "qwen3": lambda: rotary_of(Qwen3ForCausalLM, Qwen3Config, head_dim=16),  # whose queries and keys are normed
}


def written(model: Any) -> Any:
    return run(ContinuousEngine(model, 0, PARAMS, EngineStats()), make_requests(40), 16)


@pytest.mark.parametrize("module", [gpt2, rotary])
def test_steps_are_scripted_with_the_torch_that_is_installed(module: Any) -> None:
    assert isinstance(scripted(module._decode), torch.jit.ScriptFunction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_python_writes_the_same_where_a_torch_has_no_scripts(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[name]().to(dtype).eval()
    expected = written(model)
    for module in (gpt2, rotary):
        monkeypatch.setattr(module, "scripted", lambda function: function)
    assert written(model) == expected


@pytest.mark.parametrize("name", ["gpt2", "gpt2 silu", "llama"])
def test_matrices_that_can_t_be_laid_out_are_multiplied_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]().eval()
    expected = written(model)
    monkeypatch.setattr(linear, "_laid_out", lambda _: None)
    for module in (gpt2, rotary):
        assert written(model) == expected
        monkeypatch.setattr(module, "scripted", lambda function: function)
    assert written(model) == expected


def test_a_function_that_can_t_be_scripted_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "enrich")

    def reads(path: str) -> bytes:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scripted(reads) is reads
        assert "decode steps run in Python" in caplog.text
        assert isinstance(scripted(doubled), torch.jit.ScriptFunction)
    assert torch.equal(scripted(doubled)(torch.ones(2)), torch.full((2,), 2.0))


def doubled(numbers: torch.Tensor) -> torch.Tensor:
    return numbers * 2
