"""Metrics of a run as a Prometheus text file, for node_exporter's textfile collector."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enrich.errors import ConfigError

_STATUSES = ("generated", "reused", "kept", "quarantined", "skipped", "pending")


def check_available() -> None:
    """Raise ConfigError if prometheus_client is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ConfigError("--metrics-file needs prometheus_client: pip install 'enrich[metrics]'") from error


def write_metrics(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a run's summary in one atomic step."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    rows = Gauge("enrich_rows", "Rows of the last run by status.", ["status"], registry=registry)
    for status in _STATUSES:
        rows.labels(status).set(summary[status])
    values = {
        "enrich_prompt_tokens": ("Prompt tokens of the rows generated.", summary["prompt_tokens"]),
        "enrich_generated_tokens": ("New tokens of the rows generated.", summary["generated_tokens"]),
        "enrich_tokens_per_second": ("Speed of generation, model loading left out.", summary["tokens_per_second"]),
        "enrich_duration_seconds": ("Length of the last run.", summary["seconds"]),
        "enrich_quarantined_ratio": (
            "Share of the rows without a usable text.",
            summary["quarantined"] / summary["rows"] if summary["rows"] else 0.0,
        ),
        "enrich_unchanged": ("1 if there was nothing to do.", float(summary["unchanged"])),
        "enrich_last_success_timestamp_seconds": ("When the last run was done, seconds since 1970.", time.time()),
    }
    for name, (meaning, value) in values.items():
        Gauge(name, meaning, registry=registry).set(value)
    write_to_textfile(str(path), registry)
