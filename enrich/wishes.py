"""Wishes: how a model wants to be asked, in an `enrich.toml` beside its weights or in a preset.

    template = "{{ title }}"        # in place of the categories' own
    chat = false                    # keep to plain prompts though its tokenizer has a chat template
    continues_prompt = true         # a text is the prompt and what follows it
    max_new_tokens = 96

    [sampling]
    temperature = 0.7
    top_k = 50
    top_p = 0.9
    repetition_penalty = 1.1        # also min_p, no_repeat_ngram
    stop = ["\\n\\n"]

A preset is the same under a name of its own, with `model = "..."` for the directory or hub id that it is of.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from enrich.config import RunConfig
from enrich.errors import ConfigError, ModelError
from enrich.hints import likely

WISHES_FILE = "enrich.toml"
_OPTIONS = tuple(option.name for option in fields(RunConfig) if option.metadata.get("built_in") is not None)
_TOP = ("chat", "max_new_tokens")
_SAMPLING = tuple(name for name in _OPTIONS if name not in _TOP)


@dataclass(frozen=True)
class Wishes:
    """What a model wants of a run that says nothing else; None where it has no wish.

    `options` are those of a run that are left to the model. `continues_prompt` says that a text begins with its prompt.
    `model` is what a preset stands for.
    """

    template: str | None = None
    continues_prompt: bool | None = None
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def over(self, other: Wishes) -> Wishes:
        """Return these wishes, and the other's where there are none."""
        own = {
            name: value
            for name in ("template", "continues_prompt", "model")
            if (value := getattr(self, name)) is not None
        }
        return replace(other, **own, options={**other.options, **self.options})


def read_wishes(file: Path, *, preset: bool = False) -> Wishes:
    """Read a model's or a preset's wishes.

    Raises ModelError, naming the file, for what can't be read, for an unknown key (with the nearest right one), a wrong
    type or a value that no run could have.
    """
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelError(f"{file}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{file}: not valid TOML: {error}") from error
    sampling = data.pop("sampling", {})
    if not isinstance(sampling, dict):
        raise ModelError(f"{file}: sampling should be a table, [sampling], with {', '.join(_SAMPLING)}")
    top = ["template", "chat", "continues_prompt", "max_new_tokens", *(["model"] if preset else [])]
    _check_keys(file, data, top, "")
    _check_keys(file, sampling, _SAMPLING, "sampling.")
    for key, kind in {"template": str, "model": str, "continues_prompt": bool}.items():
        if key in data and not isinstance(data[key], kind):
            described = "text in quotes" if kind is str else "true or false"
            raise ModelError(f"{file}: {key} = {data[key]!r} should be {described}")
    options = {name: data.pop(name) for name in _TOP if name in data} | sampling
    wishes = Wishes(**data, options=options)
    if preset and wishes.model is None:
        raise ModelError(f"{file}: model is missing: the directory or hub id that the preset is of")
    try:
        RunConfig("catalog", **options)
    except ConfigError as error:
        raise ModelError(f"{file}: {error}") from error
    return wishes


def _check_keys(file: Path, table: Mapping[str, Any], known: tuple[str, ...] | list[str], prefix: str) -> None:
    elsewhere = {"max_new_tokens": "max_new_tokens above [sampling]"} if prefix else {
        name: f"{name} under [sampling]" for name in _SAMPLING
    }  # fmt: skip
    places = {name: name for name in known} | elsewhere
    for key in table:
        if key not in known:
            meant = likely(key.replace("-", "_"), places)
            hint = f"did you mean {places[meant]}?" if meant else f"it may have {', '.join(known)}"
            raise ModelError(f"{file}: unknown key {prefix + key!r}; {hint}")
