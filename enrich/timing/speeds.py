"""Speeds: what runs on this machine took, bucket by bucket, for plans to reckon with.

One small file in the user's cache directory. It may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enrich.timing.usage import Usage, read_usage, total_usage

_MOST_KINDS = 64
_LEAST_TEXTS = 32  # fewer tell too little
_LEAST_ROWS = 16  # for a bucket's own figures
_KEPT_TEXTS = 20_000  # what is older than so many texts makes room for what is newer
log = logging.getLogger("enrich")


@dataclass(frozen=True)
class Speed:
    """What a kind of run took on this machine: each bucket, and the seconds beside generation, such as for loading."""

    by_edge: Mapping[int, Usage]
    other_seconds: float

    @property
    def total(self) -> Usage:
        """All buckets together."""
        return sum(self.by_edge.values(), Usage())

    def measured(self, edge: int) -> Usage | None:
        """Return what a bucket took, None if too few of its rows are known."""
        usage = self.by_edge.get(edge)
        return usage if usage is not None and usage.rows >= _LEAST_ROWS else None

    def seconds_of_row(self, edge: int) -> float:
        """Return the seconds that a row of a bucket takes, with all attempts at it."""
        measured, whole = self.measured(edge), self.total
        if measured is not None:
            return measured.seconds / measured.rows
        # A row costs as many positions as its prompt and text have; those measured elsewhere stand in for it.
        new = whole.generated_tokens / whole.rows
        return whole.seconds / whole.rows * (edge + new) / (whole.prefill_positions / whole.texts + new)


def kind_of_run(**settings: Any) -> str:
    """Return a name for runs that should take the same: model, device, number format, sampling and the like."""
    told = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def speeds_path() -> Path:
    """Return where the speeds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "enrich" / "speeds.json"


def read_speed(kind: str) -> Speed | None:
    """Return what such runs took here, None if there was none."""
    found = _read().get(kind)
    if not isinstance(found, dict):
        return None
    by_edge = read_usage(found.get("buckets"))
    other = found.get("other_seconds")
    speed = Speed(by_edge, float(other) if isinstance(other, int | float) else 0.0)
    whole = speed.total  # of a file that somebody else has written, any of these may be what no run has taken
    return speed if min(whole.rows, whole.texts, whole.prefill_positions, whole.seconds) > 0 else None


def note_speed(kind: str, buckets: list[dict[str, Any]], other_seconds: float) -> None:
    """Add what a run took. That it can't be written is no reason to fail: it is logged at most."""
    if sum(usage.texts for usage in read_usage(buckets).values()) < _LEAST_TEXTS:
        return
    known = _read()
    before = known.pop(kind, {})
    together = total_usage([before, {"buckets": buckets}])
    if sum(usage.texts for usage in read_usage(together).values()) > _KEPT_TEXTS:
        together = buckets
    known[kind] = {"buckets": together, "other_seconds": round(other_seconds, 3)}  # the last one is the newest
    path = speeds_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(dict(list(known.items())[-_MOST_KINDS:])), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        log.debug("%s: %s", path, error)


def _read() -> dict[str, Any]:
    try:
        value = json.loads(speeds_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home directory
        return {}
    return value if isinstance(value, dict) else {}
