"""Kills: the command killed at every change of files, without power, at random moments, and again and again.

    python tests/integration/crash/kills.py          # `make crash-test`: all of it, at 300 rows

Prints what was tried, how often, and stops at the first thing that was lost. ENRICH_TEST_SEED repeats a run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from harness import Night, Nights, Reader, Server, after_a_kill, kinds_of_points, random_of, seed_of_tests
from points import Plan


class Kills:
    """Kills runs of nights and counts what it did: `counts` by (what, night), and kills, reruns and reads in all."""

    def __init__(self, nights: Nights, seed: int) -> None:
        self.nights = nights
        self.seed = seed
        self.counts: Counter[tuple[str, str]] = Counter()
        self.total: Counter[str] = Counter()

    def at_point(self, night: Night, number: int, action: str = "kill") -> None:
        """Kill a run before its change of this number, and run it again."""
        what = {"kill": "killed before a change of files", "torn": "power lost, unsynced bytes cut at random"}[action]
        with night.place() as out:
            reader = Reader(out / "out.parquet")
            plan = Plan(at=number, action=action, seed=self.seed + number)
            ended = self.nights.run(out, night.arguments, plan=plan)
            assert ended.code == -signal.SIGKILL, f"point {number} was not reached: {ended.log}"
            self._killed(what, night)
            self._again(night, out, reader, f"{what}: {night.points[number - 1]}")

    def at_random(self, night: Night, number: int) -> None:
        """Kill a run from outside at a random moment, and run it again."""
        rng = random_of(self.seed, night.name, "random", number)
        with night.place() as out:
            reader = Reader(out / "out.parquet")
            seconds = rng.uniform(0, night.seconds)
            ended = self.nights.run(out, night.arguments, signals=[(seconds, signal.SIGKILL)])
            if ended.code == -signal.SIGKILL:
                self._killed("killed at a random moment", night)
            self._again(night, out, reader, f"random moment, after {seconds:.3f} s")

    def again_and_again(self, night: Night, number: int) -> None:
        """Kill a run, the one that goes on from there, and so on, at random points until one gets through."""
        rng = random_of(self.seed, night.name, "chain", number)
        with night.place() as out:
            reader = Reader(out / "out.parquet")
            places = []
            for _ in range(rng.randint(2, 6)):
                at, action = rng.randint(1, max(2, len(night.points) // 2)), rng.choice(["kill", "kill", "torn"])
                places.append((at, action))
                listed = listed_parts(out)
                ended = self.nights.run(out, night.arguments, plan=Plan(at=at, action=action, seed=rng.randint(0, 999)))
                if ended.code != -signal.SIGKILL:
                    assert ended.code == 0 or night.is_merge, ended.log
                    break
                self._killed("killed again and again", night)
                run_id, count = listed_parts(out)
                assert run_id != listed[0] or count >= listed[1], "what was committed has gone"
            self._again(night, out, reader, f"chain {places}")

    def real_process(self, night: Night, number: int) -> None:
        """Kill `python -m enrich` itself at a random moment after its imports, and run the same again."""
        rng = random_of(self.seed, night.name, "process", number)
        with night.place() as out:
            reader = Reader(out / "out.parquet")
            command = [sys.executable, "-m", "enrich", *night.arguments]
            began = time.monotonic()
            process = subprocess.Popen(
                command, cwd=out, env=self.nights.server.environment, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while process.poll() is None and not (out / ".out.parquet.holder").exists():
                time.sleep(0.002)
                assert time.monotonic() - began < 120
            time.sleep(rng.uniform(0, 2.5 * night.seconds))  # with what it still imports while it works
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                self._killed("the real command killed at a random moment", night)
            self._again(night, out, reader, "real command")

    def _killed(self, what: str, night: Night) -> None:
        self.counts[what, night.name] += 1
        self.total["kills"] += 1

    def _again(self, night: Night, out: Path, reader: Reader, where: str) -> None:
        try:
            after_a_kill(self.nights, night, out, reader, was_over=night.is_over(out))
        except AssertionError as error:
            error.add_note(f"after: {where}; night: {night.name}; ENRICH_TEST_SEED={self.seed}")
            raise
        self.total["reruns"] += 1
        self.total["reads"] += reader.reads


def listed_parts(out: Path) -> tuple[str | None, int]:
    """Return which run's checkpoint there is, if any, and how many parts it has."""
    manifest = out / "out.parquet.checkpoint" / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True) if manifest.exists() else []
    if not lines:
        return None, 0
    return json.loads(lines[0])["run_id"], sum(line.endswith(b"\n") for line in lines[1:])


