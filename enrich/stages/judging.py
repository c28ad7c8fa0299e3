"""Judging again: texts of earlier runs held against rules that have changed since."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace

from enrich.checkpoint import Checkpoint
from enrich.generation import EDITED, QUARANTINED, REUSED, text_digest
from enrich.output import facts_or_none
from enrich.quality import RULES, SENTENCE_DROPPED
from enrich.stages.setup import LEFT_BEHIND, Run, committed, stop_if_asked
from enrich.stages.survey import Survey

log = logging.getLogger("enrich")

# What cleaning has done to a text stays true of it, whatever the rules are.
_LASTING = {"repeated_sentence", "cut_to_sentence", "attributes_dropped", SENTENCE_DROPPED}


def judge_again(run: Run, survey: Survey, checkpoint: Checkpoint) -> Survey:
    """Hold the texts that are carried over against the rules, if those are not the ones that they have passed.

    Rows whose texts fail, and those that were quarantined, are to be generated anew; the others whose flags change go
    to the checkpoint as they are now. People's words are not judged. Returns what is left to carry over.
    """
    if not len(survey.carried) or not _changed(run):
        return survey
    scratch = run.beside_output(".judging")
    spans: deque[tuple[int, int]] = deque()
    outcomes = survey.carried.outcomes(iter(spans.popleft, None), scratch)
    settled: set[int] = set()
    failed = first = 0
    for batch, products in run.catalog.batches():
        stop_if_asked(run, committed(checkpoint))
        spans.append((first, first + len(batch)))
        first += len(batch)
        found = next(outcomes)
        for product in products:
            outcome = found.get(product.ordinal)
            if outcome is None or EDITED in outcome.generation.flags:
                continue
            if outcome.generation.status == QUARANTINED or not outcome.text:
                settled.add(product.ordinal)
                failed += 1
                continue
            verdict = run.rulebook(product).judge(outcome.text, product)
            if not verdict.accepted:
                settled.add(product.ordinal)
                failed += 1
                continue
            lasting = [flag for flag in outcome.generation.flags if flag in _LASTING or flag not in RULES]
            flags = tuple(dict.fromkeys([*lasting, *verdict.rules]))
            if flags != outcome.generation.flags:
                settled.add(product.ordinal)
                generation = replace(outcome.generation, status=REUSED, flags=flags)
                checkpoint.add(replace(outcome, generation=replace(generation, text_digest=text_digest(outcome.text))))
    log.info("the rules have changed: %s texts judged again, %s to be generated anew", f"{len(survey.carried):,}",
             f"{failed:,}")  # fmt: skip
    carried = survey.carried.without(ordinal in settled for ordinal in survey.carried.ordinals)
    return replace(survey, carried=carried)


def _changed(run: Run) -> bool:
    """Say whether some texts that are carried over may not have passed the rules as they are now."""
    if run.beside_output(LEFT_BEHIND).is_dir():
        return True
    before = facts_or_none(run.previous_path).get("fingerprint", {})
    return bool(before.get("rules") != run.rules_digest)
