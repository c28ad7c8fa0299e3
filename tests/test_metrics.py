from __future__ import annotations

import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from enrich.metrics import write_metrics

SUMMARY = {
    "rows": 10, "generated": 6, "reused": 1, "kept": 1, "quarantined": 2, "skipped": 0, "pending": 0,
    "prompt_tokens": 60, "generated_tokens": 120, "tokens_per_second": 55.5, "unchanged": False,
}  # fmt: skip


def read(path: Path) -> dict[str, float]:
    families = text_string_to_metric_families(path.read_text())
    return {
        sample.name + sample.labels.get("status", ""): sample.value for family in families for sample in family.samples
    }


def test_a_failure_leaves_what_was_published_and_the_time_of_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "enrich.prom"
    write_metrics(path, exit_code=0, succeeded=True, seconds=3.0, summary=SUMMARY)
    good = read(path)
    assert good["enrich_exit_code"] == 0
    assert good["enrich_success"] == 1
    assert good["enrich_rowsgenerated"] == 6
    assert good["enrich_quarantined_ratio"] == 0.2
    assert good["enrich_last_success_timestamp_seconds"] == pytest.approx(time.time(), abs=60)
    write_metrics(path, exit_code=3, succeeded=False, seconds=1.0, summary=None)
    bad = read(path)
    assert {name for name in good if good[name] != bad[name]} == {
        "enrich_exit_code", "enrich_success", "enrich_duration_seconds", "enrich_last_run_timestamp_seconds",
    }  # fmt: skip
    assert (bad["enrich_exit_code"], bad["enrich_success"], bad["enrich_duration_seconds"]) == (3, 0, 1)
    write_metrics(path, exit_code=75, succeeded=False, seconds=1.0, summary=SUMMARY | {"pending": 4})
    assert read(path)["enrich_rowspending"] == 4
    assert read(path)["enrich_last_success_timestamp_seconds"] == good["enrich_last_success_timestamp_seconds"]
    assert [found.name for found in tmp_path.iterdir()] == ["enrich.prom"]


@pytest.mark.parametrize("before", [None, "", "no metrics at all {", "enrich_strange 1\nother_metric 2\n"])
def test_a_first_failure_tells_that_none_has_succeeded(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "enrich.prom"
    if before is not None:
        path.write_text(before)
    write_metrics(path, exit_code=2, succeeded=False, seconds=0.1, summary=None)
    found = read(path)
    assert found["enrich_last_success_timestamp_seconds"] == 0
    assert found["enrich_exit_code"] == 2
    assert not any(name.startswith(("enrich_rows", "enrich_strange", "other")) for name in found)