def syncs(night: Night) -> list[int]:
    """Return the points at which a file's bytes are about to be made durable."""
    return [
        point["point"]
        for point in night.points
        if point["operation"] == "fsync" and Path(point["name"]).suffix not in ("", ".checkpoint", ".old")
    ]


def short_form(kills: Kills, night: Night, num_points: int) -> None:
    """Kill one run at some of each kind of point, without power, at random, and again and again."""
    rng = random_of(kills.seed, night.name, "short")
    for number in sorted(rng.sample(kinds_of_points(night), num_points)):
        kills.at_point(night, number)
    kills.at_point(night, rng.choice(syncs(night)), "torn")
    kills.at_random(night, 0)
    kills.again_and_again(night, 0)


def long_form(
    kills: Kills, say: Callable[[str], None], *, num_random: int, num_chains: int, processes: int, only: str = ""
) -> None:
    """Kill every night at every point, and the other ways, saying what was done."""
    nights = kills.nights
    made = [nights.anew, nights.changed, nights.left_behind, nights.judged, nights.merged]

    def each(what: str, night: Night, kill: Callable[..., None], numbers: Iterable[int], *more: str) -> None:
        if not re.search(only, f"{night.name}: {what}"):
            return
        started, before = time.monotonic(), kills.total["kills"]
        for number in numbers:
            kill(night, number, *more)
        done = kills.total["kills"] - before
        say(f"{done:>5} kills  {time.monotonic() - started:>6.0f} s  {night.name}: {what}; nothing lost")

    for night in made:
        # Those two do what the others do, and little beside.
        is_alike = night in (nights.left_behind, nights.judged)
        points = kinds_of_points(night) if is_alike else [point["point"] for point in night.points]
        which = f"one of each kind of the {len(night.points)}" if is_alike else f"each of {len(points)}"
        each(f"before {which} changes of files", night, kills.at_point, points)
        each("power lost before each sync, unsynced bytes cut", night, kills.at_point, syncs(night), "torn")
        each("at random moments", night, kills.at_random, range(num_random))
        each("again and again", night, kills.again_and_again, range(num_chains))
    night = nights.reported
    last = [point["point"] for point in night.points if point["name"] == "out.parquet"][-1]
    points = range(last, len(night.points) + 1)
    each(f"before each of the last {len(points)} changes of files", night, kills.at_point, points)
    for night in (nights.anew, nights.merged):
        each("python -m enrich, at random moments", night, kills.real_process, range(processes))


def main() -> int:
    """Run the long form and print what it did."""
    parser = argparse.ArgumentParser(description="Kill runs everywhere and count what is lost.")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--commit-rows", type=int, default=64)
    parser.add_argument("--random", type=int, default=6, help="kills at random moments, for each night")
    parser.add_argument("--chains", type=int, default=3, help="runs killed again and again, for each night")
    parser.add_argument("--processes", type=int, default=15, help="kills of the real command, for two of the nights")
    parser.add_argument("--only", default="", help="what is to be done, as a pattern of the lines that are printed")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from conftest import save_gpt2

    seed, started = seed_of_tests(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="enrich-kills-") as directory:
        save_gpt2(Path(directory) / "tiny-gpt2")
        server = Server()
        try:
            nights = Nights(
                server, Path(directory) / "tiny-gpt2", Path(directory) / "nights", options.rows, options.commit_rows
            )
            kills = Kills(nights, seed)
            print(f"{options.rows} rows, a part every {options.commit_rows}, ENRICH_TEST_SEED={seed}", flush=True)
            long_form(
                kills,
                lambda line: print(line, flush=True),
                num_random=options.random,
                num_chains=options.chains,
                processes=options.processes,
                only=options.only,
            )
        finally:
            server.close()
    total = kills.total
    print(
        f"{total['kills']} kills, {total['reruns']} nights run to their end afterwards,"
        f" {total['reads']:,} readings of the published file in {time.monotonic() - started:.0f} s:"
        " rows, texts and files of every night as without a kill; lost: nothing"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
