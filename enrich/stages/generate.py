"""Generation: the rows to do are planned a window at a time, and generated bucket by bucket."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from enrich import buckets
from enrich.checkpoint import Checkpoint
from enrich.engine.protocol import Completion, Request
from enrich.generation import GENERATED, QUARANTINED, SKIPPED, Generation, Outcome, text_digest
from enrich.keys import seed_of
from enrich.product import Product
from enrich.progress import Progress
from enrich.prompts import Prompt, PromptBuilder
from enrich.quality import clean_text
from enrich.stages.setup import Run, committed, stop_if_asked
from enrich.stages.survey import Survey

# Rows planned before they are generated: enough that every bucket's batches are full, few enough for memory.
_WINDOW_ROWS = 32_768
# How many batches' rows the engine is given at once: enough that it seldom runs with empty slots, few enough that a
# deadline is met within minutes.
_BATCHES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A row that waits for its text."""

    ordinal: int
    key: str
    prompt: Prompt


def plan_rows(run: Run, survey: Survey, checkpoint: Checkpoint) -> Iterator[list[Row]]:
    """Render and tokenize the rows to do, in catalog order; yield those not done yet, a window at a time."""
    builder = PromptBuilder(choose_wording=run.wording, encode=run.tokenizer.encode, max_tokens=run.longest_prompt)
    window: list[Row] = []
    waiting = survey.waiting
    for _, products in run.catalog.batches() if len(waiting) else ():
        stop_if_asked(run, committed(checkpoint))
        begin, end = np.searchsorted(waiting, [products.first, products.first + len(products)])
        to_do = []
        for product in products.at(waiting[begin:end] - products.first):
            if product.title:
                to_do.append(run.categories.of(product).arrange(product))
            elif survey.is_variant(product.ordinal):
                generation = Generation(SKIPPED, flags=("variant",), run_id=checkpoint.run_id)
                checkpoint.add(Outcome(product.ordinal, product.description or None, generation))
            else:
                checkpoint.add(_quarantined(product, "no_title", checkpoint.run_id))
        for prompt in builder.build(to_do):
            if prompt.token_ids:
                ordinal = prompt.product.ordinal
                window.append(Row(ordinal, survey.wanted.key(ordinal), prompt))
            else:
                checkpoint.add(_quarantined(prompt.product, "prompt_too_long", checkpoint.run_id))
        if len(window) >= _WINDOW_ROWS:
            yield window
            window = []
    if window:
        yield window


def _quarantined(product: Product, reason: str, run_id: str) -> Outcome:
    # An old description is better than none, even where it was to be replaced.
    return Outcome(
        product.ordinal, product.description or None, Generation(QUARANTINED, flags=(reason,), run_id=run_id)
    )


def generate(run: Run, window: Sequence[Row], checkpoint: Checkpoint, progress: Progress) -> bool:
    """Generate the window's rows bucket by bucket, clean each text and hand it to the checkpoint.

    Returns whether there was time for all of them.
    """
    config, engine = run.config, run.engine
    for bucket in buckets.group((len(row.prompt.token_ids) for row in window), run.longest_prompt):
        rows = [window[index] for index in bucket.items]
        batch_rows = buckets.batch_rows(bucket.edge, run.params.max_new_tokens, config.batch_size, config.batch_tokens)
        for start in range(0, len(rows), batch_rows * _BATCHES_AT_ONCE):
            batch = rows[start : start + batch_rows * _BATCHES_AT_ONCE]
            positions = len(batch) * (bucket.edge + run.params.max_new_tokens)
            if not run.deadline.allows(positions):
                return False
            started = time.monotonic()
            requests = [Request(row.prompt.token_ids, seed_of(row.key)) for row in batch]
            for index, completion in engine.generate(requests, bucket.edge, batch_rows, lambda: run.should_stop() != 0):
                checkpoint.add(_outcome(run, batch[index], requests[index], completion, bucket.edge, checkpoint.run_id))
                progress.advance(len(completion.token_ids))
            stop_if_asked(run, committed(checkpoint))
            seconds = time.monotonic() - started
            run.generating_seconds += seconds
            run.deadline.learn(positions, seconds)
            run.meter.note(bucket.edge, len(batch), run.stats, seconds)
    return True


def _outcome(run: Run, row: Row, request: Request, completion: Completion, edge: int, run_id: str) -> Outcome:
    product = row.prompt.product
    cleaned = clean_text(run.written(row.prompt, completion.token_ids))
    text = cleaned.text or product.description or None
    flags = (*cleaned.flags, *(("attributes_dropped",) if row.prompt.dropped else ()))
    generation = Generation(
        status=GENERATED if cleaned.text else QUARANTINED,
        key=row.key,
        model=run.files.name,
        model_revision=run.files.revision,
        prompt_tokens=len(request.prompt_token_ids),
        generated_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        seed=request.seed,
        attempt=request.attempt,
        bucket=edge,
        text_digest=text_digest(text) if text else None,
        flags=flags,
        generated_at=datetime.now(UTC),
        run_id=run_id,
    )
    return Outcome(product.ordinal, text, generation)
