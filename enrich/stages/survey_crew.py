"""The survey's crew: processes that mark and key batches side by side, for catalogs too large for one core.

They are told what to do and given rows through pipes, as Arrow streams, and end with them.
"""

from __future__ import annotations

import queue
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa

from enrich import errors
from enrich.catalog import Products, Roles
from enrich.errors import EnrichError, TryAgain
from enrich.stages.process import Process, leave_signals_to_the_starter, processors
from enrich.stages.surveyor import Findings, Instructions, Surveyor

_ALONE_ROWS = 32_768  # surveyed in this process before others are started, which takes as long as these
_MOST_PROCESSES = 4  # of some 100 MiB each; reading the catalog keeps no more of them busy
_FOUND = pa.schema(
    [
        ("marks", pa.binary()),
        ("keys", pa.binary()),
        ("last_titled", pa.string()),
        ("untitled", pa.list_(pa.string())),
        ("error_kind", pa.string()),  # a class of enrich.errors, or empty for one that was not foreseen
        ("error", pa.string()),
    ]
)

Batch = tuple[pa.RecordBatch, Products]


def survey_batches(instructions: Instructions, batches: Iterable[Batch]) -> Iterator[Findings]:
    """Yield what is found of each batch, in their order."""
    batches = iter(batches)
    surveyor = Surveyor(instructions)
    rows = 0
    for batch, products in batches:
        yield surveyor.survey(batch, products.where)
        rows += len(batch)
        if rows >= _ALONE_ROWS:
            break
    following = next(batches, None)
    if following is None:
        return
    batches = chain([following], batches)
    processes = min(processors(), _MOST_PROCESSES)
    if processes > 1:
        with SurveyCrew(instructions, processes) as crew:
            yield from crew.survey(batches)
    else:
        yield from (surveyor.survey(batch, products.where) for batch, products in batches)


class SurveyCrew:
    """Processes that survey batches. Use it as a context manager: they live that long."""

    def __init__(self, instructions: Instructions, processes: int) -> None:
        self._columns = _columns(instructions.roles)
        self._idle: queue.SimpleQueue[_Member] = queue.SimpleQueue()
        self._members = [_Member(instructions) for _ in range(processes)]
        self._threads = ThreadPoolExecutor(processes)

    def __enter__(self) -> SurveyCrew:
        for member in self._members:
            self._idle.put(member)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            for member in self._members:
                member.kill()
        self._threads.shutdown(cancel_futures=True)
        for member in self._members:
            member.close()

    @property
    def processes(self) -> list[int]:
        """The processes' ids."""
        return [member.id for member in self._members]

    def survey(self, batches: Iterable[Batch]) -> Iterator[Findings]:
        """Yield what is found of each batch, in their order, a few batches ahead of who takes it.

        Raises what surveying raises, and TryAgain if a process of the crew is gone.
        """
        ahead: deque[Future[Findings]] = deque()
        for batch, products in batches:
            ahead.append(self._threads.submit(self._ask, batch.select(self._columns), products.where))
            if len(ahead) > 2 * len(self._members):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _ask(self, batch: pa.RecordBatch, where: str) -> Findings:
        member = self._idle.get()
        try:
            return member.survey(batch, where)
        finally:
            self._idle.put(member)


def _columns(roles: Roles) -> list[str]:
    single = (roles.id, roles.group, roles.title, roles.category, roles.general_category, roles.description)
    pairs = chain.from_iterable(roles.attribute_pairs)
    return list(dict.fromkeys(name for name in (*single, *roles.attributes, *pairs) if name is not None))


class _Member:
    """One process, as its starter sees it."""

    def __init__(self, instructions: Instructions) -> None:
        self._process = Process("enrich.stages.survey_crew")
        self._instructions = instructions.as_json()
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._reader: pa.ipc.RecordBatchStreamReader | None = None

    @property
    def id(self) -> int:
        return self._process.id

    def survey(self, batch: pa.RecordBatch, where: str) -> Findings:
        told, tells = self._process.told, self._process.tells
        try:
            if self._writer is None:
                told.write(self._instructions.encode() + b"\n")
                self._writer = pa.ipc.new_stream(told, batch.schema)
            self._writer.write_batch(batch, custom_metadata={"where": where.encode("utf-8", "surrogatepass")})
            told.flush()
            if self._reader is None:
                self._reader = pa.ipc.open_stream(tells)
            found = self._reader.read_next_batch().to_pylist()[0]
        except (OSError, StopIteration, pa.ArrowException) as error:
            code = self._process.wait()
            raise TryAgain(
                f"a process that reads the catalog beside this one is gone (exit code {code}); was memory short?"
            ) from error
        if found["error_kind"]:
            raise getattr(errors, found["error_kind"])(found["error"])
        if found["error"]:
            raise RuntimeError(found["error"])
        return Findings(found["marks"], found["keys"], found["last_titled"], tuple(found["untitled"]))

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.close()


def main() -> None:
    """Survey the batches that come through standard input, until that ends, in the midst of something if need be."""
    leave_signals_to_the_starter()
    with suppress(EOFError, OSError, StopIteration, pa.ArrowInvalid):
        _serve(sys.stdin.buffer, sys.stdout.buffer)


def _serve(told: BinaryIO, tell: BinaryIO) -> None:
    line = told.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    instructions, surveyor = Instructions.from_json(line.decode()), None
    batches = pa.ipc.open_stream(told)
    writer = pa.ipc.new_stream(tell, _FOUND)
    while True:
        batch, metadata = batches.read_next_batch_with_custom_metadata()
        found: dict[str, object] = dict.fromkeys(_FOUND.names)
        try:
            surveyor = surveyor or Surveyor(instructions)
            where = metadata["where"].decode("utf-8", "surrogatepass")
            found |= vars(surveyor.survey(batch, where))
        except EnrichError as error:
            found |= {"error_kind": type(error).__name__, "error": str(error)}
        except Exception:
            found |= {"error": traceback.format_exc()}
        writer.write_batch(pa.RecordBatch.from_pylist([found], _FOUND))
        tell.flush()


if __name__ == "__main__":
    main()
