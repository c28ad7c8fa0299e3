"""Faults of engines, memory and clocks, put into a process that `server.py` has forked before its run begins."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from enrich.engine import continuous, ragged
from enrich.engine.gpt2 import Gpt2Forward


def _at_step(number: int, fault: Callable[[], None], times: int = 1, least_rows: int = 1) -> None:
    """Do something in the steps from this one on, so many times, before their tokens are drawn.

    Steps of fewer rows than told are not counted.
    """
    step, count = ragged.RaggedBatch._step, 0

    def stepped(self: Any) -> Any:
        nonlocal count
        count += len(self.rows) >= least_rows
        if number <= count < number + times:
            count += times == 1  # or a step that is too small to be counted would do it again
            fault()
        return step(self)

    ragged.RaggedBatch._step = stepped


def _raising(error: BaseException) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


def throws(step: int) -> None:
    """Let the device go."""
    _at_step(step, _raising(RuntimeError("device lost")))


def hangs(stuck_seconds: float | None = None) -> None:
    """Wait for something that never comes, in the first step after rows were committed."""
    from enrich.checkpoint import Checkpoint
    from enrich.commands import ending

    if stuck_seconds is not None:
        ending._STUCK_SECONDS = stuck_seconds
    step, commit = ragged.RaggedBatch._step, Checkpoint.commit
    committed = threading.Event()

    def noted(self: Any) -> None:
        commit(self)
        if self.num_done > 2:  # or it is those alone that no text can be made for
            committed.set()

    def stepped(self: Any) -> Any:
        if committed.is_set():
            threading.Event().wait()
        return step(self)

    Checkpoint.commit, ragged.RaggedBatch._step = noted, stepped


def is_slow(seconds: float) -> None:
    """Take so long for each step."""
    _at_step(1, lambda: time.sleep(seconds), times=1 << 60)


def loses_rows(from_row: int) -> None:
    """End as if done, before it is."""
    generate = continuous.ContinuousEngine.generate

    def short(self: Any, *args: Any) -> Any:
        for number, found in enumerate(generate(self, *args)):
            if number < from_row:
                yield found

    continuous.ContinuousEngine.generate = short


def gives_no_numbers(step: int, value: float) -> None:
    """Compute scores that are none."""
    finish, count = Gpt2Forward.finish, 0

    def broken(self: Any, hidden: Any) -> Any:
        nonlocal count
        count += 1
        states = finish(self, hidden)
        if count >= step:
            states[0] = value
        return states

    Gpt2Forward.finish = broken


def out_of_memory(step: int, kind: str, times: int = 1) -> None:
    """Run out of memory, as the device, Python or torch's allocator tells it."""
    import torch

    errors = {
        "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "python": MemoryError(),
        "allocator": RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
            " allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
    }
    # Fewer rows than these can't be halved: what a lack of memory there comes to is another case.
    _at_step(step, _raising(errors[kind]), times, least_rows=17 if times == 1 else 1)


def out_of_memory_while(what: str) -> None:
    """Run out of memory while loading the model, or while publishing."""
    if what == "loading":
        from transformers import AutoModelForCausalLM

        AutoModelForCausalLM.from_pretrained = lambda *_, **__: _raising(MemoryError())()
    else:
        from enrich.output import OutputWriter

        OutputWriter.write = lambda *_: _raising(MemoryError())()


def clock_set_back(days: float, days_a_look: float = 0.0) -> None:
    """Show a time in the past, and at every look one further back."""
    behind = timedelta(days=days)

    def now_then() -> timedelta:
        nonlocal behind
        behind += timedelta(days=days_a_look)
        return behind

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - now_then()

    for name, module in list(sys.modules.items()):
        if name.startswith("enrich") and getattr(module, "datetime", None) is datetime:
            module.datetime = Wrong
    real = time.time
    time.time = lambda: real() - now_then().total_seconds()


FAULTS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        throws,
        hangs,
        is_slow,
        loses_rows,
        gives_no_numbers,
        out_of_memory,
        out_of_memory_while,
        clock_set_back,
    )
}
