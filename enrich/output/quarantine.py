"""The quarantine file: the rows that came by no text that could be published, each with every attempt and why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from enrich.generation import Outcome
from enrich.product import Product
from enrich.storage import durable


def quarantine_path(output: Path) -> Path:
    """Return where the quarantined rows of an output are listed."""
    return output.with_name(f"{output.name}.quarantine.jsonl")


class QuarantineWriter:
    """Writes a line of JSON for each quarantined row, in catalog order; no rows, no file.

    Rows that an earlier run has quarantined keep their line. Use it as a context manager: left without `publish`, it
    leaves the file as it was.
    """

    def __init__(self, output: Path, earlier: Path) -> None:
        """Begin the file beside `output`; `earlier` is the output from which rows are carried over."""
        self._path = quarantine_path(output)
        self._temporary = durable.temporary_of(self._path)
        self._file = self._temporary.open("w", encoding="utf-8")
        self._earlier = quarantine_path(earlier)
        self._attempts: dict[str, list[dict[str, Any]]] | None = None
        self.num_rows = 0

    def write(self, product: Product, outcome: Outcome) -> None:
        """Add a quarantined row."""
        generation = outcome.generation
        attempts = [
            {
                "attempt": attempt.attempt,
                "text": attempt.text,
                "failures": [
                    {"rule": rule, "severity": severity, "reason": reason}
                    for rule, severity, reason in attempt.failures
                ],
            }
            for attempt in outcome.attempts
        ]
        self._line(
            {
                "row": product.ordinal + 1,
                "id": product.id,
                "title": product.title,
                "category": product.category,
                "key": generation.key,
                "reasons": list(generation.flags),
                "attempts": attempts or self._earlier_attempts(generation.key),
            }
        )

    def write_lines(self, lines: Iterable[dict[str, Any]]) -> None:
        """Add lines of other files, in the order of their rows."""
        for line in sorted(lines, key=lambda line: int(line["row"])):
            self._line(line)

    def _line(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.num_rows += 1

    def _earlier_attempts(self, key: str | None) -> list[dict[str, Any]]:
        if key is None:
            return []
        if self._attempts is None:
            self._attempts = {line["key"]: line["attempts"] for line in read_quarantine(self._earlier) if line["key"]}
        return self._attempts.get(key, [])

    def publish(self) -> None:
        """Give the file its name, or remove the one before if nothing is quarantined any more."""
        self._publish(self._path)

    def withhold(self, output: Path) -> None:
        """Give the file the name that belongs to an output which is withheld; the one before stays."""
        self._publish(quarantine_path(output))

    def _publish(self, path: Path) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self.num_rows:
            durable.publish(self._temporary, path)
        else:
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)


def read_quarantine(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a quarantine file; none if there is no file. Lines that are not whole are left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
                line["key"], line["attempts"], int(line["row"])
            except (ValueError, KeyError, TypeError):
                continue
            yield line


def renumbered(lines: Iterable[dict[str, Any]], rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a shard's lines with the rows' numbers in the whole, `rows` being the shard's rows, from 0."""
    for line in lines:
        place = int(line["row"]) - 1
        if 0 <= place < len(rows):
            yield {**line, "row": rows[place] + 1}
