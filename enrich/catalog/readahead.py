"""ReadAhead: Arrow's CSV reader, kept from reading too far ahead and from outliving its use.

It reads in a thread of its own: half a gigabyte ahead of a slow run, and on after a row has been refused. An
interpreter that ends while that thread reads, or lets go of a Python object, is aborted, and its exit code is lost.
"""

from __future__ import annotations

import atexit
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.csv

from enrich.catalog.streams import CHUNK

_MOST_HELD = 6  # objects: four blocks of text (it needs three to go on), the file, what is called for a bad row
_LONGEST_WAIT = 5.0  # seconds: on a busy machine Arrow lets go late


class ReadAhead:
    """Record batches of a CSV text given in chunks of bytes.

    Whatever the chunks raise is raised here too. To be used as a context manager: nothing is read before, and when it
    is left, Arrow holds nothing any more.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        block_size: int,
        columns: list[str],
        delimiter: str,
        refuse: Callable[[pa.csv.InvalidRow], str],
    ) -> None:
        """Take the chunks; `refuse` is called, in Arrow's thread, with a row of another number of fields."""
        self._text = io.BufferedReader(_Chunks(chunks), CHUNK)
        self._block_size, self._columns, self._delimiter, self._refuse = block_size, columns, delimiter, refuse
        self._reader: Any = None
        self._fault: BaseException | None = None
        self.held = 0  # objects, by Arrow
        self._is_over = False
        self._changed = threading.Condition()

    def __enter__(self) -> ReadAhead:
        atexit.register(self._close)  # for who never comes to the end: an exit in the midst of reading
        try:
            self._reader = self._raising(self._open)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    @property
    def names(self) -> list[str]:
        """The header's names as Arrow reads them."""
        return list(self._reader.schema.names)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._raising(self._next)) is not None:
            yield batch

    def _next(self) -> pa.RecordBatch | None:
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            return None

    def _open(self) -> pa.csv.CSVStreamingReader:
        return pa.csv.open_csv(
            self._hold(_File(self._read)),
            pa.csv.ReadOptions(use_threads=False, block_size=self._block_size),
            pa.csv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=True,
                invalid_row_handler=self._hold(lambda row: self._refuse(row)),
            ),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(self._columns, pa.string()), strings_can_be_null=False),
        )

    def _raising(self, step: Callable[[], Any]) -> Any:
        """Return what the step returns, unless reading the text failed, of which Arrow is told as of its end."""
        try:
            done = step()
        except pa.ArrowException:
            if self._fault:
                raise self._fault from None
            raise
        if self._fault:
            raise self._fault
        return done

    def _read(self, size: int) -> Any:
        """Return the next bytes, as a memoryview, once there is room for them; none when Arrow is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self.held < _MOST_HELD)
        block = b""
        try:
            if not self._is_over:
                block = self._text.read(size)
        except BaseException as error:  # not through Arrow: its traceback would hold what is to be let go of
            self._fault = error
        return self._hold(memoryview(block))  # bytes can't be referred to weakly

    def _hold(self, one: Any) -> Any:
        """Count an object, which is for Arrow alone, until nobody holds it any more."""
        with self._changed:
            self.held += 1
        weakref.finalize(one, self._let_go).atexit = False
        return one

    def _let_go(self) -> None:
        with self._changed:
            self.held -= 1
            self._changed.notify_all()

    def _close(self) -> None:
        atexit.unregister(self._close)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._reader = None
        with self._changed:
            self._changed.wait_for(lambda: not self.held, _LONGEST_WAIT)


class _File:
    """What Arrow asks of a file."""

    closed = False

    def __init__(self, read: Callable[[int], memoryview]) -> None:
        self.read = read

    def close(self) -> None:
        """Do nothing: the chunks' own file is closed with them."""


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a file that can be read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
