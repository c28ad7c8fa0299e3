from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from enrich.finetune.dataset import IGNORED, Loss, Noised, PairDataset, batch_size, collate, figures, measure
from enrich.finetune.pairs import Pair

PAIRS = [Pair("1", "Title: Oak table", "A table of oak."), Pair("2", "Title: Lamp", "A lamp <|endoftext|> is a lamp.")]


@pytest.fixture(scope="module")
def tokenizer(tiny_gpt2: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.pad_token = tokenizer.eos_token  # as GPT-2's users do
    return tokenizer


def test_the_prompt_is_masked_and_the_end_is_learned(tokenizer) -> None:
    dataset = PairDataset(PAIRS, tokenizer, 100)
    end = tokenizer.eos_token_id
    for place, pair in enumerate(PAIRS):
        row = dataset[place]
        learned = [label for label in row["labels"] if label != IGNORED]
        assert learned[-1] == end
        assert end not in learned[:-1]  # a special token in a text is plain text
        assert tokenizer.decode(learned[:-1]) == " " + pair.text
        assert row["labels"][-len(learned) :] == row["input_ids"][-len(learned) :]
    assert PairDataset(PAIRS, tokenizer, 100, learn_prompts=True)[0]["labels"] == dataset[0]["input_ids"]


def test_word_dropout_changes_a_share_of_the_text_and_no_label(tokenizer) -> None:
    dataset = PairDataset(PAIRS, tokenizer, 100)
    plain, noised = dataset[1], Noised(dataset, 0.4, len(tokenizer))
    learned = sum(label != IGNORED for label in plain["labels"])
    torch.manual_seed(0)
    changed = 0
    for _ in range(200):
        row = noised[1]
        assert row["labels"] == plain["labels"]
        assert row["input_ids"][:-learned] == plain["input_ids"][:-learned]  # the prompt
        pairs = zip(row["input_ids"], plain["input_ids"], strict=True)
        changed += sum(other != token for other, token in pairs)
    assert 0.3 < changed / (200 * learned) < 0.5
    assert Noised(dataset, 0.0, len(tokenizer))[1] == plain


def test_padding_is_masked_by_place_not_by_token(tokenizer) -> None:
    dataset = PairDataset(PAIRS, tokenizer, 100)
    batch = collate([dataset[0], dataset[1]])
    for place in range(2):
        length = len(dataset[place]["input_ids"])
        assert batch["attention_mask"][place].tolist() == [1] * length + [0] * (batch["labels"].shape[1] - length)
        assert batch["labels"][place, length - 1] == tokenizer.eos_token_id
        assert (batch["labels"][place, length:] == IGNORED).all()


def test_what_is_too_long_is_counted(tokenizer) -> None:
    length = len(PairDataset(PAIRS, tokenizer, 1000)[0]["input_ids"])
    assert PairDataset(PAIRS, tokenizer, length).kept == [0]
    assert PairDataset(PAIRS, tokenizer, length - 1).too_long == 2


def test_the_loss_is_that_of_each_text_alone(tokenizer, tiny_gpt2: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    dataset = PairDataset([PAIRS[1], *PAIRS], tokenizer, 100)
    losses = measure(model, tokenizer, dataset)
    assert losses[0].nats == pytest.approx(losses[2].nats, rel=1e-5)
    for place, pair in enumerate([PAIRS[1], *PAIRS]):
        row = {name: torch.tensor([ids]) for name, ids in dataset[place].items()}
        alone = model(input_ids=row["input_ids"], labels=row["labels"]).loss.item()
        assert losses[place].nats / losses[place].tokens == pytest.approx(alone, rel=1e-4)
        assert losses[place].num_bytes == len(pair.text) + 1


def test_figures() -> None:
    found = figures([Loss(math.log(8), 1, 2), Loss(math.log(8), 2, 4)])
    assert found["perplexity"] == pytest.approx(4)
    assert found["bits_per_byte"] == pytest.approx(1)
    assert found["perplexity_per_byte"] == pytest.approx(2)
    assert found["bytes_per_token"] == 2


def test_logits_of_a_batch_stay_within_memory() -> None:
    assert batch_size(192, 6144) == 64
    assert batch_size(384, 50257) * 384 * 50257 * 4 <= 2**30
    assert batch_size(100_000, 100_000) == 1
