"""The judging crew: processes that clean and judge texts beside the one that generates.

Python's lock is what they are for: while this process judges a text it holds it, and the engine's threads, on a CPU and
on a GPU alike, wait for it between any two of their operations. Members are told the rules once and asked for a batch
of texts in a line of JSON each; a member that is not up yet, is gone or fails costs nothing but time, as this process
judges for it.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar

from enrich.product import Attribute, Product
from enrich.quality import Failure, Rulebook, Severity, Verdict, clean_text
from enrich.stages.process import Process, leave_signals_to_the_starter, processors

log = logging.getLogger("enrich")

_ALONE_ROWS = 500  # fewer rows than these are judged before a process would have paid for its start
_MOST_PROCESSES = 4  # of 28 MiB each; they judge more than one GPU writes
_BATCH = 16  # texts that are asked about at once, but
_LONGEST_SECONDS = 0.1  # is no text kept waiting for others while more come
_ASKED = 4  # batches that a member has at most: a run that is killed loses those, like the rows in flight

Tag = TypeVar("Tag")


@dataclass(frozen=True, slots=True)
class Draft:
    """What a model wrote for a product: not cleaned yet, and whether its length is what ended it.

    `beginning` is the prompt, if the text goes on from it. `book` names the rulebook that it is to be held against.
    """

    text: str
    cut_off: bool
    beginning: str
    product: Product
    book: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The text as cleaned, what cleaning did to it, and what the rules say of it."""

    text: str
    flags: tuple[str, ...]
    verdict: Verdict


def judge(draft: Draft, books: Mapping[str, Rulebook]) -> Judged:
    """Clean a draft and hold it against its rulebook."""
    cleaned = clean_text(draft.text, cut_off=draft.cut_off, beginning=draft.beginning)
    return Judged(cleaned.text, cleaned.flags, books[draft.book].judge(cleaned.text, draft.product))


class JudgingCrew(Generic[Tag]):
    """Judges drafts, each handed in with a tag that it comes back with, in this process until more rows are expected.

    Close it in the end.
    """

    def __init__(self, books: Mapping[str, Rulebook]) -> None:
        self._books = books
        self._members: list[_Member] = []
        self._idle: queue.SimpleQueue[_Member] = queue.SimpleQueue()
        self._up: list[_Member] = []  # of the members, those that know the rules
        self._threads: ThreadPoolExecutor | None = None
        self._gathered: list[tuple[Tag, Draft]] = []  # not asked yet
        self._asked_at = 0.0
        self._asked: deque[tuple[list[Tag], Future[list[Judged]]]] = deque()

    def expect(self, rows: int) -> None:
        """Start the processes if so many rows are worth it and there are processors for them.

        Without rules they never are: to clean a text takes no longer than to send it.
        """
        number = min(processors() - 1, _MOST_PROCESSES)
        is_little = rows < _ALONE_ROWS or all(book.asks_nothing for book in self._books.values())
        if self._members or is_little or number < 1:
            return
        try:
            for _ in range(number):
                self._members.append(_Member(self._books))
        except OSError as error:  # there may be no room for another process
            log.warning("can't start a process that judges texts (%s); %d do", error, len(self._members))
        if not self._members:
            return
        self._threads = ThreadPoolExecutor(len(self._members), "judging")
        for member in self._members:
            self._threads.submit(self._wait_for, member)

    @property
    def processes(self) -> list[int]:
        """The processes' ids."""
        return [member.id for member in self._members]

    def hand_in(self, tag: Tag, draft: Draft) -> None:
        """Give a draft to be judged."""
        self._gathered.append((tag, draft))
        if len(self._gathered) >= _BATCH or time.monotonic() > self._asked_at + _LONGEST_SECONDS:
            self.ask()

    def ask(self) -> None:
        """Have what was handed in judged now, however little it is."""
        if self._threads and self._up and self._gathered:
            self._asked_at = time.monotonic()
            gathered, self._gathered = self._gathered, []
            drafts = [draft for _, draft in gathered]
            self._asked.append(([tag for tag, _ in gathered], self._threads.submit(self._judge, drafts)))

    def judged(self, *, wait: bool = False) -> list[tuple[Tag, Judged]]:
        """Return what has been judged since the last time, in the order handed in; with `wait`, all there is."""
        if not self._up:
            gathered, self._gathered = self._gathered, []
            return [(tag, judge(draft, self._books)) for tag, draft in gathered]
        if wait:
            self.ask()
        most = 0 if wait else _ASKED * len(self._up)
        done: list[tuple[Tag, Judged]] = []
        while self._asked and (len(self._asked) > most or self._asked[0][1].done()):
            tags, judged = self._asked.popleft()
            done += zip(tags, judged.result(), strict=True)
        return done

    def close(self) -> None:
        """End the processes."""
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        for member in self._members:
            member.close()

    def _wait_for(self, member: _Member) -> None:
        if member.is_up():
            self._idle.put(member)
            self._up.append(member)

    def _judge(self, drafts: Sequence[Draft]) -> list[Judged]:
        member = self._idle.get()
        try:
            judged = member.judge(drafts)
        finally:
            self._idle.put(member)
        # What has broken it, if it is a text, is told here as it was always told.
        return judged if judged is not None else [judge(draft, self._books) for draft in drafts]


