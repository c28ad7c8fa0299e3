"""Judging again: texts of earlier runs held against rules that have changed since."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace

import numpy as np

from enrich.checkpoint import Checkpoint
from enrich.generation import EDITED, QUARANTINED, Outcome, text_digest
from enrich.outcomes import OutcomeReader, read_outcomes
from enrich.output import facts_or_none
from enrich.product import Product
from enrich.quality import NEAR_DUPLICATE, RULES, SENTENCE_DROPPED
from enrich.stages.setup import JUDGING, LEFT_BEHIND, Run, committed, stop_if_asked
from enrich.stages.survey import Survey

log = logging.getLogger("enrich")

# What cleaning has done to a text stays true of it, whatever the rules are.
_LASTING = {"repeated_sentence", "cut_to_sentence", "attributes_dropped", SENTENCE_DROPPED, NEAR_DUPLICATE}


def judge_again(run: Run, survey: Survey, checkpoint: Checkpoint) -> Survey:
    """Hold the texts that are carried over against the rules, if those are not the ones that they have passed.

    Rows whose texts fail, and those that were quarantined, are to be generated anew; the others whose flags change go
    to the checkpoint as they are now. People's words are not judged. Returns what is left to carry over, and to do.
    """
    if not len(survey.carried) or not _changed(run):
        return survey
    failing, changed = [], []
    with closing(survey.carried.outcomes(run.beside_output(JUDGING))) as tables:
        carried = OutcomeReader(tables)
        for batch, products in run.catalog.batches():
            stop_if_asked(run, committed(checkpoint))
            outcomes = carried.take_below(products.first + len(batch))
            found = products.at(outcomes["ordinal"].to_numpy() - products.first)
            for product, outcome in zip(found, read_outcomes(outcomes), strict=True):
                judged = _judged(run, product, outcome)
                if judged is None:
                    failing.append(outcome.ordinal)
                elif judged is not outcome:
                    changed.append(outcome.ordinal)
                    checkpoint.add(judged)
    log.info(
        "the rules have changed: %s texts judged again, %s to be generated anew",
        *(f"{number:,}" for number in (len(survey.carried), len(failing))),
    )
    left = survey.carried.without(np.isin(survey.carried.ordinals, failing + changed))
    waiting = np.sort(np.concatenate([survey.waiting, np.array(failing, survey.waiting.dtype)]))
    return replace(survey, carried=left, waiting=waiting)


def _judged(run: Run, product: Product, outcome: Outcome) -> Outcome | None:
    """Return the outcome as it is under the rules of today, or None if it can't be published any more."""
    generation = outcome.generation
    if EDITED in generation.flags:
        return outcome
    if generation.status == QUARANTINED or not outcome.text:
        return None
    verdict = run.rulebook(product).judge(outcome.text, product)
    if not verdict.accepted:
        return None
    lasting = [flag for flag in generation.flags if flag in _LASTING or flag not in RULES]
    flags = tuple(dict.fromkeys([*lasting, *verdict.rules]))
    if flags == generation.flags:
        return outcome
    return replace(outcome, generation=replace(generation, flags=flags, text_digest=text_digest(outcome.text)))


def _changed(run: Run) -> bool:
    """Say whether some texts that are carried over may not have passed the rules as they are now."""
    if run.beside_output(LEFT_BEHIND).is_dir():
        return True
    before = facts_or_none(run.previous_path).get("fingerprint", {})
    return bool(before.get("rules") != run.rules_digest)
