"""Working ahead: the next of some things made while one is in use."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def one_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield the items, each made in a thread while the one before it is in use.

    What making them raises is raised where the item would have come. Closing this waits for the one that is being made.
    """
    iterator, none_left = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="enrich-ahead") as thread:
        coming = thread.submit(next, iterator, none_left)
        while (item := coming.result()) is not none_left:
            coming = thread.submit(next, iterator, none_left)
            yield item  # type: ignore[misc]
