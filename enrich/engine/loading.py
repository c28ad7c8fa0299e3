"""Loading: where a model lies, whether it may be loaded, and its tokenizer and weights.

Only safetensors are read and code that comes with a model is never run.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enrich
from enrich.errors import ConfigError, ModelError

EMBEDDED = Path(enrich.__file__).parent / "models"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "enrich.toml")
_WISHES = "enrich.toml"  # how a model wants to be asked
_DEFAULT_CONTEXT = 2048  # for models that name no limit


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine. `revision` is the hub commit or, for a directory, a hash of its files.

    `template` is the prompt template that the model was trained on, if its `enrich.toml` has one.
    """

    name: str
    directory: Path
    revision: str
    context: int
    vocabulary: int
    template: str | None = None


def find_model(name: str, revision: str | None = None) -> ModelFiles:
    """Find an embedded model, a directory or a hub id; a hub model that isn't on this machine is fetched.

    Raises ModelError if there is none, or if it has no safetensors weights.
    """
    if (EMBEDDED / name / "config.json").is_file() and re.fullmatch(r"[\w-]+", name):
        return _read(name, EMBEDDED / name, None)
    if Path(name).is_dir():
        return _read(name, Path(name), None)
    if Path(name).exists():
        raise ModelError(f"model {name}: is a file; name the directory that holds it")
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise ModelError(f"model {name}: no such directory")
    directory = _fetch(name, revision)
    return _read(name, directory, directory.name)


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    embedded = ", ".join(sorted(path.name for path in EMBEDDED.iterdir() if path.is_dir()))
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except RepositoryNotFoundError as error:
        raise ModelError(f"model {name}: neither a directory nor on the hub; embedded: {embedded}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"model {name}: not on this machine, and the hub can't be reached; fetch it where it can with"
            f" `hf download {name}`, or name a directory; embedded: {embedded}"
        ) from error


def _read(name: str, directory: Path, revision: str | None) -> ModelFiles:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"model {name}: {directory} has no config.json, so it is no model directory") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name}: {directory / 'config.json'} can't be read: {error}") from error
    if not any(directory.glob("*.safetensors")):
        pickled = (
            " (pickled weights are not read: they can run code; convert them)" if any(directory.glob("*.bin")) else ""
        )
        raise ModelError(f"model {name}: {directory} has no *.safetensors weights{pickled}")
    config = config.get("text_config", config)
    context = config.get("n_positions") or config.get("max_position_embeddings") or _DEFAULT_CONTEXT
    vocabulary = int(config.get("vocab_size", 0))
    return ModelFiles(
        name, directory, revision or _hash(directory), int(context), vocabulary, _read_template(name, directory)
    )


def _read_template(name: str, directory: Path) -> str | None:
    file = directory / _WISHES
    if not file.is_file():
        return None
    try:
        wishes = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name}: {file} can't be read: {error}") from error
    template = wishes.pop("template", None)
    if wishes or not isinstance(template, str):
        raise ModelError(f"model {name}: {file} may hold a template, as text, and nothing else")
    return template


def _hash(directory: Path) -> str:
    """Hash what the texts depend on: weights, configuration and tokenizer, but no card or training log."""
    state = hashlib.blake2b(digest_size=16)
    names = sorted({path.name for pattern in _FILES for path in directory.glob(pattern)} - {"metrics.json"})
    for name in names:
        state.update(name.encode() + b"\0")
        with (directory / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                state.update(chunk)
    return state.hexdigest()


class Tokenizer:
    """A model's tokenizer. Special tokens in texts are read as the characters they are made of."""

    def __init__(self, files: ModelFiles) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(files.directory, trust_remote_code=False)
        except Exception as error:  # transformers raises many kinds; all mean that these files are no tokenizer
            raise ModelError(f"model {files.name}: its tokenizer can't be loaded: {_one_line(error)}") from error
        if files.vocabulary and len(self._tokenizer) > files.vocabulary:
            raise ModelError(
                f"model {files.name}: its tokenizer has {len(self._tokenizer)} tokens where the model knows"
                f" {files.vocabulary}: they do not belong together"
            )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode prompts, with what the model wants before them (a beginning-of-text token, or nothing)."""
        if not texts:
            return []
        # Lone surrogates, which JSON can carry, are no Unicode text.
        plain = [text.encode("utf-8", "replace").decode() for text in texts]
        ids: list[list[int]] = self._tokenizer(plain, split_special_tokens=True, truncation=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode generated ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text

    @property
    def end_token_id(self) -> int | None:
        """Return the end-of-text token's id."""
        end: int | None = self._tokenizer.eos_token_id
        return end


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

    Raises ModelError if they can't be loaded, or are of no causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            files.directory,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            # The fused CPU kernel's last bits change with the number of rows; plain matrix products' do not.
            attn_implementation="eager" if dtype == "float32" else "sdpa",
        )
    except Exception as error:  # transformers raises many kinds; all mean that this is no model for us
        raise ModelError(f"model {files.name}: can't be loaded: {_one_line(error)}") from error
    return model.to(device).eval()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
