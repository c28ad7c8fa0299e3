"""Metrics of a run as a Prometheus text file, for node_exporter's textfile collector.

There is one after every run, however it ended, so that an alert can be set on the exit code as well as on the time
since the last success. What only a run that published can tell stays as the last of these has told it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enrich.errors import ConfigError

_STATUSES = ("generated", "reused", "kept", "quarantined", "skipped", "pending")
_MEANINGS = {
    "enrich_exit_code": "Exit code of the last run.",
    "enrich_success": "1 if the last run published all rows or found nothing changed, 0 if not.",
    "enrich_duration_seconds": "Length of the last run.",
    "enrich_last_run_timestamp_seconds": "When the last run ended, seconds since 1970.",
    "enrich_last_success_timestamp_seconds": "When a run last succeeded, seconds since 1970; 0 if none has.",
    "enrich_rows": "Rows by status when a run last published or found nothing changed.",
    "enrich_prompt_tokens": "Prompt tokens of the rows generated.",
    "enrich_generated_tokens": "New tokens of the rows generated.",
    "enrich_tokens_per_second": "Speed of generation, model loading left out.",
    "enrich_quarantined_ratio": "Share of the rows without a usable text.",
    "enrich_unchanged": "1 if there was nothing to do.",
}


def check_available() -> None:
    """Raise ConfigError if prometheus_client is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ConfigError("--metrics-file needs prometheus_client: pip install 'enrich[metrics]'") from error


def write_metrics(
    path: Path, *, exit_code: int, succeeded: bool, seconds: float, summary: Mapping[str, Any] | None
) -> None:
    """Write what is known of a run in one atomic step; `summary` is None if it has published nothing."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    now = time.time()
    values = {("enrich_last_success_timestamp_seconds", ""): 0.0} | _read(path)
    values["enrich_exit_code", ""] = exit_code
    values["enrich_success", ""] = succeeded
    values["enrich_duration_seconds", ""] = seconds
    values["enrich_last_run_timestamp_seconds", ""] = now
    if succeeded:
        values["enrich_last_success_timestamp_seconds", ""] = now
    if summary is not None:
        values |= {("enrich_rows", status): summary[status] for status in _STATUSES}
        for name in ("prompt_tokens", "generated_tokens", "tokens_per_second", "unchanged"):
            values[f"enrich_{name}", ""] = summary[name]
        values["enrich_quarantined_ratio", ""] = summary["quarantined"] / max(summary["rows"], 1)
    registry = CollectorRegistry()
    gauges = {
        name: Gauge(name, meaning, ["status"] if name == "enrich_rows" else [], registry=registry)
        for name, meaning in _MEANINGS.items()
        if any(known == name for known, _ in values)
    }
    for (name, status), value in values.items():
        gauge = gauges[name].labels(status) if name == "enrich_rows" else gauges[name]
        gauge.set(float(value))
    write_to_textfile(str(path), registry)


def _read(path: Path) -> dict[tuple[str, str], float]:
    """Return our values in a metrics file by name and status; none if there is no such file, or another kind of one."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
    samples = (sample for family in families for sample in family.samples if sample.name in _MEANINGS)
    return {(sample.name, sample.labels.get("status", "")): sample.value for sample in samples}
