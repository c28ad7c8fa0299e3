"""Options of a run, declared once: the command line, the TOML file and the library all read this table."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from enrich.errors import ConfigError
from enrich.hints import did_you_mean
from enrich.shard import Shard
from enrich.storage.durable import behind_links
from enrich.storage.url import Url, is_remote, is_url
from enrich.timing.clock import seconds_of, seconds_until

_QUARANTINED = re.compile(r"\d+|(100|\d{1,2})(\.\d+)?%")
DTYPES = ("auto", "float32", "bfloat16", "float16")
CHANNELS = ("amazon", "google", "shopify")
# What may be in remote storage.
_PLACES = ("catalog", "output", "previous", "changes", "report")
DEVICES = ("auto", "cpu", "cuda", "mps")


def _option(
    default: Any,
    help: str,
    *,
    flags: tuple[str, ...] = (),
    text: bool = False,
    choices: tuple[str, ...] = (),
    built_in: Any = None,
) -> Any:
    """Declare an option. `text` marks those on which the generated texts depend: a checkpoint is bound to them.

    `built_in` is the value of an option that was left to the model (None) and that the model leaves open.
    """
    metadata = {"help": help, "flags": flags, "text": text, "choices": choices, "built_in": built_in}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunConfig:
    """What `run` is to do. Valid once built: raises ConfigError otherwise.

    Options that the model may have a wish for are None unless they are given; see `completed`.
    """

    catalog: str = field(metadata={})
    output: str | None = _option(
        None, "Where to write the enriched Parquet file.  [default: CATALOG's stem + .enriched.parquet]", flags=("-o",)
    )
    model: str = _option("home-mini", "Embedded model, preset, directory or hub id; see `enrich models`.", text=True)
    revision: str | None = _option(None, "Branch, tag or commit of a hub model.", text=True)
    template: str | None = _option(
        None, "Jinja2 file to render prompts with, in place of the categories' own.", text=True
    )
    categories: str | None = _option(
        None, "Directory of category files, over and beside the built-in ones (see `enrich categories`).", text=True
    )
    chat: bool | None = _option(
        None,
        "Put prompts through the model's chat template, or don't.  [default: where the model has one]",
        text=True,
        built_in=False,
    )
    max_new_tokens: int | None = _option(None, "Longest text to generate, in tokens.", text=True, built_in=128)
    temperature: float | None = _option(
        None, "Sampling temperature; 0 picks the likeliest token always.", text=True, built_in=0.4
    )
    top_k: int | None = _option(None, "Sample from the k likeliest tokens; 0 from all.", text=True, built_in=50)
    top_p: float | None = _option(
        None, "Sample from the likeliest tokens that together have this probability.", text=True, built_in=0.9
    )
    repetition_penalty: float | None = _option(
        None,
        "Divide the scores of tokens the text already has by this; the prompt's own tokens are free.",
        text=True,
        built_in=1.1,
    )
    min_p: float | None = _option(
        None, "Leave out tokens less likely than this share of the likeliest; 0: off.", text=True, built_in=0.0
    )
    no_repeat_ngram: int | None = _option(
        None, "Never write so many tokens in a row that the text has already; 0: off.", text=True, built_in=0
    )
    stop: tuple[str, ...] | None = _option(
        None, r"Strings at which a text ends, comma-separated, such as '\n\n,###'.", text=True, built_in=()
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
    rules: tuple[str, ...] | None = _option(
        None,
        "Limits and severities of the rules for texts, such as max_words=80,shouting=flag (see `enrich rules`).",
        text=True,
    )
    max_attempts: int = _option(3, "Times that a text is generated until it breaks no rule of weight.", text=True)
    strict_facts: bool = _option(
        False, "Generate a text again also if it says what its row merely does not state.", text=True
    )
    grounded: bool = _option(
        False, "Never draw digits that the row does not have, or banned words, rather than try again.", text=True
    )
    seo: bool = _option(
        False, "Add meta_title, meta_description, keywords, slug and readability; needs the extra `seo`.", text=True
    )
    channels: tuple[str, ...] | None = _option(
        None, "Add what these ask for, and keep to their limits: amazon, google, shopify.", text=True
    )
    device: str = _option("auto", "Where to run the model.", choices=DEVICES)
    dtype: str = _option("auto", "Number format of the weights; auto: bfloat16 where it is fast.", choices=DTYPES)
    deterministic: bool = _option(
        False, "The same bytes whatever --batch-size, on a GPU too: float32, rows computed in one fixed number."
    )
    batch_size: int = _option(256, "Rows generated at once; fewer by itself where more would not fit or not pay.")
    batch_tokens: int = _option(65536, "Most tokens, prompts and new ones, in a batch.")
    workers: int | None = _option(
        None, "Generate in so many Ray actors, one for each GPU or share of the CPU; needs the extra `ray`."
    )
    ray: str | None = _option(
        None, "Ray cluster to generate on, such as 10.0.0.5:6379 or auto.  [--workers: one for each of its GPUs]"
    )
    commit_rows: int = _option(256, "Rows after which finished texts are committed to the checkpoint.")
    commit_seconds: float = _option(30.0, "Seconds after which finished texts are committed to the checkpoint.")
    restart: bool = _option(False, "Drop an earlier run's checkpoint and begin anew.")
    previous: str | None = _option(None, "Enriched file to reuse texts from.  [default: the output that is there]")
    fresh: bool = _option(False, "Reuse no text of an earlier run.")
    changes: str | None = _option(
        None, "Parquet file to write the rows to that are new, have another text, or are gone since."
    )
    max_time: str | None = _option(None, "Stop in time to be done after so long (2h, 90m); a rerun goes on.")
    deadline: str | None = _option(None, "Stop in time to be done when clocks show this (05:30); a rerun goes on.")
    publish_partial: bool = _option(False, "When time is up, publish what there is; the rest is `pending`.")
    max_quarantined: str = _option("50%", "Most rows, or share of them, without a usable text; more are not published.")
    max_drift: float | None = _option(
        None, "Largest change from the last output's texts, such as 0.2; more is not published (docs/operations.md)."
    )
    shard: str | None = _option(None, "Do one shard only, such as 2/3, and write it beside OUTPUT for `enrich merge`.")
    metrics_file: str | None = _option(
        None, "File for node_exporter to collect, such as enrich.prom; needs the extra `metrics`."
    )
    report: str | None = _option(
        None, "HTML file to write a report on the output to; needs the extra `report`.  See `enrich report`."
    )
    work_dir: str | None = _option(
        None,
        "Directory for the local copies of what is in remote storage.  [default: the system's for temporary files]",
    )
    exit_code_unchanged: int = _option(0, "Exit code if nothing had changed since the last run (99 is Airflow's skip).")

    def __post_init__(self) -> None:
        for option in fields(self):
            self._normalize(option.name, str(option.type))
        self._check(bool(self.catalog), "catalog", "is missing")
        self._check(bool(Path(self.catalog).name), "catalog", "must name a file")
        self._check_urls()
        self._check(_unset_or(self.max_new_tokens, lambda n: n >= 1), "max_new_tokens", "must be at least 1")
        self._check(
            _unset_or(self.temperature, lambda t: 0 <= t < math.inf), "temperature", "must be 0 or more, and finite"
        )
        self._check(_unset_or(self.top_k, lambda k: k >= 0), "top_k", "must be 0 (off) or more")
        self._check(_unset_or(self.top_p, lambda p: 0 < p <= 1), "top_p", "must be above 0 and at most 1")
        self._check(
            _unset_or(self.repetition_penalty, lambda r: 0 < r < math.inf),
            "repetition_penalty",
            "must be above 0 (1 is off)",
        )
        self._check(_unset_or(self.min_p, lambda p: 0 <= p < 1), "min_p", "must be 0 (off) or more, and below 1")
        self._check(_unset_or(self.no_repeat_ngram, lambda n: n >= 0), "no_repeat_ngram", "must be 0 (off) or more")
        self._check(1 <= self.max_attempts <= 99, "max_attempts", "must be from 1 to 99")
        for setting in self.rules or ():
            self._check("=" in setting, "rules", f"{setting!r} should be a name and a value, such as max_words=80")
        for name in self.channels or ():
            self._check(name in CHANNELS, "channels", f"{name!r} is not one of {', '.join(CHANNELS)}")
        self._check(0 <= self.seed < 2**63, "seed", "must be from 0 to 2^63 - 1")
        self._check(self.limit is None or self.limit >= 1, "limit", "must be at least 1")
        self._check(self.batch_size >= 1, "batch_size", "must be at least 1")
        self._check(self.batch_tokens >= 1, "batch_tokens", "must be at least 1")
        self._check(self.workers is None or self.workers >= 1, "workers", "must be at least 1")
        self._check(self.ray is None or bool(self.ray.strip()), "ray", "must be an address, or auto")
        self._check(self.commit_rows >= 1, "commit_rows", "must be at least 1")
        self._check(0 <= self.commit_seconds < math.inf, "commit_seconds", "must be 0 or more, and finite")
        self._check(0 <= self.exit_code_unchanged <= 255, "exit_code_unchanged", "must be from 0 to 255")
        self._check(self.max_drift is None or self.max_drift >= 0, "max_drift", "must be 0 or more")
        self._check(bool(_QUARANTINED.fullmatch(self.max_quarantined)), "max_quarantined", "must be like 25 or 2%")
        readers = {"max_time": self._max_seconds, "deadline": self._deadline_seconds, "shard": self.which_shard}
        for name, read in readers.items():
            try:
                read()
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error
        self._check(
            not self.publish_partial or self.seconds_left() is not None,
            "publish_partial",
            "needs --max-time or --deadline",
        )
        self._check(not (self.fresh and self.previous), "fresh", "leaves out what --previous names; give one of them")
        self._check(
            self.changes is None or Path(self.changes).suffix.lower() in (".parquet", ".pq"),
            "changes",
            "must end in .parquet",
        )
        self._check(
            self.changes is None or not _is_same(self.changes, self.published_path), "changes", "must not be the output"
        )
        self._check(
            self.report is None or Path(self.report).suffix.lower() in (".html", ".htm"), "report", "must end in .html"
        )
        self._check(self.device in DEVICES, "device", f"must be one of {', '.join(DEVICES)}")
        self._check(self.dtype in DTYPES, "dtype", f"must be one of {', '.join(DTYPES)}")
        narrow = self.deterministic and self.dtype not in ("auto", "float32")
        self._check(not narrow, "dtype", "can't be narrower than float32 with --deterministic; leave one of them out")
        self._check(self.delimiter is None or len(self.delimiter) == 1, "delimiter", "must be one character")
        self._check(
            self.output_column not in ("", "generation"), "output_column", "must be a name other than 'generation'"
        )
        self._check(
            self._named_output.suffix.lower() in (".parquet", ".pq"),
            "output",
            "must end in .parquet: the output is Parquet",
        )
        written = {"output": self.published_path} | {
            name: getattr(self, name) for name in ("changes", "report", "metrics_file")
        }
        for name, path in written.items():
            self._check(path is None or not _is_same(path, self.catalog), name, "must not be the catalog itself")
        self._check(not self.published_path.is_dir(), "output", f"{self.published_path} is a directory; name a file")
        self._check(not self.published_path.is_symlink(), "output", "is a symbolic link that leads nowhere")

    def _normalize(self, name: str, wanted: str) -> None:
        """Bring an option to its declared type: keys and checkpoints must not tell a temperature of 1 from 1.0."""
        value = getattr(self, name)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if wanted.startswith("tuple") and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        self._check(_fits(value, wanted), name, f"should be {_described(wanted)}")
        if wanted.startswith("float") and value is not None:
            try:
                value = float(value)
            except OverflowError:
                value = math.inf  # as TOML's own 1e400; the rules refuse it
        for text in value if isinstance(value, list) else [value]:
            self._check(not isinstance(text, str) or "\0" not in text, name, "must not hold a NUL character")
            self._check(
                not isinstance(text, str) or _is_unicode(text), name, "must be UTF-8; rename it if it is a file"
            )
        object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)

    def _check_urls(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if not isinstance(value, str) or not is_url(value):
                continue
            if option.name in _PLACES:
                try:
                    Url.parse(value)
                except ConfigError as error:
                    raise ConfigError(f"{option.name}: {error}") from None
            else:
                local = option.name in ("template", "categories", "metrics_file", "model", "work_dir")
                self._check(not local, option.name, "must be on this machine")
        # Changes are published before the output that they lead to, or a kill in between would lose them.
        told_last = is_remote(self.changes) and not is_remote(self.places()["output"])
        self._check(not told_last, "changes", "must be on this machine if the output is")
        self._check(not (self.shard and self.is_remote), "shard", "works on local files only, not on remote storage")

    def _check(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{name} = {getattr(self, name)!r}: {rule}")

    def which_shard(self) -> Shard | None:
        """Return the shard to do, if not the whole."""
        return Shard.parse(self.shard) if self.shard else None

    @property
    def output_path(self) -> Path:
        """Where this run writes: the enriched file, or its shard of it."""
        shard = self.which_shard()
        return shard.path(self.published_path) if shard else self.published_path

    @property
    def published_path(self) -> Path:
        """Where the enriched file goes, the default beside the catalog; where that is a link, what the link names."""
        return behind_links(self._named_output)

    @property
    def is_remote(self) -> bool:
        """Whether some of it is in remote storage, so that a run needs local copies (see `enrich.staging`)."""
        return any(is_remote(value) for value in self.places().values())

    def places(self) -> dict[str, str | None]:
        """Return what is read and written, by option, each as it was given; the output also if it was not."""
        return {name: getattr(self, name) for name in _PLACES} | {"output": self._output_as_told}

    @property
    def _named_output(self) -> Path:
        return Path(self._output_as_told)

    @property
    def _output_as_told(self) -> str:
        if self.output is not None:
            return self.output
        stem = Path(self.catalog).name
        while Path(stem).suffix.lower() in (".gz", ".zst", ".zstd"):
            stem = Path(stem).stem
        name = Path(stem).stem + ".enriched.parquet"
        return str(
            Url.parse(self.catalog).with_name(name) if is_remote(self.catalog) else Path(self.catalog).with_name(name)
        )

    def _max_seconds(self) -> float | None:
        return seconds_of(self.max_time) if self.max_time else None

    def _deadline_seconds(self) -> float | None:
        return seconds_until(self.deadline, datetime.now()) if self.deadline else None

    def seconds_left(self) -> float | None:
        """Return how long the run may still take if it begins now; None if there is no end."""
        ends = [seconds for seconds in (self._max_seconds(), self._deadline_seconds()) if seconds is not None]
        return min(ends, default=None)

    @property
    def uses_workers(self) -> bool:
        """Whether rows are generated in other processes, through Ray."""
        return self.workers is not None or self.ray is not None

    def most_quarantined(self, rows: int) -> int:
        """Return how many of so many rows may be quarantined."""
        number = float(self.max_quarantined.removesuffix("%"))
        return int(rows * number / 100) if self.max_quarantined.endswith("%") else int(number)

    def completed(self, wished: Mapping[str, Any]) -> RunConfig:
        """Return the same with what was not given as the model wishes it, or else as is built in."""
        return replace(self, **{name: value for name, (value, _) in self.left_open(wished).items()})

    def left_open(self, wished: Mapping[str, Any]) -> dict[str, tuple[Any, bool]]:
        """Return the options left to the model: their values, and whether they are its wish or built in."""
        return {
            option.name: (wished.get(option.name, built_in), option.name in wished)
            for option in fields(self)
            if (built_in := option.metadata.get("built_in")) is not None and getattr(self, option.name) is None
        }

    def sampling(self) -> dict[str, Any]:
        """Return how tokens are to be drawn, of a configuration that is completed."""
        drawn = {
            option.name: (getattr(self, option.name), built_in)
            for option in fields(self)
            if (built_in := option.metadata.get("built_in")) is not None and option.name != "chat"
        }
        drawn["stop"] = (tuple(one.replace(r"\n", "\n").replace(r"\t", "\t") for one in self.stop or ()), ())
        # What is off is left out: a version that has a way more of drawing tokens still reuses the texts of the last.
        return {name: value for name, (value, built_in) in drawn.items() if value or built_in}

    def rule_settings(self) -> dict[str, str]:
        """Return what `rules` sets, by name."""
        split = (setting.partition("=") for setting in self.rules or ())
        return {name.strip().replace("-", "_"): value.strip() for name, _, value in split}

    def text_options(self) -> dict[str, Any]:
        """Return the options on which the generated texts depend."""
        return {
            option.name: _plain(getattr(self, option.name)) for option in fields(self) if option.metadata.get("text")
        }

    def as_dict(self) -> dict[str, Any]:
        """Return every option, in JSON's types."""
        return {option.name: _plain(getattr(self, option.name)) for option in fields(self)}


