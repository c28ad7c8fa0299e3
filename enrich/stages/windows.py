"""Windows: the rows to do, rendered and tokenized, so many at a time that every bucket's batches are full."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from enrich.checkpoint import Checkpoint
from enrich.generation import QUARANTINED, SKIPPED, Generation, Outcome
from enrich.product import Product
from enrich.prompts import Prompt, PromptBuilder
from enrich.stages.setup import Run, committed, stop_if_asked
from enrich.stages.survey import Survey

# Enough that every bucket's batches are full, few enough for memory, which holds two: one is generated, one planned.
_WINDOW_ROWS = 32_768
# The engine waits for the first window, so that is small. Each of the next is planned before the one before it is
# generated, though it is so many times as large.
_FIRST_WINDOW_ROWS = 2048
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A row that waits for its text."""

    ordinal: int
    key: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that follow each other in the catalog: those that wait for a text, and those that no model can give one."""

    rows: list[Row] = field(default_factory=list)
    settled: list[Outcome] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows) + len(self.settled)


def plan_windows(run: Run, survey: Survey, checkpoint: Checkpoint) -> Iterator[Window]:
    """Render and tokenize the rows that wait, in catalog order, a window at a time.

    Raises Interrupted if the run was asked to stop.
    """
    builder = PromptBuilder(choose_wording=run.wording, encode=run.tokenizer.encode, max_tokens=run.longest_prompt)
    window, size = Window(), _FIRST_WINDOW_ROWS
    waiting = survey.waiting
    for _, products in run.catalog.batches() if len(waiting) else ():
        begin, end = np.searchsorted(waiting, [products.first, products.first + len(products)])
        left = waiting[begin:end] - products.first
        while len(left):
            stop_if_asked(run, committed(checkpoint))
            part, left = np.split(left, [size - len(window)])
            with _collector_off():
                _plan(run, survey, checkpoint, builder, products.at(part), window)
            if len(window) >= size:
                yield window
                window, size = Window(), min(size * _GROWTH, _WINDOW_ROWS)
    if len(window):
        yield window


def _plan(
    run: Run,
    survey: Survey,
    checkpoint: Checkpoint,
    builder: PromptBuilder,
    products: Iterable[Product],
    window: Window,
) -> None:
    """Add some products to a window, each as a row or, if no model can give it a text, as settled."""
    to_do = []
    for product in products:
        if product.title:
            to_do.append(run.categories.of(product).arrange(product))
        elif survey.is_variant(product.ordinal):
            generation = Generation(SKIPPED, flags=("variant",), run_id=checkpoint.run_id)
            window.settled.append(Outcome(product.ordinal, product.description or None, generation))
        else:
            window.settled.append(_unusable(product, "no_title", checkpoint.run_id))
    for prompt in builder.build(to_do):
        if prompt.token_ids:
            ordinal = prompt.product.ordinal
            window.rows.append(Row(ordinal, survey.wanted.key(ordinal), prompt))
        else:
            window.settled.append(_unusable(prompt.product, "prompt_too_long", checkpoint.run_id))


def give_back_memory() -> None:
    """Give what a window has left free back to the system.

    glibc keeps a heap for each of several threads, and free memory in the midst of them until it is asked for it.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library has no such function
            ctypes.pythonapi.malloc_trim(0)  # as this process has it


@contextmanager
def _collector_off() -> Iterator[None]:
    """Spare Python's collector the objects of a window, all in use, none in a circle: a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _unusable(product: Product, reason: str, run_id: str) -> Outcome:
    # An old description is better than none, even where it was to be replaced.
    return Outcome(
        product.ordinal, product.description or None, Generation(QUARANTINED, flags=(reason,), run_id=run_id)
    )
