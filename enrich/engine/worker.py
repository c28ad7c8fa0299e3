"""A worker: an engine in a thread of its own, so that it computes on while its finished rows are asked for.

It lives in another process than the run, or on another machine: it is given rows and asked for what has become of them,
and whoever does that can come back after a break, or never.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

import enrich
from enrich.engine.choice import make_engine
from enrich.engine.files import find_model
from enrich.engine.loading import load_model, pick_device
from enrich.engine.protocol import Completion, Engine, EngineStats, Request, SamplingParams
from enrich.engine.tokenizer import Tokenizer
from enrich.errors import ConfigError, ModelError

Counts = tuple[int, int, int, int]
_REPORTS_OF_A_BATCH = 8  # so many times are finished rows fetched while a batch's worth of them is finished


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker loads. `digest` is the revision of the model's files, which must be the same everywhere.

    `threads` is how many of the machine's cores it computes with, None for what torch takes by itself.
    """

    version: str
    model: str
    digest: str
    device: str
    dtype: str
    params: SamplingParams
    chat: bool
    deterministic: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """More rows of a bucket, by number, and a question for those that are finished.

    Rows of another session than this one are forgotten. No row is begun unless `may_begin`. The answer comes after
    `seconds`, or sooner if there is enough to tell.
    """

    session: int
    width: int
    batch_rows: int
    rows: tuple[tuple[int, Request], ...]
    may_begin: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What has become of a session's rows since the last report.

    `counts` are EngineStats's four; `moved` is whether the engine has computed anything. If `is_idle`, it is done with
    all the rows that it was given; those that it has not returned were not begun and are forgotten.
    """

    session: int
    finished: tuple[tuple[int, Completion], ...]
    counts: Counts
    slots: int
    active_slots: int
    moved: bool
    is_idle: bool


def load_engine(setup: Setup) -> Engine:
    """Load the model and return the engine for it.

    Raises ConfigError if enrich is another version here, ModelError if the model isn't here or is another one.
    """
    if enrich.__version__ != setup.version:
        raise ConfigError(f"enrich is version {enrich.__version__} here and {setup.version} where the run was started")
    files = find_model(setup.model, setup.digest)
    if files.revision != setup.digest:
        raise ModelError(
            f"model {setup.model}: {files.directory} holds other files ({files.revision[:12]}) than where the run was"
            f" started ({setup.digest[:12]}); copy them"
        )
    model = load_model(files, pick_device(setup.device), setup.dtype)
    tokenizer = Tokenizer(files, chat=setup.chat)
    return make_engine(
        model, tokenizer, setup.params, EngineStats(), deterministic=setup.deterministic, owns_model=True
    )


class Worker:
    """Generates the rows that it is given, in a thread of its own, with so many threads for arithmetic."""

    def __init__(self, engine: Engine, threads: int | None = None) -> None:
        self._engine = engine
        self._threads = threads
        self._changed = threading.Condition()
        self._session = 0
        self._width = self._batch_rows = 1
        self._left: dict[int, Request] = {}  # not finished yet
        self._numbers: list[int] = []  # of the requests that the engine was given
        self._requests: list[Request] = []
        self._finished: list[tuple[int, Completion]] = []
        self._error: BaseException | None = None
        self._is_busy = self._is_stopped = self._may_begin = self._moved = False
        self._reported = self._counts()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def step(self, order: Order) -> Report:
        """Take an order's rows and report. Raises what the engine has raised."""
        with self._changed:
            if order.session != self._session:
                self._begin(order)
            self._may_begin = order.may_begin
            for number, request in order.rows:
                self._left[number] = request
                self._numbers.append(number)  # before the request, which the engine may see at once
                self._requests.append(request)
            self._changed.notify_all()
            enough = max(1, order.batch_rows // _REPORTS_OF_A_BATCH)
            self._changed.wait_for(
                lambda: self._error is not None or self._is_idle or len(self._finished) >= enough, order.seconds
            )
            if self._error is not None:
                error, self._error = self._error, None
                self._left.clear()
                raise error
            return self._report()

    def _begin(self, order: Order) -> None:
        """Break off what was being done, for another session."""
        self._is_stopped = True
        self._changed.wait_for(lambda: not self._is_busy)
        self._session, self._width, self._batch_rows = order.session, order.width, order.batch_rows
        self._left.clear()
        self._finished.clear()
        self._error = None
        self._reported = self._counts()
        self._is_stopped = False

    def _report(self) -> Report:
        finished, self._finished = tuple(self._finished), []
        moved, self._moved = self._moved, False
        before, self._reported = self._reported, self._counts()
        prompt, prefill, new, decode = (now - then for now, then in zip(self._reported, before, strict=True))
        stats, is_idle = self._engine.stats, self._is_idle
        if is_idle:
            self._left.clear()
        return Report(
            self._session, finished, (prompt, prefill, new, decode), stats.slots, stats.active_slots, moved, is_idle
        )

    @property
    def _is_idle(self) -> bool:
        return not self._is_busy and not self._has_work

    @property
    def _has_work(self) -> bool:
        return bool(self._left) and self._may_begin and not self._is_stopped and self._error is None

    def _counts(self) -> Counts:
        stats = self._engine.stats
        return stats.prompt_tokens, stats.prefill_positions, stats.generated_tokens, stats.decode_positions

    def _work(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # of this thread
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_work)
                self._is_busy = True
                self._numbers, self._requests = list(self._left), list(self._left.values())
            error: BaseException | None = None
            try:
                self._generate()
            except BaseException as raised:  # whoever asks next is told
                error = raised
            with self._changed:
                self._is_busy, self._error = False, error
                self._changed.notify_all()

    def _generate(self) -> None:
        """Generate the rows there are, and those that come while they are."""
        numbers = self._numbers
        for place, completion in self._engine.generate(
            self._requests, self._width, self._batch_rows, self._should_stop, lambda: self._may_begin
        ):
            with self._changed:
                self._finished.append((numbers[place], completion))
                del self._left[numbers[place]]
                self._changed.notify_all()

    def _should_stop(self) -> bool:
        self._moved = True
        return self._is_stopped
