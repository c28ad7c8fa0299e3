"""Small models made on the spot: random weights, real tokenizers, no download."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported anywhere
os.environ["ENRICH_RULES"] = "all=off"  # random weights write nothing that a rule would let pass

import polars as pl
import pytest
import torch
from hypothesis import settings
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from enrich import RunConfig, job

# What runs took is noted in the user's cache, where the tests' runs have no business.
_CACHE = tempfile.TemporaryDirectory(prefix="enrich-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

# CI tries the same examples every time, so that a red run means a change; elsewhere each run tries new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

END = "<|endoftext|>"
SAMPLES = Path(__file__).parent.parent / "sample_catalogs"


def make_tokenizer(vocabulary: int = 400) -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    texts = SAMPLES.joinpath("home.csv").read_text(encoding="utf-8").splitlines()
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, bos_token=END)


def save_gpt2(
    directory: Path, *, context: int = 256, width: int = 32, tokenizer: PreTrainedTokenizerFast | None = None
):
    torch.manual_seed(1)
    tokenizer = tokenizer or make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=context, n_embd=width, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, activation_function="gelu_pytorch_tanh", initializer_range=0.3,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers; large random weights, so that its choices are varied and far from ties."""
    directory = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    save_gpt2(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rotary positions and grouped heads."""
    torch.manual_seed(2)
    directory = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model: a Llama with a ChatML template and, beside END, an end of its own for a turn."""
    torch.manual_seed(3)
    directory = tmp_path_factory.mktemp("models") / "tiny-chat"
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [0, turn_end]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def enrich(tmp_path: Path, tiny_gpt2: Path) -> Callable[..., job.Summary]:
    def run(catalog: Path | pl.DataFrame, name: str = "out.parquet", **options: Any) -> job.Summary:
        should_stop = options.pop("should_stop", lambda: 0)
        if isinstance(catalog, pl.DataFrame):
            catalog.write_parquet(tmp_path / "catalog.parquet")
            catalog = tmp_path / "catalog.parquet"
        defaults = {
            "model": str(tiny_gpt2),
            "max_new_tokens": 12,
            "commit_rows": 10,
            "rules": "all=off",
            "dtype": "float32",
        }
        options = defaults | options
        return job.run(RunConfig(str(catalog), str(tmp_path / name), **options), should_stop=should_stop)

    return run
