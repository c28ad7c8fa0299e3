"""The rows of a bucket that wait to be computed; more may come while others are."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

from enrich.engine.protocol import Request


class Waiting:
    """Hands out (index, request) in the order of `requests`, which may grow.

    Several threads may take rows at the same time.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._seen = 0
        self._given_back: deque[tuple[int, Request]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._given_back) + len(self._requests) - self._seen

    def take(self, most: int) -> list[tuple[int, Request]]:
        """Return the next rows, as many as there are up to `most`."""
        with self._lock:
            rows = [self._given_back.popleft() for _ in range(min(most, len(self._given_back)))]
            begin, self._seen = self._seen, min(self._seen + most - len(rows), len(self._requests))
            return [*rows, *((index, self._requests[index]) for index in range(begin, self._seen))]

    def give_back(self, rows: Iterable[tuple[int, Request]]) -> None:
        """Take rows back that were not finished; they are the next again."""
        with self._lock:
            self._given_back.extendleft(reversed(list(rows)))
