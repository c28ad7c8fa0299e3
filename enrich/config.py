"""Options of a run, declared once: the command line, the TOML file and the library all read this table."""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from enrich.errors import ConfigError

DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")


def _option(
    default: Any, help: str, *, flags: tuple[str, ...] = (), text: bool = False, choices: tuple[str, ...] = ()
) -> Any:
    """Declare an option. `text` marks those on which the generated texts depend: a checkpoint is bound to them."""
    return field(default=default, metadata={"help": help, "flags": flags, "text": text, "choices": choices})


@dataclass(frozen=True)
class RunConfig:
    """What `run` is to do. Valid once built: raises ConfigError otherwise."""

    catalog: str = field(metadata={})
    output: str | None = _option(
        None, "Where to write the enriched Parquet file.  [default: CATALOG's stem + .enriched.parquet]", flags=("-o",)
    )
    model: str = _option("home-mini", "Embedded model name, model directory or hub id.", text=True)
    revision: str | None = _option(None, "Branch, tag or commit of a hub model.", text=True)
    template: str | None = _option(
        None, "Jinja2 file to render prompts with, in place of the categories' own.", text=True
    )
    max_new_tokens: int = _option(128, "Longest text to generate, in tokens.", text=True)
    temperature: float = _option(0.4, "Sampling temperature; 0 picks the likeliest token always.", text=True)
    top_k: int = _option(50, "Sample from the k likeliest tokens; 0 from all.", text=True)
    top_p: float = _option(0.9, "Sample from the likeliest tokens that together have this probability.", text=True)
    repetition_penalty: float = _option(
        1.1, "Divide the scores of tokens the text already has by this; the prompt's own tokens are free.", text=True
    )
    seed: int = _option(0, "Another seed, other texts.", text=True)
    overwrite: bool = _option(False, "Write new texts in place of existing descriptions too.", text=True)
    output_column: str = _option("description", "Column that receives the texts.", text=True)
    limit: int | None = _option(None, "Read only the first N rows; the output has no others.", text=True)
    id_column: str | None = _option(None, "Column with the product's id ('' for none).", text=True)
    title_column: str | None = _option(None, "Column with the product's title.", text=True)
    category_column: str | None = _option(None, "Column with the category or its path ('' for none).", text=True)
    description_column: str | None = _option(None, "Column with existing descriptions ('' for none).", text=True)
    attributes: tuple[str, ...] | None = _option(
        None, "Columns to state in the prompt, comma-separated, in this order ('' for none).", text=True
    )
    delimiter: str | None = _option(None, "CSV delimiter.  [default: found]", text=True)
    encoding: str | None = _option(None, "CSV encoding.  [default: UTF-8, else cp1252]", text=True)
    device: str = _option("auto", "Where to run the model.", choices=DEVICES)
    dtype: str = _option("auto", "Number format of the weights; auto: bfloat16 where it is fast.", choices=DTYPES)
    batch_size: int = _option(64, "Rows generated at once; halved by itself when memory runs out.")
    batch_tokens: int = _option(65536, "Most tokens, prompts and new ones, in a batch.")
    commit_rows: int = _option(256, "Rows after which finished texts are committed to the checkpoint.")
    commit_seconds: float = _option(30.0, "Seconds after which finished texts are committed to the checkpoint.")
    restart: bool = _option(False, "Drop an earlier run's checkpoint and begin anew.")

    def __post_init__(self) -> None:
        for option in fields(self):
            self._normalize(option.name, str(option.type))
        self._check(bool(self.catalog), "catalog", "is missing")
        self._check(bool(Path(self.catalog).name), "catalog", "must name a file")
        self._check(self.max_new_tokens >= 1, "max_new_tokens", "must be at least 1")
        self._check(0 <= self.temperature < math.inf, "temperature", "must be 0 or more, and finite")
        self._check(self.top_k >= 0, "top_k", "must be 0 (off) or more")
        self._check(0 < self.top_p <= 1, "top_p", "must be above 0 and at most 1")
        self._check(0 < self.repetition_penalty < math.inf, "repetition_penalty", "must be above 0 (1 is off)")
        self._check(0 <= self.seed < 2**63, "seed", "must be from 0 to 2^63 - 1")
        self._check(self.limit is None or self.limit >= 1, "limit", "must be at least 1")
        self._check(self.batch_size >= 1, "batch_size", "must be at least 1")
        self._check(self.batch_tokens >= 1, "batch_tokens", "must be at least 1")
        self._check(self.commit_rows >= 1, "commit_rows", "must be at least 1")
        self._check(0 <= self.commit_seconds < math.inf, "commit_seconds", "must be 0 or more, and finite")
        self._check(self.device in DEVICES, "device", f"must be one of {', '.join(DEVICES)}")
        self._check(self.dtype in DTYPES, "dtype", f"must be one of {', '.join(DTYPES)}")
        self._check(self.delimiter is None or len(self.delimiter) == 1, "delimiter", "must be one character")
        self._check(
            self.output_column not in ("", "generation"), "output_column", "must be a name other than 'generation'"
        )
        self._check(
            self.output_path.suffix.lower() in (".parquet", ".pq"),
            "output",
            "must end in .parquet: the output is Parquet",
        )
        self._check(
            self.output_path.resolve() != Path(self.catalog).resolve(), "output", "must not be the catalog itself"
        )

    def _normalize(self, name: str, wanted: str) -> None:
        """Bring an option to its declared type: keys and checkpoints must not tell a temperature of 1 from 1.0."""
        value = getattr(self, name)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if wanted.startswith("tuple") and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        self._check(_fits(value, wanted), name, f"should be {_described(wanted)}")
        if wanted == "float":
            try:
                value = float(value)
            except OverflowError:
                value = math.inf  # as TOML's own 1e400; the rules refuse it
        self._check(not isinstance(value, str) or "\0" not in value, name, "must not hold a NUL character")
        object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)

    def _check(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{name} = {getattr(self, name)!r}: {rule}")

    @property
    def output_path(self) -> Path:
        """Where the enriched file goes, the default beside the catalog."""
        if self.output is not None:
            return Path(self.output)
        catalog = Path(self.catalog)
        stem = catalog.name
        while Path(stem).suffix.lower() in (".gz", ".zst", ".zstd"):
            stem = Path(stem).stem
        return catalog.with_name(Path(stem).stem + ".enriched.parquet")

    def text_options(self) -> dict[str, Any]:
        """Return the options on which the generated texts depend."""
        return {
            option.name: _plain(getattr(self, option.name)) for option in fields(self) if option.metadata.get("text")
        }

    def as_dict(self) -> dict[str, Any]:
        """Return every option, in JSON's types."""
        return {option.name: _plain(getattr(self, option.name)) for option in fields(self)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def build_config(catalog: str, file: Path | None, flags: Mapping[str, Any]) -> RunConfig:
    """Join a TOML file's options and those given on the command line; the latter win.

    Raises ConfigError for an unknown key (with the nearest right one), a wrong type, or a value out of range.
    """
    values = _read_toml(file) if file else {}
    values |= {name: value for name, value in flags.items() if value is not None}
    return RunConfig(catalog=catalog, **values)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    options = {option.name: option for option in fields(RunConfig) if option.name != "catalog"}
    values: dict[str, Any] = {}
    for name, value in data.items():
        key = name.replace("-", "_")
        if key not in options:
            close = difflib.get_close_matches(key, options, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see `enrich run --help`"
            if key == "catalog":
                hint = "name the catalog on the command line"
            raise ConfigError(f"{file}: unknown option {name!r}; {hint}")
        wanted = str(options[key].type)
        if not _fits(value, wanted):
            raise ConfigError(f"{file}: {name} = {value!r} should be {_described(wanted)}")
        if key in values:
            raise ConfigError(f"{file}: {key} is given twice, with a dash and with an underscore")
        values[key] = value
    return values


def _fits(value: Any, wanted: str) -> bool:
    """Tell whether a value can stand for a type: a whole number for any number, text or a list for a tuple."""
    if value is None:
        return "None" in wanted
    if isinstance(value, bool):
        return wanted == "bool"
    if isinstance(value, (list, tuple)):
        return wanted.startswith("tuple") and all(isinstance(item, str) for item in value)
    if isinstance(value, str):
        return "str" in wanted
    if isinstance(value, int):
        return "int" in wanted or "float" in wanted
    return isinstance(value, float) and "float" in wanted


def _described(wanted: str) -> str:
    kind = wanted.split(" | ")[0].split("[")[0]
    return {
        "str": "text in quotes",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "tuple": "a list of names",
    }[kind]
