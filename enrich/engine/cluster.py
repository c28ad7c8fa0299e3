"""The cluster: workers as Ray actors, on this machine or on many. Ray starts them, and starts them again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from enrich.engine.loading import pick_dtype
from enrich.engine.protocol import EngineStats
from enrich.engine.worker import Order, Report, Setup, Worker, load_engine
from enrich.engine.workers import Event, WorkersEngine
from enrich.errors import ConfigError, EnrichError, Interrupted, TryAgain, one_line

log = logging.getLogger("enrich")

_RESTARTS = 3  # of each worker
_START_SECONDS = 1800.0  # without any worker, until it is given up: large models take their time to load
_RETRY_SECONDS = 1.0
_ASKED_SECONDS = 0.25  # while workers load, whether to stop
_CONNECT_SECONDS = 10.0
_STORE_BYTES = 256 * 2**20  # of shared memory on this machine, which rows and texts hardly use


@dataclass(frozen=True, slots=True)
class Share:
    """What each of so many workers has of its machine."""

    workers: int
    cpus: int
    gpus: int = 0


def share_of(nodes: Sequence[Mapping[str, float]], workers: int | None, device: str) -> Share:
    """Divide machines, each with its "CPU" and "GPU", among so many workers.

    By default that is one for every GPU or, on the CPU, one for every machine. Raises ConfigError if there is no room
    for a single one.
    """
    if device == "cuda":
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if not gpus:
            raise ConfigError("--device cuda: the Ray cluster has no GPU; use --device cpu")
        return Share(workers or gpus, 1, 1)
    cores = sorted((int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1), reverse=True)
    if not cores:
        raise ConfigError("--ray: the Ray cluster has no CPU to give away; start its nodes with --num-cpus")
    if workers is None:
        return Share(sum(count // cores[-1] for count in cores), cores[-1])
    # The largest share of which there are enough; where there are more workers than cores, some must wait.
    shares = range(cores[0], 0, -1)
    return Share(workers, next((cpus for cpus in shares if sum(count // cpus for count in cores) >= workers), 1))


class EnrichWorker:
    """The actor: a worker, and what it says of itself."""

    def __init__(self, setup: Setup, is_elsewhere: bool) -> None:
        self._setup = setup
        self._is_elsewhere = is_elsewhere
        self._worker: Worker | None = None

    def load(self) -> str:
        """Load the model, if it isn't yet; return the machine's address. Errors name it, if it may be another's."""
        import ray

        address: str = ray.util.get_node_ip_address()
        try:
            if self._worker is None:
                self._worker = Worker(load_engine(self._setup), self._setup.threads)
        except EnrichError as error:
            if self._is_elsewhere:
                raise type(error)(f"{error} (on {address})") from error
            raise
        return address

    def step(self, order: Order) -> Report:
        """Take an order's rows and report."""
        assert self._worker is not None
        return self._worker.step(order)


