"""The state of an output from outside: running, interrupted or published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.checkpoint import MANIFEST, PROGRESS, last_commit, rows_listed
from enrich.errors import CatalogError
from enrich.output import facts_of, facts_or_none
from enrich.staging import CHECKPOINT, LEFT_BEHIND
from enrich.storage import lease
from enrich.storage.durable import behind_links
from enrich.storage.lock import holder, is_held
from enrich.storage.remote import Remote
from enrich.storage.url import Url

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
    progress = _as_dict(_read(checkpoint / PROGRESS))
    committed = last_commit(checkpoint)
    facts = facts_or_none(output)
    return Status(
        output=str(output),
        state=RUNNING if running else INTERRUPTED if begun else PUBLISHED,
        holder=str(holder(output)) if running and holder(output) else None,
        rows=progress.get("rows"),
        done=_done(progress, _read(checkpoint / MANIFEST)),
        tokens_per_second=progress.get("tokens_per_second"),
        seconds_left=progress.get("seconds_left") if running else None,
        last_commit=datetime.fromtimestamp(committed, UTC).isoformat(timespec="seconds") if committed else None,
        published_at=facts.get("finished_at"),
        published_rows=facts.get("summary", {}).get("rows"),
    )


def read_remote_status(output: str) -> Status:
    """Read the state of an output in remote storage.

    Raises CatalogError if there is neither the object nor a checkpoint of it, and what `enrich.storage.remote` raises.
    """
    url, remote = Url.parse(output), Remote()
    directory = url.with_suffix(CHECKPOINT)
    entries = remote.below(directory)
    begun = any(entry.url == directory / MANIFEST for entry in entries) or bool(
        remote.below(url.with_suffix(LEFT_BEHIND))
    )
    by = lease.holder(remote, url)
    found = remote.open(url)
    if not (by or begun or found):
        raise CatalogError(f"{url}: neither published nor begun")
    try:
        facts = facts_of(pq.ParquetFile(found)) if found else {}
    except (OSError, ValueError, pa.ArrowException):
        facts = {}
    told, manifest = remote.read(directory / PROGRESS), remote.read(directory / MANIFEST)
    progress = _as_dict(told[0]) if told else {}
    committed = max((entry.last_modified for entry in entries if entry.url.key.endswith(".parquet")), default=None)
    return Status(
        output=str(url),
        state=RUNNING if by else INTERRUPTED if begun else PUBLISHED,
        holder=str(by) if by else None,
        rows=progress.get("rows"),
        done=_done(progress, manifest[0] if manifest else b""),
        tokens_per_second=progress.get("tokens_per_second"),
        seconds_left=progress.get("seconds_left") if by else None,
        last_commit=committed.isoformat(timespec="seconds") if committed else None,
        published_at=facts.get("finished_at"),
        published_rows=facts.get("summary", {}).get("rows"),
    )


def _done(progress: dict[str, Any], manifest: bytes) -> int | None:
    """Return how many rows are done: at least those committed, of which a killed run may have told nothing."""
    told = progress.get("done")
    return max(told, rows_listed(manifest, MANIFEST)) if isinstance(told, int) else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _as_dict(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
