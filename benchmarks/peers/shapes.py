"""Models of random weights, saved as a directory that every peer or its converter can read.

    python benchmarks/peers/shapes.py gpt2-small DIRECTORY [TOKENIZER]

The tokenizer is that of a directory, or one whose words are just numbered: prompts are made of words that are one token
each, so that a peer that is given text computes the same tokens.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)


def gpt2_small() -> Any:
    return GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None))


def llama_small() -> Any:
    """Rotary positions and grouped heads, about the size of GPT-2 small."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=None,
        )
    )  # fmt: skip


def tiny() -> Any:
    """So small that a pass through it hardly counts, with the words of home-mini."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=6144, n_positions=512, n_embd=64, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=0)
    )


SHAPES: dict[str, Callable[[], Any]] = {"gpt2-small": gpt2_small, "llama-small": llama_small, "tiny": tiny}


def numbered(size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words w0, w1, w2 and so on."""
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", eos_token="w0", bos_token="w0")


def read(directory: Path) -> Any:
    """Return the tokenizer of a directory, which may have GPT-2's vocab.json and merges.txt alone."""
    alone = not any((directory / name).exists() for name in ("config.json", "tokenizer.json", "tokenizer_config.json"))
    return (GPT2Tokenizer if alone else AutoTokenizer).from_pretrained(directory)


def save(shape: str, directory: Path, tokenizer: Path | None) -> None:
    """Write model and tokenizer; the directory is there when it is whole."""
    torch.manual_seed(0)
    model = SHAPES[shape]()
    words = read(tokenizer) if tokenizer else numbered(model.config.vocab_size)
    if len(words) > model.config.vocab_size:
        sys.exit(f"{tokenizer}: {len(words)} tokens, more than the {model.config.vocab_size} of {shape}")
    part = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    words.save_pretrained(part)
    part.rename(directory)


def word_tokens(directory: Path) -> list[int]:
    """Return the ids of a tokenizer's tokens that stand for one word each, whatever stands beside them."""
    vocabulary = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    bytewise = [
        number for word, number in vocabulary.items() if word[0] == "Ġ" and word[1:].isascii() and word[1:].isalpha()
    ]
    return sorted(bytewise or (number for number in vocabulary.values() if number))


if __name__ == "__main__":
    save(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
