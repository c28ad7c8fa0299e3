"""The harness: nights of a small catalog, runs of them that can be killed or fail, and what must be true afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from points import Plan

HERE = Path(__file__).parent
HOME = HERE.parents[2] / "sample_catalogs" / "home.parquet"
VOLATILE = ["generated_at", "run_id"]
STATUSES = ("generated", "reused", "kept", "quarantined", "skipped", "pending")
# Random weights write all kinds of things; a tenth to a third of the texts break these two rules.
RULES = "all=off,too_short=retry,min_words=3"
OTHER_RULES = "all=off,too_short=retry,min_words=4,shouting=flag"


def seed_of_tests() -> int:
    """Return the seed in ENRICH_TEST_SEED, or a new one."""
    return int(os.environ.get("ENRICH_TEST_SEED") or time.time_ns() % 1_000_000)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: its signal), what it printed, the points that it came by."""

    code: int
    log: str
    points: tuple[dict[str, Any], ...] = ()


class Server:
    """Runs the command in processes forked from one that has everything imported; see `server.py`."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="enrich-crash-")
        self.scratch = Path(self._scratch.name)
        self.scratch.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ENRICH_")},
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
        }
        command = [sys.executable, str(HERE / "server.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        self._answer()

    def run(
        self,
        arguments: Sequence[str],
        directory: Path,
        *,
        plan: Plan | None = None,
        fault: str | None = None,
        fault_options: dict[str, Any] | None = None,
        signals: Sequence[tuple[float, signal.Signals]] = (),
        user: int | None = None,
    ) -> Ended:
        """Run a command in a directory to its end. `signals` are sent after so many seconds each."""
        log, listing = self.scratch / "log", self.scratch / "points"
        listing.unlink(missing_ok=True)
        request = {
            "arguments": list(arguments),
            "directory": str(directory),
            "log": str(log),
            "listing": str(listing) if plan else None,
            "plan": asdict(plan) if plan else {},
            "fault": fault,
            "fault_options": fault_options or {},
            "user": user,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        pid = self._answer()["pid"]
        for seconds, number in signals:
            end = time.monotonic() + seconds
            while time.monotonic() < end and Path(f"/proc/{pid}").exists():
                time.sleep(min(0.005, seconds))
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
        code = self._answer()["code"]
        lines = listing.read_text().splitlines() if listing.exists() else []
        return Ended(code, log.read_text(errors="replace"), tuple(map(json.loads, lines)))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server has ended: {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the server, which takes its time if it is asked to end by itself."""
        self._process.kill()
        self._process.communicate()
        self._scratch.cleanup()


def table(source: Path | bytes) -> pl.DataFrame:
    """Read a published file or a list of changes, without what no two runs have in common."""
    frame = pl.read_parquet(io.BytesIO(source) if isinstance(source, bytes) else source)
    return frame.drop("generation").hstack(frame["generation"].struct.unnest().drop(VOLATILE))


def facts(path: Path) -> dict[str, Any]:
    """Return what a published file says of its run."""
    metadata = pq.ParquetFile(path).metadata.metadata
    value: dict[str, Any] = json.loads(metadata[b"enrich.run"])
    return value


@dataclass(frozen=True)
class State:
    """What lies in an output's directory after a night."""

    published: pl.DataFrame
    changes: pl.DataFrame | None
    quarantine: bytes
    files: frozenset[str]
    counts: dict[str, int]

    @classmethod
    def read(cls, directory: Path) -> State:
        changes, quarantine = directory / "changes.parquet", directory / "out.parquet.quarantine.jsonl"
        summary = facts(directory / "out.parquet")["summary"]
        report = directory / "report.html"
        assert not report.exists() or report.read_text().rstrip().endswith("</html>")
        return cls(
            table(directory / "out.parquet"),
            table(changes) if changes.exists() else None,
            quarantine.read_bytes() if quarantine.exists() else b"",
            frozenset(path.name for path in directory.iterdir()),
            {name: summary[name] for name in ("rows", *STATUSES)},
        )

    def check(self, expected: State, *, changes_too: bool = True) -> None:
        """Raise AssertionError if anything is not as an uninterrupted run has left it."""
        assert self.counts["rows"] == len(self.published) == sum(self.counts[status] for status in STATUSES)
        assert self.counts == expected.counts, f"{self.counts} in place of {expected.counts}"
        assert self.published.columns == expected.published.columns
        for name in expected.published.columns:
            assert self.published[name].equals(expected.published[name]), f"column {name} differs"
        assert self.quarantine == expected.quarantine, "the quarantine file differs"
        if changes_too:
            assert (self.changes is None) == (expected.changes is None)
            assert self.changes is None or self.changes.equals(expected.changes), "the changes differ"
        strange = self.files ^ expected.files
        assert not strange, f"stray or missing files: {sorted(strange)}"


