"""A crew: threads that work on one bucket's rows side by side, each with processors of its own.

Where a step is many small operations, two threads that never wait for each other do more than one whose every operation
is split in two; torch lets go of Python's lock while it computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

import torch

T = TypeVar("T")
_Job = Callable[[Callable[[], bool]], Iterator[T]]


def side_by_side(jobs: Sequence[_Job[T]], threads: int, should_stop: Callable[[], bool]) -> Iterator[T]:
    """Yield what the jobs yield, as it comes; each runs in a thread that computes with `threads` threads.

    A job is given what to ask whether it should stop. Once one raises, or nobody takes the results any more, all stop;
    the error is raised here. Every thread has ended when this ends.
    """
    found: SimpleQueue[tuple[T | None, BaseException | None, bool]] = SimpleQueue()  # (result, error, is at its end)
    broken_off = threading.Event()
    asking = threading.Lock()

    def stop() -> bool:
        if broken_off.is_set():
            return True
        with asking:
            return should_stop()

    def work(job: _Job[T]) -> None:
        error: BaseException | None = None
        try:
            torch.set_num_threads(threads)  # of this thread
            for result in job(stop):
                found.put((result, None, False))
        except BaseException as raised:
            broken_off.set()
            error = raised
        found.put((None, error, True))

    before = torch.get_num_threads()
    crew = [threading.Thread(target=work, args=(job,), name=f"engine-{number}") for number, job in enumerate(jobs)]
    for thread in crew:
        thread.start()
    try:
        working, first_error = len(crew), None
        while working:
            result, error, at_end = found.get()
            working -= at_end
            first_error = first_error or error
            if not at_end and not first_error:
                yield result  # type: ignore[misc]
        if first_error:
            raise first_error
    finally:
        broken_off.set()
        for thread in crew:
            thread.join()
        torch.set_num_threads(before)  # what threads to come begin with
