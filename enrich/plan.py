"""The plan: what a run would do and take, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from enrich.timing.progress import duration
from enrich.timing.speeds import Speed


@dataclass(frozen=True, slots=True)
class PlannedBucket:
    """One bucket that a run would generate; `padding_waste` is the most of its prompts' positions without a token."""

    edge: int
    rows: int
    prompt_tokens: int
    padding_waste: float
    batches: int


@dataclass(frozen=True, slots=True)
class PlannedCategory:
    """One category's rows, and those of them that wait for a text."""

    name: str
    pending: int


@dataclass(frozen=True, slots=True)
class PlannedPrompt:
    """A product as the model would be asked about it."""

    row: int
    title: str
    tokens: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the pending rows would take; None where no run on this machine has measured it.

    `new_tokens` counts those of every attempt, `attempts` is their mean number. `seconds` are those of the whole run.
    """

    new_tokens: int | None
    attempts: float | None
    seconds: float | None
    cost: float | None
    measured_texts: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. `rows` = pending + done + reused + kept + skipped + the unusable."""

    catalog: str
    output: str
    model: str
    columns: dict[str, Any]
    rows: int
    pending: int
    done: int
    reused: int
    kept: int
    skipped: int
    unusable: dict[str, int]
    shortened: int
    categories: tuple[PlannedCategory, ...]
    buckets: tuple[PlannedBucket, ...]
    prompt_tokens: int
    padding_waste: float
    most_new_tokens: int
    estimate: Estimate
    prompts: tuple[PlannedPrompt, ...]


def estimate(buckets: tuple[PlannedBucket, ...], speed: Speed | None, price_per_hour: float | None) -> Estimate:
    """Reckon what the buckets would take, from what runs of this kind took here."""
    if not buckets:
        return Estimate(0, None, 0.0, 0.0 if price_per_hour is not None else None, 0)
    if speed is None:
        return Estimate(None, None, None, None, 0)
    whole = speed.total
    tokens = texts = 0.0
    seconds = speed.other_seconds
    for bucket in buckets:
        usage = speed.measured(bucket.edge) or whole
        tokens += bucket.rows * usage.generated_tokens / usage.rows
        texts += bucket.rows * usage.texts / usage.rows
        seconds += bucket.rows * speed.seconds_of_row(bucket.edge)
    rows = sum(bucket.rows for bucket in buckets)
    cost = None if price_per_hour is None else round(seconds / 3600 * price_per_hour, 4)
    return Estimate(round(tokens), round(texts / rows, 3), round(seconds, 1), cost, whole.texts)


_BAR = 28  # characters


def as_table(plan: Plan, price_per_hour: float | None) -> str:
    """Return a plan in plain text."""
    return "\n".join(_lines(plan, price_per_hour))


def _lines(plan: Plan, price_per_hour: float | None) -> Iterator[str]:
    yield f"{plan.catalog} -> {plan.output} with {plan.model}"
    for role, columns in plan.columns.items():
        yield f"  {role:<12} {', '.join(columns) if columns else '(none)'}"
    yield ""
    yield f"{plan.rows:,} rows"
    counts = [(plan.pending, "to generate"), (plan.done, "done by the run that was broken off")]
    counts += [(plan.reused, "reused"), (plan.kept, "keep their description"), (plan.skipped, "variants, skipped")]
    counts += [(count, f"unusable: {reason}") for reason, count in plan.unusable.items()]
    for count, what in counts:
        if count or what == "to generate":
            yield f"  {count:>11,}  {what}"
    if plan.shortened:
        yield f"  {plan.shortened:>11,}  of those to generate lose attributes to fit the model's context"
    if not plan.pending:
        return
    yield ""
    yield "to generate, by category"
    for category in plan.categories:
        yield f"  {category.pending:>11,}  {category.name}"
    yield ""
    yield f"{'prompt tokens':>13} {'rows':>9} {'batches':>8} {'padding':>8}"
    most = max(bucket.rows for bucket in plan.buckets)
    for bucket in plan.buckets:
        bar = "█" * max(1, round(_BAR * bucket.rows / most))
        yield (
            f"{f'up to {bucket.edge:,}':>13} {bucket.rows:>9,} {bucket.batches:>8,} {bucket.padding_waste:>8.1%}  {bar}"
        )
    yield f"{'in all':>13} {plan.pending:>9,} {sum(b.batches for b in plan.buckets):>8,} {plan.padding_waste:>8.1%}"
    yield ""
    yield from _estimate_lines(plan, price_per_hour)
    for prompt in plan.prompts:
        yield ""
        yield f"--- row {prompt.row:,}, {prompt.tokens:,} tokens"
        yield prompt.prompt


def _estimate_lines(plan: Plan, price_per_hour: float | None) -> Iterator[str]:
    found = plan.estimate
    yield f"tokens: {plan.prompt_tokens:,} of prompts, " + (
        f"at most {plan.most_new_tokens:,} new ones"
        if found.new_tokens is None
        else f"about {found.new_tokens:,} new ones in {found.attempts:.2f} attempts a row"
    )
    if found.seconds is None:
        yield "time:   unknown: no run of this model and these settings has been measured on this machine yet"
        return
    yield f"time:   about {duration(found.seconds)}, from {found.measured_texts:,} texts measured on this machine"
    if price_per_hour is not None:
        yield f"cost:   about {found.cost:,.2f} at {price_per_hour:,.2f} an hour"