def _is_same(one: str | Path, other: str | Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_unicode(text: str) -> bool:
    """Say whether a text can be written as UTF-8; a file's name that can't comes with lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unset_or(value: Any, rule: Callable[[Any], bool]) -> bool:
    return value is None or rule(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def build_config(catalog: str, file: Path | None, given: Mapping[str, Any]) -> RunConfig:
    """Join a TOML file's options and those given otherwise, of which None stands for not given; the latter win.

    Without `file`, an `enrich.toml` beside the catalog is read. Raises ConfigError for an unknown key (with the nearest
    right one), a wrong type, or a value out of range.
    """
    file = file or find_config(catalog)
    values = read_config(file) if file else {}
    values |= {name: value for name, value in given.items() if value is not None}
    return RunConfig(catalog=catalog, **values)


def find_config(catalog: str) -> Path | None:
    """Return the `enrich.toml` beside a catalog, if there is one."""
    beside = Path(catalog).with_name("enrich.toml") if Path(catalog).name else None
    return beside if beside and beside.is_file() else None


def as_toml(name: str, value: Any) -> str:
    """Write an option as a line of TOML; one that is not set as a comment."""
    if value is None:
        return f"# {name} is not set"
    if isinstance(value, bool):
        return f"{name} = {str(value).lower()}"
    # JSON's strings, numbers and lists of strings are TOML's.
    return f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)}"


def read_config(file: Path) -> dict[str, Any]:
    """Read the options of a TOML file. Raises ConfigError for an unknown key or a wrong type."""
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
            hint = did_you_mean(key, options, "see `enrich run --help`")
            if key == "catalog":
                hint = "name the catalog on the command line"
            raise ConfigError(f"{file}: unknown option {name!r}; {hint}")
        wanted = str(options[key].type)
        if key == "rules" and isinstance(value, dict):
            value = [f"{rule}={_setting(set_to)}" for rule, set_to in value.items()]
        if not _fits(value, wanted):
            raise ConfigError(f"{file}: {name} = {value!r} should be {_described(wanted)}")
        if key in values:
            raise ConfigError(f"{file}: {key} is given twice, with a dash and with an underscore")
        values[key] = value
    return values


def _setting(value: Any) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def _fits(value: Any, wanted: str) -> bool:
    """Tell whether a value can stand for a type: a whole number for any number, text or a list for a tuple."""
    if value is None:
        return "None" in wanted
    if isinstance(value, bool):
        return wanted.startswith("bool")
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
