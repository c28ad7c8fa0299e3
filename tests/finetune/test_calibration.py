"""Temperature scaling: the number that is found is the one by which a model is off, and it goes into the weights."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from enrich.errors import ConfigError
from enrich.finetune.calibration import divide_logits, final_norm, fit_temperature

VOCABULARY = 50


class Drawn(torch.utils.data.Dataset):
    """Rows drawn from a model itself: at temperature 1 nothing fits them better than that model."""

    def __init__(self, model: GPT2LMHeadModel, rows: int, length: int) -> None:
        torch.manual_seed(5)
        ids = torch.randint(VOCABULARY, (rows, 1))
        with torch.inference_mode():
            for _ in range(length):
                chances = model(ids).logits[:, -1].softmax(dim=1)
                ids = torch.cat([ids, torch.multinomial(chances, 1)], dim=1)
        self._rows = ids.tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"input_ids": self._rows[index], "labels": [-100, *self._rows[index][1:]]}


@pytest.fixture
def model() -> GPT2LMHeadModel:
    torch.manual_seed(4)
    shape = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=1, n_head=2, initializer_range=0.4)
    return GPT2LMHeadModel(shape).eval()


def test_a_model_too_sure_of_itself_is_found_out_by_how_much(model: GPT2LMHeadModel) -> None:
    drawn = Drawn(model, 400, 30)
    assert fit_temperature(model, drawn) == pytest.approx(1.0, abs=0.051)
    divide_logits(model, 1 / 1.5)
    assert fit_temperature(model, drawn) == pytest.approx(1.5, abs=0.051)


def test_the_number_goes_into_the_weights(model: GPT2LMHeadModel) -> None:
    ids = torch.randint(VOCABULARY, (3, 20))
    with torch.inference_mode():
        before = model(ids).logits
        divide_logits(model, 1.25)
        assert torch.allclose(model(ids).logits, before / 1.25, atol=1e-5)


def test_a_model_with_another_end_is_refused() -> None:
    shape = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ConfigError, match=r"--calibrate: a llama model"):
        final_norm(LlamaForCausalLM(shape))
