"""The engine of many workers: it hands a bucket's rows out, and takes them back from workers that die.

A worker is handed no more than its share of what is left, so that all are done at about the same time, and a little
more than it computes at once, so that it never waits for the next. A text depends on its row alone, so it doesn't
matter who generates it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from enrich.engine.protocol import Completion, EngineStats, Request, always
from enrich.engine.waiting import Waiting
from enrich.engine.worker import Order, Report

log = logging.getLogger("enrich")

_STEP_SECONDS = 0.25  # between two reports of a worker, at most
_AHEAD = 2  # a worker has this part of a batch more than it computes at once


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker has to say; without a report, it is gone, with all that it had, but may come again."""

    worker: int
    report: Report | None


class Pool(Protocol):
    """Workers, by number."""

    @property
    def free(self) -> Collection[int]:
        """Those that are there and have no order."""

    @property
    def there(self) -> Collection[int]:
        """Those that have a model loaded."""

    def order(self, worker: int, order: Order) -> None:
        """Give a free worker an order."""

    def events(self, seconds: float) -> Iterator[Event]:
        """Wait until there is at least one event, but no longer than that, and yield those there are.

        Raises TryAgain if there are no workers any more, and what a worker's engine has raised.
        """


class WorkersEngine:
    """Generates the rows of a bucket on all workers of a pool."""

    pads = True  # some of them may

    def __init__(self, pool: Pool, stats: EngineStats) -> None:
        self.stats = stats
        self._pool = pool
        self._new_session = itertools.count(1)

    def generate(
        self,
        requests: Sequence[Request],
        width: int,
        batch_rows: int,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) as rows finish; see `Engine.generate`.

        Raises TryAgain if no worker is left.
        """
        waiting = Waiting(requests)
        hands: dict[int, dict[int, Request]] = {}  # the rows that each worker has, by index
        sessions: dict[int, int] = {}
        moved = True
        # A run that asks is one that moves: it isn't asked while all that there is to hear is that nothing does.
        while not (moved and should_stop()):
            begins = may_begin()
            if not any(hands.values()) and not (waiting and begins):
                break
            moved = not any(hands.values())
            self.stats.workers = max(1, len(self._pool.there))
            for worker in list(self._pool.free):
                hand = hands.setdefault(worker, {})
                taken = self._share(hands, worker, waiting, batch_rows) if begins else []
                hand.update(taken)
                if hand:
                    session = sessions.setdefault(worker, next(self._new_session))
                    order = Order(session, width, batch_rows, tuple(taken), begins, _STEP_SECONDS)
                    self._pool.order(worker, order)
            for event in self._pool.events(_STEP_SECONDS):
                worker, report = event.worker, event.report
                hand = hands.setdefault(worker, {})
                if report is None:
                    log.warning("worker %d is gone; its %d rows are given to others", worker, len(hand))
                    sessions.pop(worker, None)
                    waiting.give_back(hand.items())
                    hand.clear()
                    self.stats.note_slots(0, 0, worker)
                elif report.session == sessions.get(worker):
                    moved = moved or report.moved
                    self.stats.count(*report.counts)
                    self.stats.note_slots(report.slots, report.active_slots, worker)
                    done = [(index, completion) for index, completion in report.finished if hand.pop(index, None)]
                    if report.is_idle:  # and what it has not begun
                        waiting.give_back(hand.items())
                        hand.clear()
                    yield from done

    def _share(
        self, hands: dict[int, dict[int, Request]], worker: int, waiting: Waiting, batch_rows: int
    ) -> list[tuple[int, Request]]:
        """Take the rows that a worker is to have beside those it has."""
        left = len(waiting) + sum(map(len, hands.values()))
        fair = -(-left // max(1, len(self._pool.there)))
        most = min(fair, batch_rows + batch_rows // _AHEAD)
        return waiting.take(max(0, most - len(hands[worker])))
