"""The checkpoint: finished rows on disk, so that a run killed at any moment goes on where it was.

`<output>.checkpoint/` holds immutable parts (Parquet) and `manifest.jsonl`. The manifest's first line is the run's
fingerprint; each line after it lists one part. A part is written under another name, synced, renamed, and only then
listed, by one appended and synced line: what is listed is whole, what isn't does not count. A line that a crash cut
short, and a part whose bytes are not the listed ones, are dropped, and their rows done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from enrich.errors import CheckpointMismatch
from enrich.generation import Outcome
from enrich.outcomes import OUTCOME_SCHEMA, outcome_table
from enrich.storage import durable

MANIFEST = "manifest.jsonl"
PROGRESS = "progress.json"  # how far the run is, for `enrich status`; nothing depends on it
WITHHELD = "withheld.parquet"  # an output that must not be published, to look at; the next run removes it
SURVEY = "survey.parquet"  # what was found out about the catalog; it spares a resumed run the time, no more
_FORMAT = 2


@dataclass(frozen=True)
class _Part:
    name: str
    rows: int
    first: int
    last: int
    blake2b: str


@dataclass
class Checkpoint:
    """An open checkpoint. Use it as a context manager: entering it begins it on disk, leaving it commits what is still
    in memory.

    `after_commit` is called with it and the new part when one is listed, the survey when that is kept, and None when it
    is begun or found.
    """

    directory: Path
    run_id: str
    commit_rows: int
    commit_seconds: float
    fingerprint: Mapping[str, Any]
    after_commit: Callable[[Checkpoint, Path | None], None] | None = None
    notes: list[str] = field(default_factory=list)
    num_done: int = 0  # rows committed or about to be
    _parts: list[_Part] = field(default_factory=list)
    _done: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # of each row, as far as any is
    _pending: list[Outcome] = field(default_factory=list)
    _committed_at: float = field(default_factory=time.monotonic)

    @classmethod
    def open(
        cls,
        directory: Path,
        fingerprint: Mapping[str, Any],
        *,
        run_id: str,
        restart: bool = False,
        commit_rows: int = 256,
        commit_seconds: float = 30.0,
        after_commit: Callable[[Checkpoint, Path | None], None] | None = None,
    ) -> Checkpoint:
        """Open the checkpoint in `directory`, or one that is begun there when it is entered.

        Raises CheckpointMismatch, naming the fields that differ, if it was begun with another fingerprint.
        """
        manifest = directory / MANIFEST
        if directory.exists() and (restart or not manifest.exists()):
            shutil.rmtree(directory)  # without a manifest it was killed before that was whole: it holds nothing
        if not manifest.exists():
            return cls(directory, run_id, commit_rows, commit_seconds, fingerprint, after_commit)
        header, listed, whole_bytes = _read_manifest(manifest)
        if not listed and _differences(header["fingerprint"], fingerprint):
            shutil.rmtree(directory)  # of a run that died before it had done anything, which binds nobody
            return cls(directory, run_id, commit_rows, commit_seconds, fingerprint, after_commit)
        _compare(directory, header["fingerprint"], fingerprint)
        checkpoint = cls(directory, header["run_id"], commit_rows, commit_seconds, fingerprint, after_commit)
        checkpoint._load(listed, whole_bytes)
        return checkpoint

    def _begin(self) -> None:
        """Make the directory and its manifest, if they are not there."""
        manifest = self.directory / MANIFEST
        if manifest.exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        header: dict[str, Any] = {
            "format": _FORMAT,
            "run_id": self.run_id,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "fingerprint": self.fingerprint,
        }
        temporary = self.directory / "manifest.tmp"
        temporary.write_text(json.dumps(header) + "\n", encoding="utf-8")
        durable.publish(temporary, manifest)
        durable.sync_directory(self.directory.parent)

    def _load(self, listed: list[_Part], whole_bytes: int) -> None:
        """Take over the whole parts, forget the others."""
        manifest = self.directory / MANIFEST
        if whole_bytes < manifest.stat().st_size:
            os.truncate(manifest, whole_bytes)
        for part in listed:
            path = self.directory / part.name
            if not path.is_file() or _hash(path) != part.blake2b:
                self.notes.append(f"checkpoint part {path} is damaged or gone; its {part.rows} rows are done again")
                continue
            ordinals = pq.read_table(path, columns=["ordinal"])["ordinal"].to_numpy()
            if self._done[ordinals[ordinals < len(self._done)]].any():
                continue  # listed twice
            self._parts.append(part)
            self._mark(ordinals)
        names = {part.name for part in self._parts} | {manifest.name, PROGRESS, SURVEY}
        for path in self.directory.iterdir():
            if path.name not in names:
                path.unlink()
        if len(self._parts) < len(listed):
            header = manifest.read_text(encoding="utf-8").splitlines()[0]
            temporary = self.directory / "manifest.tmp"
            temporary.write_text("\n".join([header, *map(_line, self._parts)]) + "\n", encoding="utf-8")
            durable.publish(temporary, manifest)

    @staticmethod
    def set_aside(directory: Path, fingerprint: Mapping[str, Any], *, but: Collection[str], aside: Path) -> list[str]:
        """Move the parts of a checkpoint to `aside` if its fingerprint differs in fields among `but` and in no other.

        They keep their keys, by which their texts can be found. Returns those fields, none if nothing was moved.
        """
        manifest = directory / MANIFEST
        if not manifest.exists():
            return []
        header, listed, _ = _read_manifest(manifest)
        differences = _differences(header["fingerprint"], fingerprint)
        if not set(differences) <= set(but) or not differences:
            return []
        aside.mkdir(exist_ok=True)
        for part in listed:
            path = directory / part.name
            if path.is_file() and _hash(path) == part.blake2b:
                path.replace(aside / f"{header['run_id']}-{part.name}")
        durable.sync_directory(aside)
        shutil.rmtree(directory)
        return differences

    @staticmethod
    def run_id_of(directory: Path) -> str | None:
        """Return the id of the run that has begun the checkpoint in `directory`; None if there is none."""
        try:
            header, _, _ = _read_manifest(directory / MANIFEST)
        except (OSError, CheckpointMismatch):
            return None
        return str(header["run_id"])

    @property
    def num_listed(self) -> int:
        """How many rows stand in the parts."""
        return sum(part.rows for part in self._parts)

    def is_done(self, ordinal: int) -> bool:
        """Say whether the row has its outcome."""
        return ordinal < len(self._done) and bool(self._done[ordinal])

    def done_mask(self, rows: int) -> np.ndarray:
        """Say of each of the first `rows` rows whether it has its outcome, in an array of bool."""
        done = np.zeros(rows, bool)
        known = self._done[:rows]
        done[: len(known)] = known
        return done

    def add(self, outcome: Outcome) -> None:
        """Take a finished row; commit if enough of them, or enough time, have gathered."""
        self._pending.append(outcome)
        self._mark(np.array([outcome.ordinal]))
        if len(self._pending) >= self.commit_rows or time.monotonic() - self._committed_at >= self.commit_seconds:
            self.commit()

    def commit(self) -> None:
        """Write the rows in memory as one more part and list it."""
        self._committed_at = time.monotonic()
        if not self._pending:
            return
        outcomes = sorted(self._pending, key=lambda outcome: outcome.ordinal)
        number = 1 + max((int(part.name[5:-8]) for part in self._parts), default=0)
        path = self.directory / f"part-{number:06d}.parquet"
        temporary = path.with_suffix(".tmp")
        durable.write_table(outcome_table(outcomes), temporary)
        part = _Part(path.name, len(outcomes), outcomes[0].ordinal, outcomes[-1].ordinal, _hash(temporary))
        durable.publish(temporary, path)
        self._list(part)
        self._parts.append(part)
        self._pending.clear()
        if self.after_commit is not None:
            self.after_commit(self, path)

    def _list(self, part: _Part) -> None:
        manifest = self.directory / MANIFEST
        whole_bytes = manifest.stat().st_size
        try:
            with manifest.open("a", encoding="utf-8") as file:
                file.write(_line(part) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(manifest, whole_bytes)  # or what is listed next would stand behind half a line
            raise

    def outcomes(self) -> Iterator[pa.Table]:
        """Yield the parts as they are, those with the lowest rows first."""
        for part in sorted(self._parts, key=lambda part: part.first):
            yield pq.read_table(self.directory / part.name, schema=OUTCOME_SCHEMA)

    @property
    def has_survey(self) -> bool:
        """Whether there is a survey beside the parts."""
        return (self.directory / SURVEY).is_file()

    def keep_survey(self, table: pa.Table) -> None:
        """Put a survey beside the parts, so that the run that goes on from here need not make it again."""
        path = self.directory / SURVEY
        temporary = path.with_suffix(".tmp")
        durable.write_table(table, temporary)
        durable.publish(temporary, path)
        if self.after_commit is not None:
            self.after_commit(self, path)

    def read_survey(self) -> pa.Table:
        """Return the survey. Raises OSError or ArrowException if it is damaged."""
        return pq.read_table(self.directory / SURVEY, page_checksum_verification=True)

    def _mark(self, ordinals: np.ndarray) -> None:
        longest = int(ordinals.max(initial=-1))
        if longest >= len(self._done):
            self._done = np.pad(self._done, (0, max(longest + 1 - len(self._done), len(self._done))))
        self._done[ordinals] = True
        self.num_done += len(ordinals)

    def remove(self) -> None:
        """Remove the checkpoint from disk, manifest first, so that a half-removed one is none."""
        (self.directory / MANIFEST).unlink()
        shutil.rmtree(self.directory, ignore_errors=True)  # what stays in the way now, the next run removes

    def __enter__(self) -> Checkpoint:
        self._begin()
        if self.after_commit is not None:
            self.after_commit(self, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error, too, finished rows are worth keeping. Not after a KeyboardInterrupt: it may have come in the
        # middle of a commit.
        if kind is None or issubclass(kind, Exception):
            self.commit()


def listed_parts(directory: Path) -> list[str]:
    """Return the names of the parts that a checkpoint's manifest lists. Raises CheckpointMismatch if it is none."""
    _, listed, _ = _read_manifest(directory / MANIFEST)
    return [part.name for part in listed]


