"""Loading: the device and the number format to run a model with, and its weights."""

from __future__ import annotations

from typing import Any

from enrich.engine.files import ModelFiles
from enrich.errors import ConfigError, ModelError, TryAgain, one_line


def pick_device(wanted: str) -> str:
    """Return the device to use; raises ConfigError if the one wanted isn't there."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[wanted]:
        raise ConfigError(f"device {wanted}: torch {torch.__version__} finds none here; use --device auto")
    return wanted


def pick_dtype(wanted: str, device: str) -> str:
    """Return the number format to use: 16 bits where the device computes in them natively, else float32."""
    import torch

    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device == "mps":
        return "float16"
    native: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if native.get("amx_bf16") or native.get("avx512_bf16") else "float32"


def load_model(files: ModelFiles, device: str, dtype: str) -> Any:
    """Load the weights for inference onto the device.

    Raises ModelError if they can't be loaded, or are of no causal language model; TryAgain if memory has no room for
    them.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from enrich.engine.memory import is_out_of_memory

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            files.directory,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            # The fused CPU kernel's last bits change with the number of rows; plain matrix products' do not. In other
            # formats models that have it take it by themselves.
            attn_implementation="eager" if dtype == "float32" else None,
        ).to(device)
    except Exception as error:
        if is_out_of_memory(error):
            raise TryAgain(f"model {files.name}: out of memory on {device} while it is loaded; free memory") from error
        # transformers raises many kinds; all others mean that this is no model for us.
        raise ModelError(f"model {files.name}: can't be loaded: {one_line(error)}") from error
    return model.eval()


def fuse_activations(model: Any) -> None:
    """Have a model compute GELU's tanh form in one kernel, where transformers writes it out in eight.

    In 16 bits it is nearer to the function, as nothing in between is rounded.
    """
    from torch import nn
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def take_over(model: Any, end_token_id: int | None) -> list[int]:
    """Return the ids that end a text, the model's and the tokenizer's, rising; clear the model's own sampling defaults.

    An engine draws tokens itself, and what the model would prefer must not join in.
    """
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig()
    return sorted({end for end in [*(own if isinstance(own, list) else [own]), end_token_id] if end is not None})
