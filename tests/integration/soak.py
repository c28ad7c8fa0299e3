"""Soak: the real command over many rows, its memory, open files and pace looked at from outside.

    python tests/integration/soak.py --rows 10000

Prints a line for each tenth of the time and a verdict; exits with 1 if memory or open files grow, or the pace falls.
Pace is told in tokens per second of processor time: the wall clock of a machine that others use as well tells nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_STRETCHES = 10
_WARM_UP = 0.2  # share of the time in which memory may still grow: caches of cells and of torch fill up
_MOST_GROWTH = 48.0  # MiB, of the median of the last stretches over that of the first after the warm-up
_LEAST_PACE = 0.8  # of the last third over the first third


@dataclass(frozen=True)
class Sample:
    """What was seen of the process at one moment; times in seconds, `wall` since 1970."""

    wall: float
    cpu: float
    rss: float  # MiB
    files: int
    done: int


@dataclass(frozen=True)
class Stretch:
    """A part of the run: what it took and made."""

    seconds: float
    rows: int
    tokens: int
    cpu: float
    rss: float
    files: int

    @property
    def tokens_per_cpu_second(self) -> float:
        return self.tokens / max(self.cpu, 1e-9)


def varied_catalog(rows: int, seed: int = 0) -> pl.DataFrame:
    """Return products of the two samples, each told apart by its colour, size, maker or a few words more."""
    draw = random.Random(seed)
    home = pl.read_csv(ROOT / "sample_catalogs" / "home.csv", infer_schema=False).rename({"sku": "id"})
    others = pl.read_csv(ROOT / "sample_catalogs" / "categories.csv", infer_schema=False).rename({"name": "title"})
    columns = ["title", "category", "brand", "color", "material", "size", "features"]
    products = pl.concat([home, others], how="diagonal").select(columns).rows(named=True)
    colors = ["Walnut", "Sage Green", "Matte Black", "Ivory", "Terracotta", "Slate Blue", "Brushed Brass", ""]
    extras = ["", "", "with Gift Box", "Set of 2", "for Small Spaces", "Large", "Renewed Edition, 2026 Collection"]
    made = []
    for number in range(rows):
        product = dict(draw.choice(products))
        product["color"] = draw.choice(colors) or product["color"]
        product["title"] = " ".join(filter(None, [product["title"], draw.choice(extras)]))
        if draw.random() < 0.3:  # so that all buckets are used
            product["features"] = "; ".join(draw.choice(products)["title"] for _ in range(draw.randint(1, 5)))
        made.append({"id": f"S{number:06d}", **product})
    return pl.DataFrame(made, schema=dict.fromkeys(["id", *columns], pl.String))


def generating(samples: Sequence[Sample], rows: int) -> list[Sample]:
    """Return the looks from the first row done to before the last: loading and publishing open more files."""
    return [sample for sample in samples if 0 < sample.done < rows]


def watched(command: Sequence[str], state: Path, every: float) -> tuple[int, list[Sample]]:
    """Run a command to its end, looking at it every so many seconds; return its exit code and what was seen."""
    samples = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(every)
            sample = _look(process.pid, state)
            if sample is not None:
                samples.append(sample)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return process.returncode, samples


def _look(pid: int, state: Path) -> Sample | None:
    """Return what can be seen of a process; None before it generates, and once it has ended."""
    try:
        done = json.loads(state.read_text(encoding="utf-8"))["done"]
        status = Path(f"/proc/{pid}/status").read_text()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        rss = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return Sample(time.time(), (int(fields[11]) + int(fields[12])) / _TICKS, rss, files, int(done))


def stretches(samples: Sequence[Sample], texts: pl.DataFrame, number: int = _STRETCHES) -> list[Stretch]:
    """Cut the run into parts of one length; `texts` has a row for each: `at`, seconds since 1970, and `tokens`."""
    begin, end = samples[0], samples[-1]
    edges = [begin.wall + (end.wall - begin.wall) * part / number for part in range(number + 1)]
    found = []
    for start, stop in pairwise(edges):
        inside = [sample for sample in samples if start <= sample.wall <= stop]
        made = texts.filter(pl.col("at").is_between(start, stop, closed="left"))
        if len(inside) > 1:
            found.append(
                Stretch(
                    stop - start,
                    len(made),
                    int(made["tokens"].sum()),
                    (inside[-1].cpu - inside[0].cpu) * (stop - start) / (inside[-1].wall - inside[0].wall),
                    max(sample.rss for sample in inside),
                    min(sample.files for sample in inside),  # a part that is being written is open for a moment
                )
            )
    return found


def faults(found: Sequence[Stretch]) -> list[str]:
    """Say what grows that should not, and whether the pace falls."""
    steady = found[max(1, round(len(found) * _WARM_UP)) :]
    told = []
    third = max(1, len(steady) // 3)
    first, last = steady[:third], steady[-third:]
    growth = _median(last, "rss") - _median(first, "rss")
    if growth > _MOST_GROWTH:
        told.append(f"memory grew by {growth:.0f} MiB")
    before, after = (min(one.files for one in part) for part in (first, last))  # a leak is open at every look
    if after > before:
        told.append(f"open files grew from {before} to {after}")
    early, late = _median(first, "tokens_per_cpu_second"), _median(last, "tokens_per_cpu_second")
    if late < _LEAST_PACE * early:
        told.append(f"the pace fell from {early:.0f} to {late:.0f} tokens per second of processor time")
    return told


def _median(found: Sequence[Stretch], name: str) -> float:
    values = sorted(float(getattr(one, name)) for one in found)
    return values[len(values) // 2]


def made_texts(output: Path) -> pl.DataFrame:
    """Return when each generated text of an output was done, and its tokens."""
    generation = pl.col("generation").struct
    return (
        pl.scan_parquet(output, glob=False)
        .filter(generation.field("status") == "generated")
        .select(
            (generation.field("generated_at").dt.epoch("ms") / 1000).alias("at"),
            generation.field("generated_tokens").alias("tokens"),
        )
        .collect()
    )


def soak(rows: int, options: Sequence[str], directory: Path, every: float = 1.0) -> list[Stretch]:
    """Enrich so many varied products and return the run in parts. Raises RuntimeError if the command fails."""
    catalog, output = directory / "catalog.parquet", directory / "out.parquet"
    varied_catalog(rows).write_parquet(catalog)
    command = [sys.executable, "-m", "enrich", "run", str(catalog), "-o", str(output), "-q", *options]
    code, samples = watched(command, directory / "out.parquet.checkpoint" / "progress.json", every)
    if code or not samples:
        raise RuntimeError(f"exit code {code} after {len(samples)} looks")
    found = pl.scan_parquet(output, glob=False).select(pl.len()).collect().item()
    if found != rows:
        raise RuntimeError(f"{rows} rows in, {found} out")
    looks = generating(samples, rows)
    if not looks:
        raise RuntimeError(f"no look at {rows} rows fell between the first row and the last")
    return stretches(looks, made_texts(output))


def main() -> int:
    """Run the soak and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("options", nargs="*", help="of `enrich run`, behind --")
    told = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {told.rows:,} rows", flush=True)
    with tempfile.TemporaryDirectory(prefix="enrich-soak-") as directory:
        found = soak(told.rows, told.options, Path(directory))
    print("minutes    rows  rows/s  tokens/CPU-s  RSS MiB  files")
    passed = 0.0
    for one in found:
        passed += one.seconds
        pace = f"{one.rows / one.seconds:>6.1f}  {one.tokens_per_cpu_second:>12.0f}"
        print(f"{passed / 60:>7.1f}  {one.rows:>6,}  {pace}  {one.rss:>7.0f}  {one.files:>5}")
    wrong = faults(found)
    print("; ".join(wrong) if wrong else "memory, open files and pace are steady")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
