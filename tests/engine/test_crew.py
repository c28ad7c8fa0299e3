from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch

from enrich.engine.crew import side_by_side


def counting(begin: int, end: int) -> Callable[[Callable[[], bool]], Iterator[int]]:
    return lambda _: iter(range(begin, end))


def endless(stop: Callable[[], bool]) -> Iterator[int]:
    for number in count():
        if stop():
            return
        yield number


def failing(stop: Callable[[], bool]) -> Iterator[int]:
    yield -1
    raise ValueError("a job of the crew")


def crew() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]


def test_all_that_the_jobs_yield_comes_out_once() -> None:
    before = torch.get_num_threads()
    assert sorted(side_by_side([counting(0, 50), counting(50, 60), counting(60, 60)], 1, lambda: False)) == [*range(60)]
    assert torch.get_num_threads() == before
    assert not crew()


def test_an_error_stops_the_others_and_is_raised() -> None:
    with pytest.raises(ValueError, match="a job of the crew"):
        list(side_by_side([endless, failing], 1, lambda: False))
    assert not crew()


def test_who_takes_no_more_results_stops_the_jobs() -> None:
    results = side_by_side([endless, endless], 1, lambda: False)
    next(results)
    assert crew()
    results.close()  # type: ignore[attr-defined]
    assert not crew()


def test_the_jobs_are_asked_to_stop() -> None:
    looks = iter(range(20))
    assert len(list(side_by_side([endless, endless], 1, lambda: next(looks, None) is None))) == 20
