from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from enrich import RunConfig, job
from enrich.errors import CatalogError, CheckpointMismatch, Interrupted
from enrich.plan import Plan, PlannedBucket, as_table, estimate
from enrich.timing.speeds import Speed, note_speed, read_speed, speeds_path
from enrich.timing.usage import Usage

SAMPLES = Path(__file__).parent.parent / "sample_catalogs"


def catalog() -> pl.DataFrame:
    frame = pl.read_parquet(SAMPLES / "home.parquet").head(40)
    return frame.with_columns(
        description=pl.Series(["Words."] * 5 + [None] * 35), title=pl.Series([*frame["title"][:38], None, None])
    )


@pytest.fixture
def config(tmp_path: Path, tiny_gpt2: Path) -> Callable[..., RunConfig]:
    catalog().write_parquet(tmp_path / "catalog.parquet")

    def make(**options: Any) -> RunConfig:
        options = {"model": str(tiny_gpt2), "max_new_tokens": 12, "rules": "all=off", "device": "cpu"} | options
        return RunConfig(str(tmp_path / "catalog.parquet"), str(tmp_path / "out.parquet"), **options)

    return make


def total(plan: Plan) -> int:
    return plan.pending + plan.done + plan.reused + plan.kept + plan.skipped + sum(plan.unusable.values())


def test_what_is_planned_is_what_is_done(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    plan = job.foresee(config())
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "out.parquet.checkpoint").exists()
    summary = job.run(config())
    assert (plan.rows, plan.kept, plan.unusable) == (40, 5, {"no_title": 2})
    assert plan.pending == summary.generated + summary.quarantined - 2
    assert plan.prompt_tokens == summary.prompt_tokens
    # At most so much: on a CPU this model's prompts are computed without padding, filled up to whole tiles alone.
    assert 0 <= summary.padding_waste <= plan.padding_waste
    assert sum(bucket.rows for bucket in plan.buckets) == sum(one.pending for one in plan.categories) == plan.pending
    assert total(plan) == 40
    assert len(plan.prompts) == 3


def test_the_padding_planned_is_what_a_padding_engine_has(
    config: Callable[..., RunConfig], tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.engine.continuous.forward_of", lambda _, **__: None)  # ours computes none
    options = {"model": str(tiny_llama), "dtype": "float32"}
    assert job.foresee(config(**options)).padding_waste == pytest.approx(
        job.run(config(**options)).padding_waste, abs=0.02
    )


def test_a_second_plan_finds_what_was_published(config: Callable[..., RunConfig]) -> None:
    job.run(config())
    plan = job.foresee(config())
    assert (plan.pending, plan.reused, total(plan)) == (0, 33, 40)
    assert job.foresee(config(fresh=True)).pending == 33


def test_rules_that_have_changed_lose_no_row(config: Callable[..., RunConfig]) -> None:
    job.run(config())
    assert total(job.foresee(config(rules="min_words=1,max_words=400"))) == 40


def test_a_run_that_was_broken_off_is_seen_and_left_alone(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    asked = iter(range(10_000))
    with pytest.raises(Interrupted):
        job.run(config(batch_size=4, commit_rows=4), should_stop=lambda: 15 if next(asked) > 30 else 0)
    manifest = (tmp_path / "out.parquet.checkpoint" / "manifest.jsonl").read_bytes()
    plan = job.foresee(config())
    assert plan.done > 0
    assert total(plan) == 40
    assert (tmp_path / "out.parquet.checkpoint" / "manifest.jsonl").read_bytes() == manifest
    with pytest.raises(CheckpointMismatch, match="seed"):
        job.foresee(config(seed=4))
    assert job.foresee(config(seed=4, restart=True)).done == 0


def test_what_a_run_refuses_is_refused(config: Callable[..., RunConfig]) -> None:
    with pytest.raises(CatalogError, match="did you mean 'title'"):
        job.foresee(config(title_column="titel"))


def test_time_and_tokens_are_unknown_until_a_run_has_measured_them(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unknown = job.foresee(config(), 1.0)
    assert (unknown.estimate.new_tokens, unknown.estimate.seconds, unknown.estimate.cost) == (None, None, None)
    assert "unknown" in as_table(unknown, 1.0)
    summary = job.run(config())
    known = job.foresee(config(fresh=True), 3_600.0)
    assert known.estimate.new_tokens == pytest.approx(summary.generated_tokens, rel=0.2)
    assert known.estimate.seconds is not None
    assert known.estimate.cost == pytest.approx(known.estimate.seconds, abs=0.06)
    assert job.foresee(config(fresh=True, max_new_tokens=13)).estimate.seconds is None


def test_an_estimate_adds_up_the_buckets_and_stands_in_for_those_not_measured() -> None:
    speed = Speed({32: Usage(100, 150, 4_800, 4_800, 6_000, 9_000, 50.0)}, 5.0)
    planned = (PlannedBucket(32, 200, 6_000, 0.06, 4), PlannedBucket(128, 10, 1_200, 0.06, 1))
    found = estimate(planned, speed, 36.0)
    assert found.new_tokens == 200 * 60 + 10 * 60
    assert found.attempts == 1.5
    assert found.seconds == pytest.approx(5 + 200 * 0.5 + 10 * 0.5 * (128 + 60) / (32 + 60), abs=0.1)
    assert found.cost == pytest.approx(found.seconds / 100, rel=0.01)


def test_speeds_that_cannot_be_read_or_written_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    usage = {"edge": 32, "rows": 40, "texts": 40, "prompt_tokens": 1, "prefill_positions": 1} | {
        "generated_tokens": 400, "decode_positions": 500, "seconds": 4.0,
    }  # fmt: skip
    note_speed("a", [usage | {"texts": 3}], 1.0)
    assert read_speed("a") is None
    note_speed("a", [usage], 1.0)
    note_speed("a", [usage], 2.0)
    found = read_speed("a")
    assert found is not None
    assert (found.total.rows, found.other_seconds) == (80, 2.0)
    for text in ("no json", "[]", '{"a": 3}', '{"a": {"buckets": [{"edge": "x"}]}}'):
        speeds_path().write_text(text)
        assert read_speed("a") is None
    speeds_path().unlink()
    speeds_path().mkdir()
    note_speed("a", [usage], 1.0)
