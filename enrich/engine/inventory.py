"""The inventory: the models that a run can name, and what is known of them without loading one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from enrich.engine import hub
from enrich.engine.files import EMBEDDED, ModelFiles, embedded, find_local, presets, read_model, read_preset
from enrich.errors import ModelError
from enrich.wishes import Wishes

_WRITES_TEXT = re.compile(r"ForCausalLM$|LMHeadModel$")


@dataclass(frozen=True)
class ModelEntry:
    """A model that a run can name; None for what isn't known, because its files aren't on this machine or are damaged.

    `source` is `embedded`, `preset` or `hub cache`, `kind` is `base` or `chat`. `parameters` and `mib` are those of its
    safetensors files, `context` is in tokens. `fetch` is the command that brings the files here, `problem` why a run
    would refuse them.
    """

    name: str
    source: str
    kind: str | None = None
    parameters: int | None = None
    mib: float | None = None
    context: int | None = None
    path: str | None = None
    revision: str | None = None
    fetch: str | None = None
    problem: str | None = None


def list_models() -> list[ModelEntry]:
    """List the embedded models, the presets, and the models for text in this machine's hub cache."""
    return [*map(_embedded, embedded()), *map(_preset, presets()), *_cached()]


def _embedded(name: str) -> ModelEntry:
    return _described(name, "embedded", EMBEDDED / name, None, Wishes())


def _preset(name: str) -> ModelEntry:
    preset = read_preset(name)
    assert preset.model is not None
    try:
        directory = find_local(preset.model)
    except ModelError as error:
        return ModelEntry(name, "preset", problem=str(error))
    if directory is None:
        return ModelEntry(name, "preset", fetch=hub.download_command(preset.model))
    return _described(name, "preset", directory, directory.name, preset)


def _cached() -> Iterator[ModelEntry]:
    for snapshot in hub.snapshots():
        if _is_for_text(snapshot.directory):
            yield _described(snapshot.name, "hub cache", snapshot.directory, snapshot.revision, Wishes())


def _is_for_text(directory: Path) -> bool:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        return any(map(_WRITES_TEXT.search, config.get("architectures") or ()))
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _described(name: str, source: str, directory: Path, revision: str | None, preset: Wishes) -> ModelEntry:
    try:
        files = read_model(name, directory, revision, preset)
        return ModelEntry(
            name,
            source,
            kind="chat" if files.wished.get("chat") else "base",
            parameters=_parameters(files),
            mib=round(sum(path.stat().st_size for path in files.weights) / 2**20, 1),
            context=files.context,
            path=str(directory),
            revision=files.revision,
        )
    except ModelError as error:
        return ModelEntry(name, source, path=str(directory), revision=revision, problem=str(error))


def _parameters(files: ModelFiles) -> int:
    """Count the numbers in the weights by the files' headers, tied ones once."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in files.weights:
        try:
            with safe_open(path, framework="numpy") as tensors:
                total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"model {files.name}: {path} is no whole safetensors file: {error}") from error
    return total


def as_table(entries: Sequence[ModelEntry]) -> str:
    """Lay the models out in lines: what each is, then where it is or what to do."""
    rows: list[tuple[str, ...]] = [("name", "kind", "parameters", "MiB", "context", "where")]
    for entry in entries:
        cells = (entry.name, entry.kind, _million(entry.parameters), entry.mib, entry.context)
        rows.append((*("-" if cell is None else str(cell) for cell in cells), _where(entry)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for name, kind, *numbers, where in rows:
        right = (number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), kind.ljust(widths[1]), *right, where]))
    return "\n".join(lines)


def _million(number: int | None) -> str | None:
    if number is None:
        return None
    return f"{number / 1e9:,.1f} B" if number >= 1e9 else f"{number / 1e6:,.1f} M"


def _where(entry: ModelEntry) -> str:
    if entry.problem:
        return f"{entry.source}: {entry.problem}"
    if entry.path is None:
        return f"{entry.source}, not on this machine; fetch it: {entry.fetch}"
    return f"{entry.source}: {entry.path}"


def as_json(entries: Sequence[ModelEntry]) -> str:
    """Write the models as one JSON list."""
    return json.dumps([asdict(entry) for entry in entries], ensure_ascii=False)