class Reader:
    """Reads a published file again and again, as its users do while runs are killed, and keeps each version it saw."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = threading.Event()
        self._versions: dict[bytes, bytes] = {}
        self._failures: list[BaseException] = []
        self.reads = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended.wait(0.002):
            try:
                content = self._path.read_bytes()
            except OSError as error:
                self._failures.append(error)
                continue
            self._versions[hashlib.blake2b(content).digest()] = content
            self.reads += 1

    def check(self, *allowed: pl.DataFrame) -> None:
        """End, and raise AssertionError if what was seen was ever anything but one of these tables, whole."""
        self._ended.set()
        self._thread.join()
        assert not self._failures, f"a reader met {self._failures[0]!r}"
        for content in self._versions.values():
            seen = table(content)
            assert any(seen.equals(one) for one in allowed), "a reader saw a file that is neither night's"


@dataclass
class Night:
    """A night to be run: a directory as it is before, the command, and what an uninterrupted run makes of it."""

    name: str
    before: Path  # a directory with `in` and `out`
    arguments: list[str]
    expected: State
    points: tuple[dict[str, Any], ...]
    seconds: float
    is_merge: bool = False
    last: pl.DataFrame = field(default_factory=pl.DataFrame)  # last night's published table

    @contextmanager
    def place(self, parent: Path | None = None) -> Iterator[Path]:
        """Lend a copy of the directory before the night; yield where the output lies."""
        with tempfile.TemporaryDirectory(prefix="night-", dir=parent or self.before.parent) as directory:
            shutil.copytree(self.before, directory, dirs_exist_ok=True)
            yield Path(directory) / "out"

    def is_over(self, out: Path) -> bool:
        """Say whether the run had done all but say so: nothing of it is left to go on from."""
        if self.is_merge:
            return not (out / ".out.parquet.merged").exists() and not any(out.glob("out.shard-*.parquet"))
        return not (out / "out.parquet.checkpoint" / "manifest.jsonl").exists() and self._is_published(out)

    def _is_published(self, out: Path) -> bool:
        return not table(out / "out.parquet").equals(self.last)


class Nights:
    """Makes nights in a directory of their own, with one model and one server for all."""

    def __init__(self, server: Server, model: Path, directory: Path, rows: int, commit_rows: int) -> None:
        self.server = server
        self._directory = directory
        self._rows = rows
        self.options = [
            "--model", str(model), "--dtype", "float32", "--max-new-tokens", "16", "--batch-size", "32",
            "--commit-rows", str(commit_rows), "--commit-seconds", "3600", "--max-attempts", "2",
        ]  # fmt: skip

    def run(self, out: Path, arguments: list[str], **options: Any) -> Ended:
        return self.server.run(arguments, out, **options)

    def _begun(self, name: str) -> Path:
        """Make the directory of a night with two catalogs and last night's files."""
        place = self._directory / name
        out = place / "out"
        out.mkdir(parents=True)
        (place / "in").mkdir()
        catalog = self._catalog()
        catalog.write_parquet(place / "in" / "catalog.parquet")
        _another(catalog).write_parquet(place / "in" / "changed.parquet")
        self._succeed(out, self.command("catalog", "--rules", RULES))
        return place

    def _catalog(self) -> pl.DataFrame:
        home = pl.read_parquet(HOME).head(self._rows - 2)
        untitled = home.tail(2).with_columns(title=pl.lit(""), sku=pl.lit(""), description=pl.lit(None, pl.String))
        return pl.concat([home.head(10), untitled, home[10:]])

    def command(self, catalog: str, *more: str) -> list[str]:
        """Return the arguments of a run."""
        return ["run", f"../in/{catalog}.parquet", "-o", "out.parquet", *self.options, *more]

    def _succeed(self, out: Path, arguments: list[str], *codes: int) -> Ended:
        ended = self.run(out, arguments)
        assert ended.code in (codes or (0,)), ended.log
        return ended

    def _night(self, name: str, before: Path, arguments: list[str]) -> Night:
        night = Night(name, before, arguments, None, (), 0.0, arguments[0] == "merge")
        night.last = table(before / "out" / "out.parquet")
        with night.place() as out:
            started = time.monotonic()
            ended = self.run(out, arguments, plan=Plan())
            night.seconds = time.monotonic() - started
            assert ended.code == 0, ended.log
            night.expected, night.points = State.read(out), ended.points
        return night

    @cached_property
    def anew(self) -> Night:
        """All texts are generated, with another seed than last night's."""
        before = self._begun("anew")
        return self._night("all texts anew", before, self.command("catalog", "--rules", RULES, "--seed", "2"))

    @cached_property
    def changed(self) -> Night:
        """The catalog has changed and is in another order; there is a list of changes."""
        before = self._begun("changed")
        (before / "out" / "changes.parquet").write_bytes(b"")  # last night's, taken in long ago
        return self._night("a changed catalog", before, self.command("changed", *self._CHANGES))

    _CHANGES = ("--rules", RULES, "--changes", "changes.parquet")

    @cached_property
    def reported(self) -> Night:
        """The same with a report, which takes longer than all else."""
        before = self._begun("reported")
        arguments = self.command("changed", *self._CHANGES, "--report", "report.html")
        return self._night("a changed catalog, with a report", before, arguments)

    @cached_property
    def left_behind(self) -> Night:
        """Last night's run was killed half-way; since then both catalog and rules have changed."""
        before = self._begun("left-behind")
        out = before / "out"
        killed = self.run(
            out, self.command("catalog", "--rules", RULES, "--seed", "2"), plan=Plan(match="part-00000[4]")
        )
        assert killed.code == -signal.SIGKILL, killed.log
        arguments = self.command("changed", "--rules", OTHER_RULES, "--seed", "2", "--changes", "changes.parquet")
        return self._night("a changed catalog and rules, over a broken-off run", before, arguments)

    @cached_property
    def judged(self) -> Night:
        """Only the rules have changed, and the order of the rows."""
        before = self._begun("judged")
        return self._night("changed rules", before, self.command("changed", "--rules", OTHER_RULES))

    @cached_property
    def merged(self) -> Night:
        """Two shards are there, to be merged."""
        before = self._begun("merged")
        for shard in ("1/2", "2/2"):
            self._succeed(before / "out", self.command("changed", "--rules", RULES, "--shard", shard))
        return self._night("a merge of two shards", before, ["merge", "out.parquet", "--changes", "changes.parquet"])


