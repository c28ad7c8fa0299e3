"""Workers without Ray: a pool of threads stands in for the actors, and dies as they do."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import polars as pl
import pytest

from enrich.engine.cluster import Share, share_of
from enrich.engine.protocol import Completion, EngineStats, Request, always
from enrich.engine.waiting import Waiting
from enrich.engine.worker import Order, Report, Worker
from enrich.engine.workers import Event, WorkersEngine
from enrich.errors import ConfigError, ModelError, TryAgain


class Echo:
    """An engine that says the seed and attempt of each row, a row a step, and keeps to the protocol."""

    pads = True

    def __init__(self, seconds: float = 0.0005) -> None:
        self.stats = EngineStats()
        self.seconds = seconds
        self.began: list[int] = []
        self.hangs = threading.Event()
        self.fails_at: int | None = None

    def generate(
        self,
        requests: Sequence[Request],
        width: int,
        batch_rows: int,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        waiting = Waiting(requests)
        while waiting and not should_stop() and may_begin():
            batch = waiting.take(batch_rows)
            self.began += [request.seed for _, request in batch]
            for index, request in batch:
                while self.hangs.is_set() and not should_stop():
                    time.sleep(0.001)
                if should_stop():
                    return
                if request.seed == self.fails_at:
                    raise ModelError("scores are no numbers")
                time.sleep(self.seconds)
                self.stats.count(1, width, 2, 2)
                yield index, Completion((request.seed, request.attempt), "stop")


class Threads:
    """A pool of workers in this process. One that is killed comes back with a new engine while it has lives left."""

    def __init__(self, engines: Sequence[Echo], lives: int = 3) -> None:
        self.engines = list(engines)
        self.lives = [lives] * len(self.engines)
        self.orders: list[tuple[int, Order]] = []
        self._workers: dict[int, Worker] = {number: Worker(engine) for number, engine in enumerate(self.engines)}
        self._asked: dict[int, Order] = {}
        self._gone: list[int] = []

    @property
    def there(self) -> Collection[int]:
        return set(self._workers)

    @property
    def free(self) -> Collection[int]:
        return sorted(self.there - self._asked.keys())

    def order(self, worker: int, order: Order) -> None:
        assert worker in self.free
        self.orders.append((worker, order))
        self._asked[worker] = order

    def kill(self, worker: int) -> None:
        del self._workers[worker]
        self._asked.pop(worker, None)
        self._gone.append(worker)

    def events(self, seconds: float) -> Iterator[Event]:
        gone, self._gone = self._gone, []
        for worker in gone:
            yield Event(worker, None)
            self.lives[worker] -= 1
            if self.lives[worker]:
                self._workers[worker] = Worker(Echo())
        if not self._workers:
            raise TryAgain("every worker has died")
        for worker, order in list(self._asked.items()):
            if self._asked.pop(worker, None):
                yield Event(worker, self._workers[worker].step(order))


def rows(count: int, first: int = 0) -> list[Request]:
    return [Request((1, 2), seed) for seed in range(first, first + count)]


def generated(engine: WorkersEngine, requests: Sequence[Request], batch_rows: int = 8, **options: Any) -> list[int]:
    """Generate all, and hold that each came once, as itself; return the order in which they came."""
    order = []
    for index, completion in engine.generate(requests, 4, batch_rows, options.pop("should_stop", lambda: False)):
        assert completion.token_ids == (requests[index].seed, requests[index].attempt)
        order.append(index)
    assert sorted(order) == list(range(len(requests)))
    return order


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_every_row_comes_once_however_many_workers(workers: int, count: int) -> None:
    # Slow enough that who is given a processor first makes no difference.
    pool, stats = Threads([Echo(0.005 if count == 100 else 0.0005) for _ in range(workers)]), EngineStats()
    generated(WorkersEngine(pool, stats), rows(count))
    assert (stats.prompt_tokens, stats.prefill_positions) == (count, 4 * count)
    assert (stats.generated_tokens, stats.decode_positions) == (2 * count, 2 * count)
    assert stats.slots == 0
    if count == 100:
        began = [len(engine.began) for engine in pool.engines]
        assert max(began) - min(began) <= 24  # rows are shared out, whoever is a little faster


def test_buckets_follow_each_other_and_rows_may_come_while_others_are_done() -> None:
    pool = Threads([Echo(), Echo()])
    engine = WorkersEngine(pool, EngineStats())
    for count in (30, 5, 50):
        requests = rows(count)
        for index, _ in engine.generate(requests, 4, 8, lambda: False):
            if index % 3 == 0 and requests[index].attempt < 3:
                requests.append(Request((1, 2), requests[index].seed, requests[index].attempt + 1))
        assert len(requests) > count
        generated(engine, rows(count))
    assert len({order.session for _, order in pool.orders}) >= 6  # none is taken for another's


def test_the_last_rows_are_shared_and_none_has_many_more_than_it_computes_at_once() -> None:
    pool = Threads([Echo(), Echo()])
    generated(WorkersEngine(pool, EngineStats()), rows(20), batch_rows=64)
    assert [len(order.rows) for _, order in pool.orders[:2]] == [10, 10]
    pool = Threads([Echo(), Echo()])
    generated(WorkersEngine(pool, EngineStats()), rows(100), batch_rows=16)
    assert max(len(order.rows) for _, order in pool.orders) == 24


@pytest.mark.parametrize("deaths", [1, 2, 4])
def test_a_dead_workers_rows_are_done_by_others(deaths: int) -> None:
    pool, requests = Threads([Echo(0.002), Echo(0.002)]), rows(120)
    seen: list[int] = []
    for index, completion in WorkersEngine(pool, EngineStats()).generate(requests, 4, 8, lambda: False):
        assert completion.token_ids == (requests[index].seed, 1)
        seen.append(index)
        if len(seen) in (20, 40, 60, 80)[:deaths]:
            victim = len(seen) // 20 % 2
            if victim in pool.there:
                pool.kill(victim)
    assert sorted(seen) == list(range(120))


def test_without_a_worker_left_the_same_command_is_to_come_again() -> None:
    pool = Threads([Echo(), Echo()], lives=1)
    found = WorkersEngine(pool, EngineStats()).generate(rows(50), 4, 8, lambda: False)
    next(found)
    pool.kill(0)
    pool.kill(1)
    with pytest.raises(TryAgain, match="every worker"):
        list(found)


def test_what_an_engine_raises_comes_out_as_itself() -> None:
    engines = [Echo(), Echo()]
    engines[1].fails_at = 30
    engines[0].fails_at = 30
    with pytest.raises(ModelError, match=r"^scores are no numbers$"):
        generated(WorkersEngine(Threads(engines), EngineStats()), rows(60))


def test_a_run_that_is_stopped_ends_with_rows_in_flight() -> None:
    pool = Threads([Echo(0.01), Echo(0.01)])
    seen: list[int] = []
    for index, _ in WorkersEngine(pool, EngineStats()).generate(rows(500), 4, 8, lambda: len(seen) >= 5):
        seen.append(index)
    assert 5 <= len(seen) < 30


def test_rows_that_are_begun_are_finished_and_no_others_once_time_is_up() -> None:
    engines = [Echo(0.002), Echo(0.002)]
    stats = EngineStats()
    seen: list[int] = []
    engine = WorkersEngine(Threads(engines), stats)
    for index, _ in engine.generate(rows(500), 4, 8, lambda: False, lambda: len(seen) < 20):
        seen.append(index)
    began = [seed for one in engines for seed in one.began]
    assert sorted(began) == sorted(seen)
    assert 20 <= len(seen) <= 100
    assert stats.workers == 2


def test_nothing_is_begun_without_time() -> None:
    engines = [Echo()]
    found = WorkersEngine(Threads(engines), EngineStats()).generate(rows(5), 4, 8, lambda: False, lambda: False)
    assert list(found) == []
    assert engines[0].began == []


def test_a_run_does_not_count_as_moving_while_its_workers_hang() -> None:
    engine = Echo()
    asked: list[float] = []

    def should_stop() -> bool:
        asked.append(time.monotonic())
        return False

    class Hanging(Echo):
        def generate(self, *args: Any, **options: Any) -> Iterator[tuple[int, Completion]]:
            time.sleep(1.2)  # without asking
            yield from super().generate(*args, **options)

    engine = Hanging()
    found = list(WorkersEngine(Threads([engine]), EngineStats()).generate(rows(3), 4, 8, should_stop))
    assert len(found) == 3
    assert max(after - before for before, after in itertools.pairwise(asked)) > 0.7


def step(worker: Worker, session: int, first: int, count: int, **options: Any) -> Report:
    numbered = tuple(enumerate(rows(count, first), first))
    return worker.step(Order(session, 4, 8, numbered, options.get("may_begin", True), options.get("seconds", 5.0)))


def test_a_worker_forgets_the_rows_of_another_session() -> None:
    engine = Echo()
    worker = Worker(engine)
    engine.hangs.set()
    assert step(worker, 1, 0, 20, seconds=0.05).finished == ()
    engine.hangs.clear()
    found: list[int] = []
    report = step(worker, 2, 100, 20)
    while True:
        found += [number for number, _ in report.finished]
        assert report.session == 2
        if report.is_idle:
            break
        report = step(worker, 2, 0, 0)
    assert sorted(found) == list(range(100, 120))


def test_a_worker_reports_when_there_is_enough_to_tell() -> None:
    worker = Worker(Echo(0.02))
    started = time.monotonic()
    report = step(worker, 1, 0, 8, seconds=10.0)
    assert len(report.finished) == 1  # an eighth of a batch
    assert time.monotonic() - started < 1
    assert report.moved
    assert not report.is_idle


def test_a_worker_that_may_not_begin_gives_its_rows_back() -> None:
    report = step(Worker(Echo()), 1, 0, 8, may_begin=False)
    assert report.is_idle
    assert report.finished == ()


HEAD, NODE = {"CPU": 4.0}, {"CPU": 16.0}
GPUS = {"CPU": 8.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "share"),
    [
        ([{"CPU": 2.0}], None, "cpu", Share(1, 2)),
        ([{"CPU": 2.0}], 2, "cpu", Share(2, 1)),
        ([{"CPU": 8.0}], 3, "cpu", Share(3, 2)),
        ([{"CPU": 2.0}], 5, "cpu", Share(5, 1)),
        ([NODE, NODE, HEAD], None, "cpu", Share(9, 4)),
        ([NODE, NODE], None, "cpu", Share(2, 16)),
        ([NODE, NODE, HEAD], 2, "cpu", Share(2, 16)),
        ([NODE, NODE, HEAD], 3, "cpu", Share(3, 8)),
        ([{"memory": 1.0}, HEAD], None, "cpu", Share(1, 4)),
        ([HEAD, GPUS, GPUS], None, "cuda", Share(8, 1, 1)),
        ([HEAD, GPUS, GPUS], 2, "cuda", Share(2, 1, 1)),
    ],
)
def test_every_worker_has_a_share(nodes: Any, workers: int | None, device: str, share: Share) -> None:
    assert share_of(nodes, workers, device) == share


def test_a_cluster_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        share_of([HEAD], 1, "cuda")
    with pytest.raises(ConfigError, match="no CPU"):
        share_of([{"memory": 1.0}], None, "cpu")


@pytest.mark.parametrize(("options", "named"), [({"workers": 2}, "--workers"), ({"ray": "auto"}, "--ray")])
def test_without_ray_the_extra_is_named(
    enrich: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr("enrich.stages.setup.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"^{named} needs Ray: pip install 'enrich\[ray\]'$"):
        enrich(pl.DataFrame({"title": ["Mug"]}), **options)
