"""Generation: the rows of a window are generated bucket by bucket until each is settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from enrich import buckets
from enrich.checkpoint import Checkpoint
from enrich.engine.protocol import Completion, Engine, Request
from enrich.generation import GENERATED, QUARANTINED, Attempt, Generation, Outcome, text_digest
from enrich.keys import seed_of
from enrich.quality import SENTENCE_DROPPED, Severity, Verdict, mend
from enrich.stages.setup import Run, committed, stop_if_asked
from enrich.stages.windows import Row, Window, give_back_memory
from enrich.timing.progress import Progress
from enrich.timing.usage import Usage

_FULL_BATCHES = 16  # after so many, the rows that end a bucket tell no more


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
    run.judges.expect(len(window.rows))
    grouped = buckets.group((len(row.prompt.token_ids) for row in window.rows), run.longest_prompt)
    engine = run.engine  # its weights are loaded by now, which is no part of the speed
    if not engine.pads:
        grouped = buckets.joined(grouped, _FULL_BATCHES * run.config.batch_size)
    progress.expect({bucket.edge: len(bucket.items) for bucket in grouped})
    for bucket in grouped:
        progress.enter(bucket.edge)
        rows = [window.rows[index] for index in bucket.items]
        if not _generate_bucket(run, engine, rows, bucket.edge, checkpoint, progress):
            return False
    give_back_memory()
    return True


def _generate_bucket(
    run: Run, engine: Engine, rows: Sequence[Row], edge: int, checkpoint: Checkpoint, progress: Progress
) -> bool:
    """Generate one bucket's rows. Returns whether there was time for all of them."""
    trials = [_Trial(row, buckets.edge_of(len(row.prompt.token_ids), run.longest_prompt)) for row in rows]
    requests = [trial.next_request(run) for trial in trials]
    finished, has_time = 0, True

    def may_begin(positions: int) -> bool:
        nonlocal has_time
        has_time = run.deadline.allows(positions, run.stats.prefill_positions + run.stats.decode_positions)
        return has_time

    def settle(*, wait: bool) -> None:
        for (trial, request, completion), judged in run.judges.judged(wait=wait):
            trial.tries.append(_Try(request, completion, judged.text, judged.flags, judged.verdict))
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

    try:
        for index, completion in _completions(run, engine, trials, requests, edge, may_begin):
            finished += 1
            trial = trials[index]
            run.judges.hand_in((trial, requests[index], completion), run.draft(trial.row.prompt, completion))
            left = len(requests) - finished
            if left < run.config.batch_size:  # places are free for what is to be written again
                run.judges.ask()
            settle(wait=not left)  # the engine ends with the last row, unless there is more for it then
    finally:
        settle(wait=True)
    stop_if_asked(run, committed(checkpoint))
    return has_time or finished == len(requests)


def _completions(
    run: Run,
    engine: Engine,
    trials: Sequence[_Trial],
    requests: Sequence[Request],
    edge: int,
    may_begin: Callable[[int], bool],
) -> Iterator[tuple[int, Completion]]:
    """Yield (index into `trials` and `requests`, which may grow, completion) as rows finish.

    No row is begun unless `may_begin`, told the positions that will be in flight.
    """
    config, stats = run.config, run.stats
    new_tokens = run.params.max_new_tokens
    batch_rows = buckets.batch_rows(edge, new_tokens, config.batch_size, config.batch_tokens)

    def may_go_on() -> bool:
        return may_begin(stats.workers * batch_rows * (edge + new_tokens))

    started = time.monotonic()
    run.deadline.resume(stats.prefill_positions + stats.decode_positions)
    parts = dict.fromkeys((trial.edge for trial in trials), Usage())
    for numbered in engine.generate(requests, edge, batch_rows, lambda: run.should_stop() != 0, may_go_on):
        index, completion = numbered
        request, of_edge = requests[index], trials[index].edge
        tokens = len(request.prompt_token_ids), 0, len(completion.token_ids)
        parts[of_edge] += Usage(request.attempt == 1, 1, *tokens)
        yield numbered
    seconds = time.monotonic() - started
    run.generating_seconds += seconds
    run.meter.note(parts, stats, seconds)


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
