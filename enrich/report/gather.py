"""Gathering: an output read twice in bounded memory, once to count, once for the rows that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.batch_size import rows_at_once
from enrich.generation import GENERATED, KEPT, PENDING, QUARANTINED, REUSED, SKIPPED
from enrich.output.drift import Profile
from enrich.report import histograms
from enrich.report.columns import add_up, words_in
from enrich.report.counting import Counting
from enrich.report.data import BucketUse, Count, Drift, Figure, Flag, Histogram, Quarantine, Quarantined, Report
from enrich.report.opening import BATCH_ROWS, Output
from enrich.report.showing import Shown, attempts_at
from enrich.timing.usage import read_usage

STATUSES = (GENERATED, REUSED, KEPT, QUARANTINED, SKIPPED, PENDING)


def gather(output: Output, *, before: Output | None = None, sample: int = 300, seed: int = 0) -> Report:
    """Count what is in an output and draw the rows to show.

    `before` is the output of the night before: its texts stand beside the sample's, found by product id, and its
    distribution of lengths beside tonight's. Raises CatalogError if rows can't be read.
    """
    counting = Counting(output, sample, seed)
    counting.read()
    rows = Shown(output, counting, before).rows
    attempts = attempts_at(output, {rows[ordinal].row: rows[ordinal] for ordinal in counting.quarantined.ordinals})
    summary, facts = output.facts["summary"], output.facts
    statuses = tuple(Count(name, counting.statuses[name]) for name in STATUSES if counting.statuses[name])
    texts = counting.num_texts
    words = histograms.of(counting.words)
    return Report(
        output=str(output.path),
        sentence=_sentence(facts, counting.num_rows),
        reconciliation=f"{summary['rows']:,} rows in = "
        + (" + ".join(f"{count.rows:,} {count.name}" for count in statuses) or "0"),
        reconciles=counting.num_rows == summary["rows"]
        and (summary["unchanged"] or all(counting.statuses[name] == summary.get(name, 0) for name in STATUSES)),
        rows=counting.num_rows,
        statuses=statuses,
        summary=summary,
        categories=counting.categories(),
        throughput=counting.pace.throughput(),
        buckets=_buckets(counting, facts),
        prompt_tokens=histograms.of(counting.prompt_tokens),
        generated_tokens=histograms.of(counting.generated_tokens),
        words=words,
        finish_reasons=_counts(counting.finish_reasons),
        attempts=tuple(Count(str(number), rows) for number, rows in sorted(counting.attempts.items())),
        flags=tuple(
            Flag(
                name,
                number,
                round(number / max(texts, 1), 4),
                _counts({category: n for (flag, category), n in counting.flags_by_category.items() if flag == name}),
                tuple(rows[ordinal] for ordinal in counting.flagged[name].ordinals),
            )
            for name, number in counting.flags.most_common()
        ),
        quarantine=Quarantine(
            counting.statuses[QUARANTINED],
            _counts(counting.reasons),
            tuple(Quarantined(rows[ordinal], attempts[ordinal + 1]) for ordinal in counting.quarantined.ordinals),
        ),
        drift=_drift(facts, before),
        duplicates=counting.duplicates(rows),
        sample=tuple(rows[ordinal] for ordinal in sorted((*counting.sample.ordinals, *counting.kept.ordinals))),
        sample_seed=seed,
        configuration={name: value for name, value in facts["config"].items() if value not in (None, [])},
        roles={name: value for name, value in facts["roles"].items() if value},
        model=facts.get("model", {}) | {name: facts[name] for name in ("device", "dtype") if name in facts},
        versions=facts.get("versions", {}),
        finished_at=facts.get("finished_at"),
    )


def _buckets(counting: Counting, facts: Mapping[str, Any]) -> tuple[BucketUse, ...]:
    measured = read_usage(facts.get("buckets"))
    uses = []
    for edge, (rows, prompt, new) in sorted(counting.buckets.items()):
        usage = measured.get(edge)
        speed = usage.tokens_per_second if usage else None
        slots = usage.slot_use if usage else None
        waste = usage.padding_waste if usage else None
        uses.append(
            BucketUse(
                edge, int(rows), int(prompt), int(new),
                None if waste is None else round(waste, 4),
                None if slots is None else round(slots, 4),
                None if speed is None else round(speed, 1),
            )
        )  # fmt: skip
    return tuple(uses)


def _drift(facts: Mapping[str, Any], before: Output | None) -> Drift | None:
    earlier: Mapping[str, Any] = before.facts if before else facts.get("before") or {}
    now, then = Profile.read(facts), Profile.read(earlier)
    if now is None or then is None:
        return None
    figures = tuple(Figure(name, value, now.as_dict()[name]) for name, value in then.as_dict().items())
    return Drift(
        drift=round(now.drift_from(then)[0], 4),
        before_run_id=earlier.get("summary", earlier).get("run_id"),
        before_finished_at=earlier.get("finished_at"),
        figures=figures,
        words=_words_of(before) if before else None,
    )


def _words_of(output: Output) -> Histogram:
    counts = np.zeros(0, np.int64)
    columns = [output.text_column, "generation.status"]
    for batch in output.file.iter_batches(rows_at_once(output.file, BATCH_ROWS, columns), columns=columns):
        status = batch.column("generation").field("status")
        text = batch.column(output.text_column).cast(pa.large_string())
        text = text.filter(pc.and_(pc.is_in(status, pa.array([GENERATED, REUSED])), pc.is_valid(text)))
        counts = add_up(counts, words_in(text))
    return histograms.of(counts)


def _sentence(facts: Mapping[str, Any], rows: int) -> str:
    summary, model = facts["summary"], facts.get("model", {}).get("name") or facts["config"]["model"]
    catalog = Path(facts["config"]["catalog"]).name
    made, reused = summary["generated"], summary["reused"]
    if made:
        speed = f" at {summary['tokens_per_second']:,.0f} tokens a second" if summary["tokens_per_second"] else ""
        did = f"{Path(model).name} wrote {made:,} description{'s' * (made != 1)}{speed} for {catalog}"
    else:
        did = f"Nothing was to be written for {catalog}"
    carried = f", {reused:,} were carried over from an earlier run" if reused else ""
    left = summary["quarantined"]
    failed = (
        f", and {left:,} of {rows:,} rows got no usable text" if left else ", and no row was left without a usable text"
    )
    return did + carried + failed + "."


def _counts(found: Mapping[str, int]) -> tuple[Count, ...]:
    return tuple(Count(name, rows) for name, rows in sorted(found.items(), key=lambda one: (-one[1], one[0])))
