"""Publishing: the source's rows and their outcomes joined, counted, and put in the place of last night's file."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.catalog import Products
from enrich.checkpoint import WITHHELD, Checkpoint
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
from enrich.outcomes import OutcomeReader, flagged, outcome_table, read_outcomes
from enrich.output import OutputWriter, facts_or_none
from enrich.output.changes import ChangesWriter
from enrich.output.drift import Profile, Profiler
from enrich.output.quarantine import QuarantineWriter
from enrich.quality import NEAR_DUPLICATE, Duplicates
from enrich.stages.setup import Run, committed, fingerprint, stop_if_asked, was_published
from enrich.stages.survey import Survey
from enrich.stages.surveyor import DESCRIBED
from enrich.summary import Summary
from enrich.versions import versions

log = logging.getLogger("enrich")


def publish(
    run: Run, survey: Survey, checkpoint: Checkpoint, resumed: int, started: float, *, partial: bool
) -> Summary:
    """Join the source's rows with their outcomes, in order, prove that none is missing or double, and publish."""
    config = run.config
    tally = _Tally()
    joined = 0
    duplicates = Duplicates()
    with (
        OutputWriter(config.output_path, run.published_schema, config.output_column) as writer,
        _changes(run, checkpoint.run_id) as changes,
        QuarantineWriter(config.output_path, run.previous_path) as quarantine,
        closing(survey.carried.outcomes(run.carried_path)) as carried,
    ):
        made, reused = OutcomeReader(checkpoint.outcomes()), OutcomeReader(carried)
        for batch, products in run.catalog.batches():
            stop_if_asked(run, committed(checkpoint))
            end = products.first + len(batch)
            outcomes = pa.concat_tables([made.take_below(end), reused.take_below(end)])
            joined += len(outcomes)
            texts, generations = _joined(run, survey, products, outcomes, checkpoint.run_id, partial=partial)
            generations = _told_near(run, duplicates, products, texts, generations)
            listed = run.listing.add(batch, products, texts)
            changes.write(writer.write(listed, texts, generations))
            _quarantine(quarantine, products, outcomes)
            tally.add(texts, generations)
        counts = tally.counts
        expected = checkpoint.num_listed + len(survey.carried)
        if joined != expected or counts.total() != survey.rows:
            raise ReconciliationError(
                f"{config.output_path} was withheld: {survey.rows} rows in, {counts.total()} out;"
                f" {expected} outcomes, {joined} of them joined"
            )
        profile = tally.profiler.profile()
        drift, what = _drift(run, profile)
        withheld = _refusal(run, tally, drift, what, checkpoint.directory / WITHHELD)
        summary = Summary(
            rows=survey.rows,
            generated=counts[GENERATED],
            reused=counts[REUSED],
            kept=counts[KEPT],
            edited=tally.edited,
            quarantined=counts[QUARANTINED],
            skipped=counts[SKIPPED],
            pending=counts[PENDING],
            drift=None if drift is None else round(drift, 4),
            prompt_tokens=tally.prompt_tokens,
            generated_tokens=tally.generated_tokens,
            seconds=round(time.monotonic() - started, 3),
            tokens_per_second=round(run.tokens_per_second, 1),
            padding_waste=round(run.stats.padding_waste, 4),
            resumed_rows=resumed,
            retried=tally.retried,
            output=run.names(str(config.output_path)),
            run_id=checkpoint.run_id,
        )
        writer.finish(survey.rows, _facts(run, summary, profile))
        if withheld is not None:
            writer.withhold(checkpoint.directory / WITHHELD)
            quarantine.withhold(checkpoint.directory / WITHHELD)
            raise withheld
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


def _joined(
    run: Run, survey: Survey, products: Products, outcomes: pa.Table, run_id: str, *, partial: bool
) -> tuple[pa.StringArray, pa.StructArray]:
    """Return the texts and records of a batch's rows: from their outcomes, or from the catalog where they have none.

    Raises ReconciliationError if a row that should have an outcome has none, or has two.
    """
    first, end = products.first, products.first + len(products)
    kept, pending = len(outcomes), len(outcomes) + 1  # the places of two records for rows without an outcome
    places = outcomes["ordinal"].to_numpy() - first
    if len(np.unique(places)) < len(places) or (len(places) and places.min() < 0):
        raise ReconciliationError(f"{run.config.output_path} was withheld: a row has two outcomes")
    chosen = np.where(survey.is_kept[first:end], kept, pending if partial else -1)
    chosen[places] = np.arange(len(places))
    if (missing := np.flatnonzero(chosen < 0)).size:
        row = first + missing[0] + 1
        raise ReconciliationError(f"{run.config.output_path} was withheld: row {row} of the catalog has no outcome")
    bare = [Outcome(-1, None, Generation(status, run_id=run_id)) for status in (KEPT, PENDING)]
    records = pa.concat_tables([outcomes, outcome_table(bare)]).take(chosen).combine_chunks()
    texts, generations = records["text"].chunk(0), records["generation"].chunk(0)
    # Where there is no text of ours, what stands in the catalog stays: an old description is better than none.
    is_old = (chosen >= kept) | np.asarray(pc.equal(generations.field("status"), QUARANTINED))
    described = is_old & (survey.marks[first:end] & DESCRIBED > 0)
    return pc.if_else(pa.array(is_old), products.descriptions_where(described), texts), generations