class _Member:
    """One process, as its starter sees it."""

    def __init__(self, books: Mapping[str, Rulebook]) -> None:
        self._process = Process("enrich.stages.judging_crew")
        self._books = {name: book.as_values() for name, book in books.items()}
        self._is_gone = False

    @property
    def id(self) -> int:
        return self._process.id

    def is_up(self) -> bool:
        """Tell it the rules and wait until it knows them; say whether it does."""
        return self._answer(self._books) is not None

    def judge(self, drafts: Sequence[Draft]) -> list[Judged] | None:
        """Return what it finds, None if it can't find it."""
        if self._is_gone:
            return None
        line = self._answer([_told(draft) for draft in drafts])
        found = json.loads(line) if line else None
        return None if found is None else [_judged(values) for values in found]

    def _answer(self, question: Any) -> bytes | None:
        """Return the line that the process answers with, None if it is gone."""
        told, tells = self._process.told, self._process.tells
        try:
            told.write(_line(question))
            told.flush()
            line = tells.readline()
            if line.endswith(b"\n"):
                return line
        except OSError:
            pass
        self._is_gone = True
        code = self._process.wait()
        log.warning("a process that judges texts is gone (exit code %s); they are judged in this one", code)
        return None

    def close(self) -> None:
        self._process.close()


def _line(values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _told(draft: Draft) -> list[Any]:
    product = draft.product
    attributes = [(attribute.name, attribute.value) for attribute in product.attributes]
    columns = (product.ordinal, product.id, product.title, product.category, attributes, product.description)
    return [draft.text, draft.cut_off, draft.beginning, columns, draft.book]


def _draft(values: list[Any]) -> Draft:
    text, cut_off, beginning, (ordinal, id_, title, category, attributes, description), book = values
    pairs = tuple([Attribute(name, value) for name, value in attributes])
    return Draft(text, cut_off, beginning, Product(ordinal, id_, title, category, pairs, description), book)


def _found(judged: Judged) -> list[Any]:
    failures = [(failure.rule, failure.severity, failure.reason) for failure in judged.verdict.failures]
    return [judged.text, judged.flags, failures]


def _judged(values: list[Any]) -> Judged:
    text, flags, failures = values
    verdict = Verdict(tuple([Failure(rule, Severity(severity), reason) for rule, severity, reason in failures]))
    return Judged(text, tuple(flags), verdict)


def main() -> None:
    """Judge the drafts that come through standard input, until that ends."""
    leave_signals_to_the_starter()
    with suppress(OSError):
        _serve(sys.stdin.buffer, sys.stdout.buffer)


def _serve(told: BinaryIO, tell: BinaryIO) -> None:
    books: dict[str, Rulebook] | None = None
    for line in told:
        if not line.endswith(b"\n"):
            return  # its starter is gone in the midst of it
        values = json.loads(line)
        found: list[list[Any]] | None = []
        if books is None:
            books = {name: Rulebook.of_values(book) for name, book in values.items()}
        else:
            try:
                found = [_found(judge(_draft(one), books)) for one in values]
            except Exception:  # told by the starter, which meets it as well
                found = None
        tell.write(_line(found))
        tell.flush()


if __name__ == "__main__":
    main()
