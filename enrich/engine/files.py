"""Files: what stands behind a model's name, and whether it may and can be loaded. No weights are read here.

Only safetensors are read and code that comes with a model is never run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enrich
from enrich.engine import hub
from enrich.errors import ModelError
from enrich.wishes import WISHES_FILE, Wishes, read_wishes

EMBEDDED = Path(enrich.__file__).parent / "models"
_PRESETS = Path(enrich.__file__).parent / "presets"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DEFAULT_CONTEXT = 2048  # for models that name no limit
# Each is a whole tokenizer.
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine. `revision` is the hub commit or, for a directory, a hash of its files.

    `weights` are the safetensors files, `vocabulary` the number of token ids that the model knows.
    """

    name: str
    directory: Path
    revision: str
    context: int
    vocabulary: int
    weights: tuple[Path, ...]
    has_chat_template: bool
    wishes: Wishes

    @property
    def found_at(self) -> str:
        """The name under which other processes find the model: a directory's name depends on where they run."""
        return self.name if self.name in embedded() or not Path(self.name).is_dir() else str(self.directory.resolve())

    @property
    def template(self) -> str | None:
        """The prompt template that the model wishes for, such as the one that it was trained on."""
        return self.wishes.template

    @property
    def wished(self) -> dict[str, Any]:
        """The options of a run that the model has a wish for.

        See `enrich.wishes`.
        """
        return _options(self.wishes, self.has_chat_template)


def find_model(name: str, revision: str | None = None) -> ModelFiles:
    """Find an embedded model, a preset, a directory or a hub id; a hub model that isn't on this machine is fetched.

    Raises ModelError if there is none, or if it is one that can't be loaded.
    """
    preset = read_preset(name)
    target = preset.model or name
    directory = _directory(target)
    if directory is not None:
        return read_model(name, directory, None, preset)
    try:
        directory = hub.fetch(target, revision)
    except ModelError as error:
        close = difflib.get_close_matches(target, [*embedded(), *presets()], n=1, cutoff=0.8)
        raise ModelError(f"did you mean {close[0]!r}? {error}" if close else str(error)) from error
    return read_model(name, directory, directory.name, preset)


def wishes_of(name: str, revision: str | None = None) -> tuple[Wishes, dict[str, Any]] | None:
    """Return a model's wishes and the options that follow, as far as this machine knows; None if it doesn't have it.

    Raises ModelError if the wishes can't be read.
    """
    preset = read_preset(name)
    try:
        directory = find_local(preset.model or name, revision)
    except ModelError:
        return None
    if directory is None:
        return (preset, dict(preset.options)) if preset.model else None
    wishes = preset.over(_own_wishes(name, directory))
    return wishes, _options(wishes, _has_chat_template(directory))


def find_local(name: str, revision: str | None = None) -> Path | None:
    """Return the directory of an embedded model, of one named by its path, or of a hub model that has been fetched.

    Raises ModelError for a path at which there is none.
    """
    return _directory(name) or hub.cached(name, revision)


def embedded() -> list[str]:
    """Return the names of the models that lie in the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def presets() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


def read_preset(name: str) -> Wishes:
    """Return the wishes of a preset, none for any other name."""
    return read_wishes(_PRESETS / f"{name}.toml", preset=True) if name in presets() else Wishes()


def read_model(name: str, directory: Path, revision: str | None, preset: Wishes) -> ModelFiles:
    """Read what there is to know of a model directory without its weights; a preset's wishes go before its own.

    Raises ModelError if it is no model directory, or lacks something.
    """
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if (directory / "adapter_config.json").is_file():
            raise ModelError(
                f"model {name}: {directory} holds a LoRA adapter only; merge it into its base model with peft's"
                " merge_and_unload() and save that"
            ) from error
        raise ModelError(f"model {name}: {directory} has no config.json, so it is no model directory") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name}: {directory / 'config.json'} can't be read: {error}") from error
    weights = _weights(name, directory, fetched=revision is not None)
    if not any(all((directory / file).is_file() for file in files) for files in _TOKENIZERS):
        raise ModelError(
            f"model {name}: {directory} has no tokenizer (tokenizer.json, tokenizer.model, or vocab.json and"
            " merges.txt); copy it from the model that it was made from"
        )
    text = config.get("text_config", config)
    return ModelFiles(
        name,
        directory,
        revision or _hash(directory),
        context=int(text.get("n_positions") or text.get("max_position_embeddings") or _DEFAULT_CONTEXT),
        vocabulary=int(text.get("vocab_size", 0)),
        weights=weights,
        has_chat_template=_has_chat_template(directory),
        wishes=preset.over(_own_wishes(name, directory)),
    )


def _directory(name: str) -> Path | None:
    """Return the directory that a name stands for, None if it can only be a hub id."""
    if name in embedded():
        return EMBEDDED / name
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise ModelError(f"model {name}: is a file; name the directory that holds it")
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise ModelError(f"model {name}: no such directory")
    return None


def _weights(name: str, directory: Path, *, fetched: bool) -> tuple[Path, ...]:
    """Return the safetensors files as transformers looks for them, all of which are there."""
    index = directory / "model.safetensors.index.json"
    if (directory / "model.safetensors").is_file():
        return (directory / "model.safetensors",)
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"model {name}: {index} can't be read; fetch or save the model anew") from error
        missing = [shard for shard in shards if not (directory / shard).is_file()]
        if missing:
            raise ModelError(
                f"model {name}: {directory} lacks {len(missing)} of {len(shards)} files of weights, such as"
                f" {missing[0]}; fetch or copy them"
            )
        return tuple(directory / shard for shard in shards)
    problem = f"model {name}: {directory} has no weights in model.safetensors"
    if other := sorted(path.name for path in directory.glob("*.safetensors")):
        raise ModelError(f"{problem}, only {other[0]}; name the directory of a whole model")
    if fetched or any(any(directory.glob(pattern)) for pattern in _PICKLES):
        raise ModelError(
            f"{problem}; pickled weights are not {'fetched or ' if fetched else ''}read, because they can run code:"
            " convert them once, where you trust their author, as docs/models.md says"
        )
    raise ModelError(f"{problem}; name a directory that has them")


def _own_wishes(name: str, directory: Path) -> Wishes:
    file = directory / WISHES_FILE
    if not file.is_file():
        return Wishes()
    try:
        return read_wishes(file)
    except ModelError as error:
        raise ModelError(f"model {name}: {error}") from error


def _has_chat_template(directory: Path) -> bool:
    if any((directory / file).is_file() for file in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # what is wrong with it is told when the tokenizer is loaded
    return bool(config.get("chat_template"))


def _options(wishes: Wishes, has_chat_template: bool) -> dict[str, Any]:
    # A model with a template of its own was trained on plain prompts, whatever its tokenizer has brought along.
    chat = {"chat": True} if has_chat_template and wishes.template is None else {}
    return {**chat, **wishes.options}


def _hash(directory: Path) -> str:
    """Hash what the texts depend on: weights, configuration and tokenizer, but no card or training log."""
    state = hashlib.blake2b(digest_size=16)
    names = sorted({path.name for pattern in hub.FILES for path in directory.glob(pattern)} - {"metrics.json"})
    for name in names:
        state.update(name.encode() + b"\0")
        with (directory / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                state.update(chunk)
    return state.hexdigest()