def rows_listed(manifest: bytes, name: str) -> int:
    """Return how many rows stand in the parts that a manifest with this content lists; 0 if it is none."""
    try:
        _, listed, _ = _parse_manifest(manifest, name)
    except CheckpointMismatch:
        return 0
    return sum(part.rows for part in listed)


def last_commit(directory: Path) -> float | None:
    """Return when rows were last committed, in seconds since 1970; None if none were."""
    try:
        times = [path.stat().st_mtime for path in directory.glob("part-*.parquet")]
    except OSError:  # being removed just now
        return None
    return max(times, default=None)


def _line(part: _Part) -> str:
    return json.dumps({"part": asdict(part)})


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _read_manifest(manifest: Path) -> tuple[dict[str, Any], list[_Part], int]:
    """Return the header, the parts listed in whole lines, and how many bytes those lines take."""
    return _parse_manifest(manifest.read_bytes(), str(manifest))


def _parse_manifest(content: bytes, manifest: str) -> tuple[dict[str, Any], list[_Part], int]:
    hint = "drop the checkpoint with --restart"
    lines = content.splitlines(keepends=True)
    try:
        header = json.loads(lines[0])
        header_format = header["format"]
        header["fingerprint"].items(), header["run_id"]
    except (IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"{manifest}: not a manifest; {hint}") from error
    if header_format != _FORMAT:
        raise CheckpointMismatch(f"{manifest}: of format {header_format}, this version reads {_FORMAT}; {hint}")
    parts, whole_bytes = [], len(lines[0])
    for line in lines[1:]:
        try:
            part = _Part(**json.loads(line)["part"])
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n") or Path(part.name).name != part.name:
            break
        parts.append(part)
        whole_bytes += len(line)
    return header, parts, whole_bytes


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]


def _compare(directory: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    def shown(value: Any) -> str:
        return json.dumps(value) if len(json.dumps(value)) < 50 else json.dumps(value)[:47] + "..."

    names = _differences(old, new)
    if names:
        differences = "; ".join(f"{name} was {shown(old.get(name))}, is {shown(new.get(name))}" for name in names)
        raise CheckpointMismatch(
            f"{directory} belongs to another run: {differences}."
            " Run it with the former to go on, or drop it with --restart"
        )
