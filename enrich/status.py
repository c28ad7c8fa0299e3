"""The state of an output from outside: running, interrupted or published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enrich.checkpoint import PROGRESS, last_commit
from enrich.durable import behind_links
from enrich.errors import CatalogError
from enrich.lock import holder, is_held
from enrich.output import facts_or_none

RUNNING, INTERRUPTED, PUBLISHED = "running", "interrupted", "published"


@dataclass(frozen=True)
class Status:
    """What is known of an output's run. Times are ISO 8601; fields that do not apply are None."""

    output: str
    state: str
    holder: str | None
    rows: int | None
    done: int | None
    tokens_per_second: float | None
    seconds_left: int | None
    last_commit: str | None
    published_at: str | None
    published_rows: int | None


def read_status(output: Path) -> Status:
    """Read the state of an output. Raises CatalogError if there is neither the file nor a checkpoint of it."""
    output = behind_links(output)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    running = is_held(output)
    # The second is what a run whose catalog has changed takes over, before it has a checkpoint of its own.
    begun = checkpoint.is_dir() or output.with_name(f"{output.name}.checkpoint.old").is_dir()
    if not (running or begun or output.is_file()):
        raise CatalogError(f"{output}: neither published nor begun")
    progress = _read_json(checkpoint / PROGRESS)
    committed = last_commit(checkpoint)
    facts = facts_or_none(output)
    return Status(
        output=str(output),
        state=RUNNING if running else INTERRUPTED if begun else PUBLISHED,
        holder=str(holder(output)) if running and holder(output) else None,
        rows=progress.get("rows"),
        done=progress.get("done"),
        tokens_per_second=progress.get("tokens_per_second"),
        seconds_left=progress.get("seconds_left") if running else None,
        last_commit=datetime.fromtimestamp(committed, UTC).isoformat(timespec="seconds") if committed else None,
        published_at=facts.get("finished_at"),
        published_rows=facts.get("summary", {}).get("rows"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
