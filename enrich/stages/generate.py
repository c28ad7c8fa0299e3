"""Generation: the rows of a window are generated bucket by bucket until each is settled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from enrich import buckets
from enrich.checkpoint import Checkpoint
from enrich.engine.protocol import Completion, Engine, Request
from enrich.generation import GENERATED, QUARANTINED, Attempt, Generation, Outcome, text_digest
from enrich.keys import seed_of
from enrich.quality import SENTENCE_DROPPED, Severity, Verdict, mend
from enrich.stages.setup import Run, committed, stop_if_asked
from enrich.stages.windows import Row, Window
from enrich.timing.progress import Progress
from enrich.timing.usage import Usage

_FULL_BATCHES = 16  # after so many, the rows that end a bucket tell no more


class _TimeIsUp(Exception):
    """There is no time for more rows before the deadline."""


@dataclass(frozen=True, slots=True)
class _Try:
    """One attempt at a row's text and what the rules say of it."""

    request: Request
    completion: Completion
    text: str
    flags: tuple[str, ...]
    verdict: Verdict


@dataclass(slots=True)
class _Trial:
    """A row, the edge of its bucket, and the attempts at its text so far."""

    row: Row
    edge: int
    tries: list[_Try] = field(default_factory=list)

    def next_request(self, run: Run) -> Request:
        row = self.row
        forbidden: tuple[int, ...] = ()
        if run.grounding is not None:
            limits = run.rulebook(row.prompt.product).limits
            forbidden = run.grounding.forbidden(row.prompt.text, (*limits.banned, *limits.claims))
        return Request(row.prompt.token_ids, seed_of(row.key), len(self.tries) + 1, forbidden=forbidden)

    @property
    def best(self) -> _Try:
        """The attempt with the least severe failures, then the fewest, then the first."""
        return min(self.tries, key=lambda one: one.verdict.rank)

    def is_settled(self, max_attempts: int) -> bool:
        """Say whether there is nothing to be won by another attempt, or none is left."""
        last = self.tries[-1].verdict
        return last.is_good or last.severity == Severity.QUARANTINE or len(self.tries) >= max_attempts


def generate(run: Run, window: Window, checkpoint: Checkpoint, progress: Progress) -> bool:
    """Generate the window's rows bucket by bucket and hand each to the checkpoint once it is settled.

    Those that no model can give a text go there first. Texts that break a rule of weight are generated again beside the
    bucket's others, each from the next part of its row's random stream. Returns whether there was time for all of them.
    """
    for outcome in window.settled:
        checkpoint.add(outcome)
    if not window.rows:
        return True
    grouped = buckets.group((len(row.prompt.token_ids) for row in window.rows), run.longest_prompt)
    engine = run.engine  # its weights are loaded by now, which is no part of the speed
    if not engine.pads:
        grouped = buckets.joined(grouped, _FULL_BATCHES * run.config.batch_size)
    progress.expect({bucket.edge: len(bucket.items) for bucket in grouped})
    for bucket in grouped:
        progress.enter(bucket.edge)
        trials = [_trial(window.rows[index], run.longest_prompt) for index in bucket.items]
        requests = [trial.next_request(run) for trial in trials]
        try:
            for index, completion in _completions(run, engine, trials, requests, bucket.edge, checkpoint):
                trial = trials[index]
                trial.tries.append(_judged(run, trial.row, requests[index], completion))
                if trial.is_settled(run.config.max_attempts):
                    outcome = _outcome(run, trial, checkpoint.run_id)
                    checkpoint.add(outcome)
                    progress.enter(trial.edge)
                    progress.advance(
                        sum(len(one.completion.token_ids) for one in trial.tries),
                        quarantined=outcome.generation.status == QUARANTINED,
                    )
                else:  # the engine takes what is appended
                    trials.append(trial)
                    requests.append(trial.next_request(run))
        except _TimeIsUp:
            return False
    return True


def _trial(row: Row, longest: int) -> _Trial:
    return _Trial(row, buckets.edge_of(len(row.prompt.token_ids), longest))


def _completions(
    run: Run, engine: Engine, trials: Sequence[_Trial], requests: Sequence[Request], edge: int, checkpoint: Checkpoint
) -> Iterator[tuple[int, Completion]]:
    """Yield (index into `trials` and `requests`, which may grow, completion) as rows finish.

    Raises _TimeIsUp if there is no time for all.
    """
    config, stats, deadline = run.config, run.stats, run.deadline
    new_tokens = run.params.max_new_tokens
    batch_rows = buckets.batch_rows(edge, new_tokens, config.batch_size, config.batch_tokens)
    has_time = True

    def may_begin() -> bool:
        nonlocal has_time
        in_flight = stats.workers * batch_rows * (edge + new_tokens)
        has_time = deadline.allows(in_flight, stats.prefill_positions + stats.decode_positions)
        return has_time

    started = time.monotonic()
    deadline.resume(stats.prefill_positions + stats.decode_positions)
    finished, parts = 0, dict.fromkeys((trial.edge for trial in trials), Usage())
    for numbered in engine.generate(requests, edge, batch_rows, lambda: run.should_stop() != 0, may_begin):
        finished += 1
        index, completion = numbered
        request, of_edge = requests[index], trials[index].edge
        tokens = len(request.prompt_token_ids), 0, len(completion.token_ids)
        parts[of_edge] += Usage(request.attempt == 1, 1, *tokens)
        yield numbered
    seconds = time.monotonic() - started
    run.generating_seconds += seconds
    run.meter.note(parts, stats, seconds)
    stop_if_asked(run, committed(checkpoint))
    if finished < len(requests) and not has_time:
        raise _TimeIsUp


def _judged(run: Run, row: Row, request: Request, completion: Completion) -> _Try:
    product = row.prompt.product
    cleaned = run.written(row.prompt, completion)
    verdict = run.rulebook(product).judge(cleaned.text, product)
    return _Try(request, completion, cleaned.text, cleaned.flags, verdict)


def _outcome(run: Run, trial: _Trial, run_id: str) -> Outcome:
    row, best = trial.row, trial.best
    product = row.prompt.product
    text, flags, verdict = best.text, best.flags, best.verdict
    if not verdict.accepted and verdict.severity < Severity.QUARANTINE:
        mended = mend(text, product, run.rulebook(product))
        if mended is not None:
            text, flags, verdict = mended, (*flags, SENTENCE_DROPPED), run.rulebook(product).judge(mended, product)
    accepted = verdict.accepted
    published = text if accepted else product.description or None
    generation = Generation(
        status=GENERATED if accepted else QUARANTINED,
        key=row.key,
        model=run.files.name,
        model_revision=run.files.revision,
        prompt_tokens=len(best.request.prompt_token_ids),
        generated_tokens=len(best.completion.token_ids),
        finish_reason=best.completion.finish_reason,
        seed=best.request.seed,
        attempt=best.request.attempt,
        bucket=trial.edge,
        text_digest=text_digest(published) if published else None,
        flags=tuple(dict.fromkeys([*flags, *(("attributes_dropped",) if row.prompt.dropped else ()), *verdict.rules])),
        generated_at=datetime.now(UTC),
        run_id=run_id,
    )
    return Outcome(product.ordinal, published, generation, () if accepted else tuple(map(_attempt, trial.tries)))


def _attempt(one: _Try) -> Attempt:
    failures = ((failure.rule, str(failure.severity), failure.reason) for failure in one.verdict.failures)
    return Attempt(one.request.attempt, one.text, tuple(failures))
