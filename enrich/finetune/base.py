"""The base: the model and the tokenizer that a training begins with, made from scratch or taken from another."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from enrich.engine.files import ModelFiles
from enrich.engine.tokenizer import Tokenizer
from enrich.errors import ConfigError, ModelError

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Size:
    """Shape of a GPT-2 made from scratch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int


SIZES = {
    "mini": Size(layers=8, width=256, heads=4, vocabulary=6144, context=512),  # 8 M parameters
    "small": Size(layers=8, width=512, heads=8, vocabulary=16384, context=1024),  # 34 M
    "gpt2": Size(layers=12, width=768, heads=12, vocabulary=32768, context=1024),  # 111 M: GPT-2 small, fewer tokens
    "test": Size(layers=2, width=64, heads=2, vocabulary=512, context=128),
}


def make_tokenizer(texts: Iterable[str], size: Size) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, GPT-2's kind, on the texts."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=size.vocabulary, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        model_max_length=size.context,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, size: Size, dropout: float) -> GPT2LMHeadModel:
    """Make a GPT-2 with random weights for this tokenizer.

    `dropout` is that of the residual stream and the embeddings; that of attention would cost its fused kernel.
    """
    end = tokenizer.eos_token_id
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            # The same function as GPT-2's gelu_new, in one kernel: a third faster to train on a CPU.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
        )
    )


def load_tokenizer(files: ModelFiles) -> Any:
    """Load a model's tokenizer; raises ModelError if it is none, not the model's, or has no end-of-text token."""
    Tokenizer(files)  # its checks
    tokenizer = AutoTokenizer.from_pretrained(files.directory, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model {files.name}: its tokenizer has no end-of-text token, so it could not learn to stop; name one as"
            " eos_token in its tokenizer_config.json"
        )
    return tokenizer


def load_base(files: ModelFiles) -> Any:
    """Load a model's weights to train on; raises ModelError if they are of no causal language model."""
    try:
        return AutoModelForCausalLM.from_pretrained(
            files.directory, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds; all mean that this is no model for us
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"model {files.name}: can't be loaded: {reason}") from error


def check_lora() -> None:
    """Raise ConfigError if what LoRA needs is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("--lora needs the package peft: pip install 'enrich[train]'")


def with_lora(model: Any, rank: int, dropout: float) -> Any:
    """Freeze the weights and put adapters of this rank on all linear layers (Hu et al. 2021)."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2's layers
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=dropout,
        target_modules="all-linear",
        fan_in_fan_out=transposed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to peft, nothing to users of either
        return get_peft_model(model, config)


def save(model: Any, tokenizer: Any, directory: Path) -> None:
    """Write weights (bf16 safetensors), configuration and tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
