"""Foresight: the stages of a run up to generation, on paper: nothing is written and no weights are loaded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from enrich import __version__, buckets
from enrich.checkpoint import Checkpoint
from enrich.generation import QUARANTINED, Outcome
from enrich.plan import Plan, PlannedBucket, PlannedCategory, PlannedPrompt, estimate
from enrich.stages.judging import judge_again
from enrich.stages.setup import CHECKPOINT, Run, fingerprint
from enrich.stages.survey import survey_catalog
from enrich.stages.windows import Row, plan_windows
from enrich.timing.speeds import kind_of_run, read_speed

_PROMPTS = 3
_LONGEST_PROMPT = 2_000  # characters shown


class _OnPaper(Checkpoint):
    """A checkpoint that only counts what it is given."""

    flags: Counter[str]

    def add(self, outcome: Outcome) -> None:
        generation = outcome.generation
        self.flags[generation.flags[0] if generation.status == QUARANTINED else generation.status] += 1

    def commit(self) -> None:
        """Write nothing."""


def foresee(run: Run, price_per_hour: float | None) -> Plan:
    """Say what a run would do. Raises what the run would raise before it loads its model."""
    checkpoint = _open(run)
    checkpoint.flags = Counter()
    survey = judge_again(run, survey_catalog(run, checkpoint), checkpoint)
    judged = checkpoint.flags.total()  # carried over too, with other flags
    checkpoint.flags.clear()
    lengths = np.zeros(run.longest_prompt + 1, np.int64)
    categories: Counter[str] = Counter()
    shortened = pending = 0
    shown: list[Row] = []
    for window in plan_windows(run, survey, checkpoint):
        rows = window.rows
        lengths += np.bincount([len(row.prompt.token_ids) for row in rows], minlength=len(lengths))
        categories.update(run.categories.of(row.prompt.product).name for row in rows)
        shortened += sum(bool(row.prompt.dropped) for row in rows)
        shown += _spread(rows) if not pending else []
        pending += len(rows)
        for outcome in window.settled:
            checkpoint.add(outcome)
    planned = _buckets(run, lengths)
    prompt_tokens = int((lengths * np.arange(len(lengths))).sum())
    positions = sum(bucket.edge * bucket.rows for bucket in planned)
    skipped = checkpoint.flags.pop("skipped", 0)
    roles = run.catalog.roles
    pairs = [value for _, value in roles.attribute_pairs]
    return Plan(
        catalog=run.names(run.config.catalog),
        output=run.names(str(run.config.output_path)),
        model=run.files.name,
        columns={
            "id": [roles.id] if roles.id else [],
            **({"variants": [roles.group]} if roles.group else {}),
            "title": [roles.title],
            "category": [name for name in (roles.category, roles.general_category) if name],
            "description": [roles.description] if roles.description else [],
            "attributes": [*roles.attributes, *pairs],
        },
        rows=survey.rows,
        pending=pending,
        done=int(checkpoint.done_mask(survey.rows).sum()),
        reused=len(survey.carried) + judged,
        kept=int(survey.is_kept.sum()),
        skipped=skipped,
        unusable=dict(checkpoint.flags.most_common()),
        shortened=shortened,
        categories=tuple(PlannedCategory(name, count) for name, count in categories.most_common()),
        buckets=planned,
        prompt_tokens=prompt_tokens,
        padding_waste=round(1 - prompt_tokens / positions, 4) if positions else 0.0,
        most_new_tokens=pending * run.params.max_new_tokens,
        estimate=estimate(planned, read_speed(speed_kind(run)), price_per_hour),
        prompts=tuple(
            PlannedPrompt(
                row.ordinal + 1, row.prompt.product.title, len(row.prompt.token_ids), row.prompt.text[:_LONGEST_PROMPT]
            )
            for row in shown
        ),
    )


def speed_kind(run: Run) -> str:
    """Return the name under which the speeds of such runs are kept."""
    config = run.config
    workers = {"workers": config.workers, "ray": config.ray} if config.uses_workers else {}
    return kind_of_run(
        version=__version__, model=run.files.revision, device=run.device, dtype=run.dtype, grounded=config.grounded,
        batch_size=config.batch_size, batch_tokens=config.batch_tokens, attempts=config.max_attempts,
        rules=config.rules, strict=config.strict_facts, **config.sampling(), **workers,
    )  # fmt: skip


def _open(run: Run) -> _OnPaper:
    """Open the checkpoint of a run that was broken off, if this one would go on from there, without touching it."""
    directory = run.beside_output(CHECKPOINT)
    bound_to = fingerprint(run) | {"dtype": run.dtype}
    manifest = directory / "manifest.jsonl"
    if run.config.restart or not manifest.is_file() or _differing(manifest, bound_to) == {"catalog content"}:
        return _OnPaper(directory, "", run.config.commit_rows, run.config.commit_seconds, bound_to)
    return _OnPaper.open(directory, bound_to, run_id="")  # type: ignore[return-value]


def _differing(manifest: Path, bound_to: dict[str, object]) -> set[str]:
    """Return what differs in a checkpoint's fingerprint; after a change of the catalog its texts are found by key."""
    try:
        with manifest.open(encoding="utf-8") as file:
            found = json.loads(file.readline())["fingerprint"]
        return {name for name in found.keys() | bound_to.keys() if found.get(name) != bound_to.get(name)}
    except (OSError, ValueError, KeyError, AttributeError):
        return set()


def _spread(rows: list[Row]) -> list[Row]:
    count = min(_PROMPTS, len(rows))
    return [rows[len(rows) * number // count] for number in range(count)]


def _buckets(run: Run, lengths: np.ndarray) -> tuple[PlannedBucket, ...]:
    config, rows, tokens = run.config, Counter[int](), Counter[int]()
    for length in np.flatnonzero(lengths).tolist():
        edge = buckets.edge_of(length, run.longest_prompt)
        rows[edge] += int(lengths[length])
        tokens[edge] += int(lengths[length]) * length

    def batch(edge: int) -> int:
        return buckets.batch_rows(edge, run.params.max_new_tokens, config.batch_size, config.batch_tokens)

    return tuple(
        PlannedBucket(
            edge, rows[edge], tokens[edge], round(1 - tokens[edge] / (edge * rows[edge]), 4),
            batches=-(-rows[edge] // batch(edge)),
        )
        for edge in sorted(rows)
    )  # fmt: skip