def _told_near(
    run: Run, duplicates: Duplicates, products: Products, texts: pa.StringArray, generations: pa.StructArray
) -> pa.StructArray:
    """Flag those of this run's texts that are nearly the words of another product's before them."""
    made = np.flatnonzero(pc.equal(generations.field("status"), GENERATED))
    near = np.zeros(len(generations), bool)
    for place, product in zip(made.tolist(), products.at(made), strict=True):
        if run.rulebook(product).severities[NEAR_DUPLICATE]:
            near[place] = duplicates.add(product.ordinal, texts[place].as_py()) is not None
    return flagged(generations, near, NEAR_DUPLICATE)


def _quarantine(writer: QuarantineWriter, products: Products, outcomes: pa.Table) -> None:
    """List a batch's quarantined rows."""
    listed = outcomes.filter(pc.equal(pc.struct_field(outcomes["generation"], "status"), QUARANTINED))
    listed = listed.sort_by("ordinal")
    found = products.at(listed["ordinal"].to_numpy() - products.first)
    for product, outcome in zip(found, read_outcomes(listed), strict=True):
        writer.write(product, outcome)


class _Tally:
    """Counts what is published."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # for which rows are quarantined, the most frequent first
        self.profiler = Profiler()
        self.edited = self.retried = self.prompt_tokens = self.generated_tokens = 0

    def add(self, texts: pa.StringArray, generations: pa.StructArray) -> None:
        """Count some rows."""
        status = generations.field("status")
        self.counts.update({entry["values"]: entry["counts"] for entry in status.value_counts().to_pylist()})
        self.profiler.add(texts, generations)
        self.edited += pc.sum(pc.equal(generations.field("flags").flatten(), EDITED), min_count=0).as_py()
        self.reasons.update(generations.filter(pc.equal(status, QUARANTINED)).field("flags").flatten().to_pylist())
        made = generations.filter(pc.equal(status, GENERATED))
        self.retried += pc.sum(pc.greater(made.field("attempt"), 1), min_count=0).as_py()
        self.prompt_tokens += pc.sum(made.field("prompt_tokens"), min_count=0).as_py()
        self.generated_tokens += pc.sum(made.field("generated_tokens"), min_count=0).as_py()


def _drift(run: Run, profile: Profile) -> tuple[float | None, str]:
    """Compare with the output that is there: how far apart they are, None if there is none, and in what."""
    before = Profile.read(facts_or_none(run.config.published_path))
    return (None, "") if before is None else profile.drift_from(before)


def _refusal(
    run: Run, tally: _Tally, drift: float | None, what: str, withheld: Path
) -> TooManyQuarantined | TooMuchDrift | None:
    """Return why the output must not be published, if a limit says so; `withheld` is where it is to be seen then."""
    config, rows, unusable = run.config, tally.counts.total(), tally.counts[QUARANTINED]
    look = f"look at it with `enrich report {withheld}`, and raise the limit to publish it"
    if unusable > config.most_quarantined(rows):
        reasons = ", ".join(f"{name} {count:,}" for name, count in tally.reasons.most_common(3))
        return TooManyQuarantined(
            f"{config.output_path} was withheld: {unusable:,} of {rows:,} rows have no usable text ({reasons}), more"
            f" than --max-quarantined {config.max_quarantined}; {look}"
        )
    if drift is not None and config.max_drift is not None and drift > config.max_drift:
        return TooMuchDrift(
            f"{config.output_path} was withheld: {what}, a drift of {drift:.2f}, more than --max-drift"
            f" {config.max_drift}; {look}"
        )
    return None


def _before(run: Run) -> dict[str, Any] | None:
    """Return what a report needs of the output that is there, to say how far the texts have moved."""
    facts = facts_or_none(run.config.published_path)
    if Profile.read(facts) is None:
        return None
    run_id = facts.get("summary", {}).get("run_id")
    return {"run_id": run_id, "finished_at": facts.get("finished_at"), "profile": facts["profile"]}


def _changes(run: Run, run_id: str) -> ChangesWriter:
    config = run.config
    path = Path(config.changes) if config.changes else None
    if path is not None and was_published(run, run_id):
        path = None  # killed since; against its own output there would be none
    return ChangesWriter(path, run.previous_path, run.published_schema, run.catalog.roles.id, config.output_column)


def _facts(run: Run, summary: Summary, profile: Profile) -> dict[str, Any]:
    """Return what is true of the whole run, for the output's metadata."""
    config = run.config
    return {
        "summary": asdict(summary),
        "profile": profile.as_dict(),
        "fingerprint": fingerprint(run),
        "shard": config.shard,
        "config": run.names.of_all(config.as_dict()),
        "roles": asdict(run.catalog.roles),
        "catalog": {"content": run.catalog.identity, "columns": len(run.catalog.schema)},
        "model": {"name": run.files.name, "revision": run.files.revision, "context": run.files.context},
        "device": run.device,
        "dtype": run.dtype,
        "decode_waste": round(run.stats.decode_waste, 4),
        "buckets": run.meter.as_list(),
        "before": _before(run),
        "versions": versions(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
