"""Publishing: the source's rows and their outcomes joined, counted, and put in the place of last night's file."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter, deque
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import enrich
from enrich.changes import ChangesWriter
from enrich.checkpoint import Checkpoint
from enrich.drift import Profile, Profiler
from enrich.errors import ReconciliationError, TooManyQuarantined, TooMuchDrift
from enrich.generation import (
    EDITED,
    GENERATED,
    KEPT,
    PENDING,
    QUARANTINED,
    REUSED,
    SKIPPED,
    Generation,
    Outcome,
)
from enrich.output import OutputWriter, facts_or_none
from enrich.quarantine import QuarantineWriter
from enrich.stages.setup import Run, committed, fingerprint, stop_if_asked
from enrich.stages.survey import Survey
from enrich.summary import Summary

log = logging.getLogger("enrich")


def publish(
    run: Run, survey: Survey, checkpoint: Checkpoint, resumed: int, started: float, *, partial: bool
) -> Summary:
    """Join the source's rows with their outcomes, in order, prove that none is missing or double, and publish."""
    config = run.config
    counts: Counter[str] = Counter()
    profiler = Profiler()
    edited = retried = prompt_tokens = generated_tokens = joined = 0
    # The catalog is read once: where a batch begins and ends is told to both readers of outcomes as it comes by.
    spans: deque[tuple[int, int]] = deque()
    done = checkpoint.outcomes(iter(spans.popleft, None))
    scratch = config.output_path.with_name(f".{config.output_path.name}.carried")
    carried = survey.carried.outcomes(iter(spans.popleft, None), scratch)
    first = 0
    with (
        OutputWriter(config.output_path, run.catalog.schema, config.output_column) as writer,
        _changes(run) as changes,
        QuarantineWriter(config.output_path, run.previous_path) as quarantine,
    ):
        for batch, products in run.catalog.batches():
            stop_if_asked(run, committed(checkpoint))
            spans.extend([(first, first + len(batch))] * 2)
            first += len(batch)
            new, old = next(done), next(carried)
            outcomes = new | old
            texts, generations = [], []
            for product in products:
                outcome = outcomes.get(product.ordinal)
                if outcome is None and run.is_kept(product):
                    outcome = Outcome(product.ordinal, product.description, Generation(KEPT, run_id=checkpoint.run_id))
                elif outcome is None and partial:
                    waiting = Generation(PENDING, run_id=checkpoint.run_id)
                    outcome = Outcome(product.ordinal, product.description or None, waiting)
                elif outcome is None:
                    raise ReconciliationError(
                        f"{config.output_path} was withheld: row {product.ordinal + 1} of the catalog has no outcome"
                    )
                unusable = outcome.generation.status == QUARANTINED
                if unusable:
                    quarantine.write(product, outcome)
                texts.append(product.description or None if unusable else outcome.text)
                generations.append(outcome.generation)
            changes.write(writer.write(batch, texts, generations))
            for text, generation in zip(texts, generations, strict=True):
                profiler.add(text, generation)
            joined += len(new) + len(old)
            counts.update(generation.status for generation in generations)
            edited += sum(EDITED in generation.flags for generation in generations)
            made = [generation for generation in generations if generation.status == GENERATED]
            retried += sum((generation.attempt or 1) > 1 for generation in made)
            prompt_tokens += sum(generation.prompt_tokens or 0 for generation in made)
            generated_tokens += sum(generation.generated_tokens or 0 for generation in made)
        expected = checkpoint.num_listed + len(survey.carried)
        if joined != expected or counts.total() != survey.rows:
            raise ReconciliationError(
                f"{config.output_path} was withheld: {survey.rows} rows in, {counts.total()} out;"
                f" {expected} outcomes, {joined} of them joined"
            )
        if counts[QUARANTINED] > config.most_quarantined(survey.rows):
            raise TooManyQuarantined(
                f"{config.output_path} was withheld: {counts[QUARANTINED]:,} of {survey.rows:,} rows have no usable"
                f" text, more than --max-quarantined {config.max_quarantined}; raise it to publish what there is"
            )
        profile = profiler.profile()
        drift = _check_drift(run, profile)
        summary = Summary(
            rows=survey.rows,
            generated=counts[GENERATED],
            reused=counts[REUSED],
            kept=counts[KEPT],
            edited=edited,
            quarantined=counts[QUARANTINED],
            skipped=counts[SKIPPED],
            pending=counts[PENDING],
            drift=drift,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
            seconds=round(time.monotonic() - started, 3),
            tokens_per_second=round(run.tokens_per_second, 1),
            padding_waste=round(run.stats.padding_waste, 4),
            resumed_rows=resumed,
            retried=retried,
            output=str(config.output_path),
            run_id=checkpoint.run_id,
        )
        writer.finish(survey.rows, _facts(run, summary, profile))
        same_rules = facts_or_none(config.published_path).get("fingerprint", {}).get("rules") == run.rules_digest
        if not config.shard and not summary.generated and same_rules and writer.is_as_published():
            log.info("unchanged: %s has the same rows and texts already", config.output_path)
            summary = replace(summary, unchanged=True)
        # Changes first: after a kill in between, the next run writes both again. The other way round it would find
        # nothing changed, and they would be lost.
        changes.publish()
        quarantine.publish()
        if not summary.unchanged:
            writer.publish()
    return summary


def _check_drift(run: Run, profile: Profile) -> float | None:
    """Compare with the output that is there. Raises TooMuchDrift."""
    config = run.config
    before = Profile.read(facts_or_none(config.published_path))
    if before is None:
        return None
    drift, what = profile.drift_from(before)
    if config.max_drift is not None and drift > config.max_drift:
        raise TooMuchDrift(
            f"{config.output_path} was withheld: {what}, a drift of {drift:.2f}, more than --max-drift"
            f" {config.max_drift}; raise it to publish"
        )
    return round(drift, 4)


def _changes(run: Run) -> ChangesWriter:
    config = run.config
    before = Path(config.previous) if config.previous else config.published_path
    path = Path(config.changes) if config.changes else None
    return ChangesWriter(path, before, run.catalog.schema, run.catalog.roles.id, config.output_column)


def _facts(run: Run, summary: Summary, profile: Profile) -> dict[str, Any]:
    """Return what is true of the whole run, for the output's metadata."""
    config = run.config
    versions = {name: metadata.version(name) for name in ("polars", "pyarrow", "torch", "transformers")}
    return {
        "summary": asdict(summary),
        "profile": profile.as_dict(),
        "fingerprint": fingerprint(run),
        "shard": config.shard,
        "config": config.as_dict(),
        "roles": asdict(run.catalog.roles),
        "catalog": {"content": run.catalog.identity, "columns": len(run.catalog.schema)},
        "model": {"name": run.files.name, "revision": run.files.revision, "context": run.files.context},
        "device": run.device,
        "dtype": run.dtype,
        "decode_waste": round(run.stats.decode_waste, 4),
        "versions": {"enrich": enrich.__version__, "python": platform.python_version(), **versions},
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