class Cluster:
    """A connection to Ray: one that is started here and ends with it, or the one at an address."""

    def __init__(self, address: str | None, workers: int | None) -> None:
        import ray

        self._ray: Any = ray
        self._address, self._workers = address, workers
        self._actors: list[Any] = []
        self._closing = ExitStack()
        self._is_ours = not ray.is_initialized()  # if it isn't, it stays the caller's
        if self._is_ours:
            try:
                self._connect()
            except BaseException:
                self.close()
                raise

    def _connect(self) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings: dict[str, Any] = {
            "address": self._address or "local", "configure_logging": False, "log_to_driver": False,
        }  # fmt: skip
        if self._address is None:
            os.environ.setdefault("RAY_worker_niceness", "0")  # as if there were no workers
            # Ray's logs, which it would leave behind.
            directory = tempfile.TemporaryDirectory(prefix="enrich-ray-", ignore_cleanup_errors=True)
            settings |= {
                "num_cpus": max(_cores(), self._workers or 1),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": self._closing.enter_context(directory),
            }
        else:
            _check_reachable(self._address)
        self._closing.callback(self._ray.shutdown)
        where = self._address or "on this machine"
        log.info("%s Ray %s", "joining" if self._address else "starting", where)
        with _own_signals():
            try:
                self._ray.init(**settings)
            except EnrichError:
                raise
            except (ConnectionError, TimeoutError) as error:
                raise TryAgain(f"--ray {self._address}: can't be reached: {one_line(error)}") from error
            except Exception as error:  # many kinds, from other versions of Ray to ports that are taken
                raise ConfigError(f"Ray {where}: can't be used: {one_line(error)}") from error

    @property
    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def device(self, wanted: str) -> str:
        """Return the device that workers compute on."""
        if wanted != "auto":
            return wanted
        return "cuda" if any(node.get("GPU", 0) for node in self._nodes) else "cpu"

    def dtype(self, wanted: str, device: str) -> str:
        """Return the number format that workers use, as a machine of the cluster finds it."""
        if wanted != "auto":
            return wanted
        asked = self._ray.remote(pick_dtype).options(num_gpus=int(device == "cuda"), num_cpus=1)
        found: str = self._get(asked.remote(wanted, device))
        return found

    def _get(self, reference: Any) -> Any:
        """Return what a call has returned; raise what it has raised, as itself."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def engine(self, setup: Setup, stats: EngineStats, should_stop: Callable[[], int]) -> WorkersEngine:
        """Start the workers and return the engine that they are, once the first is there or the run is to stop."""
        share = share_of(self._nodes, self._workers, setup.device)
        threads = None
        if not share.gpus:
            threads = share.cpus if self._address else max(1, torch.get_num_threads() // share.workers)
        remote = self._ray.remote(EnrichWorker).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=_RESTARTS, max_task_retries=0
        )
        self._actors = [
            remote.remote(replace(setup, threads=threads), bool(self._address)) for _ in range(share.workers)
        ]
        what = "a GPU" if share.gpus else f"{threads} threads"
        log.info("%d workers with %s each load %s (%s)", share.workers, what, setup.model, setup.digest[:12])
        pool = _ActorPool(self._ray, self._actors)
        while not pool.there and not should_stop():
            list(pool.events(_ASKED_SECONDS))  # of which there are none while no worker has rows
        return WorkersEngine(pool, stats)

    def close(self) -> None:
        """End the workers, and what was started with them."""
        if self._address or not self._is_ours:  # else they end with Ray
            with suppress(Exception):  # of those that are dead, or of a Ray that is
                for actor in self._actors:
                    self._ray.kill(actor)
        self._actors = []
        self._closing.close()


class _ActorPool:
    """Ray's actors as a pool of workers: each has at most one call under way, for its model or for its rows."""

    def __init__(self, ray: Any, actors: Sequence[Any]) -> None:
        self._ray = ray
        self._actors = dict(enumerate(actors, 1))
        self._loading = {actor.load.remote(): worker for worker, actor in self._actors.items()}
        self._working: dict[Any, int] = {}
        self._there: set[int] = set()
        self._load_at: dict[int, float] = {}  # workers that may be starting again
        self._there_at = time.monotonic()
        self._last_words = "none was started"

    @property
    def there(self) -> Collection[int]:
        return self._there

    @property
    def free(self) -> Collection[int]:
        return sorted(self._there.difference(self._working.values()))

    def order(self, worker: int, order: Order) -> None:
        self._working[self._actors[worker].step.remote(order)] = worker

    def events(self, seconds: float) -> Iterator[Event]:
        self._check_alive()
        for worker in [worker for worker, at in self._load_at.items() if at <= time.monotonic()]:
            del self._load_at[worker]
            self._loading[self._actors[worker].load.remote()] = worker
        calls = [*self._loading, *self._working]
        if not calls:
            time.sleep(min(seconds, _RETRY_SECONDS))
            return
        self._ray.wait(calls, timeout=seconds)
        answered, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)  # all that have come by now
        for call in answered:
            is_loaded = call in self._loading
            worker = self._loading.pop(call) if is_loaded else self._working.pop(call)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                yield from self._gone(worker, error)
                continue
            if is_loaded:
                self._there.add(worker)
                log.info("worker %d of %d is ready on %s", worker, len(self._actors), answer)
            else:
                yield Event(worker, answer)

    def _gone(self, worker: int, error: Exception) -> Iterator[Event]:
        """Let go of a worker that has died, unless Ray starts it again."""
        self._last_words = one_line(error)
        if isinstance(error, self._ray.exceptions.ActorDiedError):
            del self._actors[worker]
        else:
            self._load_at[worker] = time.monotonic() + _RETRY_SECONDS
        if worker in self._there:
            self._there.remove(worker)
            yield Event(worker, None)

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._there:
            self._there_at = now
        if not self._actors or now - self._there_at > _START_SECONDS:
            why = "has died" if not self._actors else f"has come up in {_START_SECONDS:.0f} s"
            every = "every worker" if not self._actors else "no worker"
            raise TryAgain(f"{every} {why}: {self._last_words}")


def _check_reachable(address: str) -> None:
    """Raise TryAgain if nothing listens at a host and port; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise TryAgain(f"--ray {address}: can't be reached: {one_line(error)}") from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray's handler for SIGTERM, which ends the process, from staying; what it heard is told to ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if callable(before):
            before(signal.SIGTERM, None)
            raise Interrupted(signal.SIGTERM, "stopped by SIGTERM: Ray was being started, nothing is lost") from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