def _another(catalog: pl.DataFrame) -> pl.DataFrame:
    """Edit some rows, remove some, insert some at the top, and turn the order round."""
    edited = pl.when(pl.int_range(pl.len()) % 6 == 0).then(pl.col("title") + " XL").otherwise(pl.col("title"))
    rows = catalog.with_columns(title=pl.when(pl.col("title") == "").then(pl.lit("")).otherwise(edited))[8:]
    new = catalog.head(8).with_columns(title=pl.col("title") + ", Large", sku=pl.lit("NEW-") + pl.col("sku"))
    return pl.concat([new, rows])[::-1]


def after_a_kill(nights: Nights, night: Night, out: Path, reader: Reader, *, was_over: bool) -> None:
    """Run the night's command again, to the end, and check that all is as if it had never been killed."""
    ended = nights.run(out, night.arguments)
    # Whoever merges what was merged and removed is told that there is nothing to merge.
    is_told = night.is_merge and was_over and ended.code == 4
    assert ended.code == 0 or is_told, ended.log
    assert "Traceback" not in ended.log, ended.log
    # A run that had removed its checkpoint was over: the changes now are those since then, which are none.
    State.read(out).check(night.expected, changes_too=not was_over)
    reader.check(night.last, night.expected.published)


def kinds_of_points(night: Night) -> list[int]:
    """Return one point's number of each kind: operation and name, numbers in names left out."""
    first: dict[tuple[str, str], int] = {}
    for point in night.points:
        name = "".join("#" if letter.isdigit() else letter for letter in point["name"])
        first.setdefault((point["operation"], name), point["point"])
    return list(first.values())


def random_of(*parts: object) -> random.Random:
    return random.Random("/".join(map(str, parts)))
