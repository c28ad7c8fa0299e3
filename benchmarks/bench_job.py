"""Measure what a whole run costs beside the engine alone on the same requests; see benchmarks/README.md.

    python benchmarks/bench_job.py [--catalog FILE] [--rows 2000] [--model home-mini] [--rules on,off] [--repeat 3]
    python benchmarks/bench_job.py --judges 0,1,2 [--rows 6000]
    python benchmarks/bench_job.py --memory 2000,200000

Run and engine take turns in one process, on one model that is loaded before the clock starts. The engine is given,
bucket by bucket, the requests that the run gave it, second attempts as the first are done. --judges tells how many
texts a second a run takes from an engine that answers at once, with what it has generated in a run before, by the
number of processes that judge them beside it. --memory runs the command on a model so small that its passes hardly
count, in a process for each number of rows, and tells the most that was resident.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import torch

from enrich import RunConfig, job, run
from enrich.checkpoint import Checkpoint
from enrich.engine.choice import make_engine
from enrich.engine.continuous import ContinuousEngine
from enrich.engine.files import find_model
from enrich.engine.loading import load_model, pick_dtype
from enrich.engine.protocol import Completion, EngineStats
from enrich.stages import generate as generation
from enrich.stages import judging_crew
from enrich.stages.judging_crew import JudgingCrew
from enrich.stages.setup import Run

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample_catalogs" / "home.parquet"
STAGES: dict[str, tuple[Any, str]] = {
    "prepare": (job, "prepare"),
    "survey": (job, "survey_catalog"),
    "decode": (Run, "draft"),
    "hand in": (JudgingCrew, "hand_in"),
    "judged": (JudgingCrew, "judged"),
    "outcome": (generation, "_outcome"),
    "checkpoint": (Checkpoint, "add"),
    "publish": (job, "publish"),
}


@dataclass
class Asked:
    """What the engine was asked for one bucket; `requests` has grown to all of them by the end."""

    run: Run
    requests: Any
    width: int
    batch_rows: int


@dataclass
class Timed:
    """One run: seconds in all, in each stage, and in the engine's own steps as its consumer waits for them."""

    seconds: float
    stages: dict[str, float]
    asked: list[Asked]
    tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--catalog", type=Path, help="default: the sample catalog, its titles changed as it is repeated"
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--model", default="home-mini")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rules", default="on,off")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--profile", action="store_true", help="say where the run's own time goes, function by function"
    )
    parser.add_argument("--judges", help="numbers of processes: tell how many texts a second they judge instead")
    parser.add_argument("--memory", help="numbers of rows: tell the peak of a whole command instead")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if args.memory:
            for rows in map(int, args.memory.split(",")):
                print(json.dumps(memory(rows, directory)), flush=True)
            return
        catalog = args.catalog or repeated(args.rows, directory / "catalog.parquet")
        dtype = pick_dtype(args.dtype, "cpu")
        model = load_model(find_model(args.model), "cpu", dtype)
        about = {"model": args.model, "dtype": dtype, "rows": args.rows, "threads": torch.get_num_threads()}
        for rules in args.rules.split(","):
            config = RunConfig(
                str(catalog), str(directory / "out.parquet"), model=args.model, dtype=dtype, limit=args.rows,
                device="cpu", overwrite=True, fresh=True, max_new_tokens=args.max_new_tokens,
                rules=None if rules == "on" else ("all=off",), max_quarantined="100%",
            )  # fmt: skip
            if args.profile:
                profile(config, model)
                continue
            if args.judges:
                for found in judged(config, model, list(map(int, args.judges.split(","))), args.repeat):
                    print(json.dumps({"rules": rules, "rows": args.rows, **found}), flush=True)
                continue
            print(json.dumps({"rules": rules, **about, **compare(config, model, args.repeat)}), flush=True)


def repeated(rows: int, path: Path) -> Path:
    """Write a catalog of so many rows: the sample's products, from the second time on with other titles."""
    sample = pl.read_parquet(SAMPLE)
    times = -(-rows // sample.height)
    frames = []
    for time_ in range(times):
        suffix = "" if not time_ else f" No. {time_}"
        frames.append(
            sample.with_columns(
                (pl.col("title") + suffix).alias("title"), (pl.col(sample.columns[0]).cast(str) + f"-{time_}")
            )
        )
    pl.concat(frames).head(rows).write_parquet(path)
    return path


def compare(config: RunConfig, model: Any, repeat: int) -> dict[str, Any]:
    jobs, bare, added = [], [], []
    for _ in range(repeat):
        jobs.append(timed_run(config, model))
        bare.append(alone(jobs[-1]))
        added.append((jobs[-1].seconds - bare[-1]) / bare[-1])
    middle = sorted(jobs, key=lambda one: one.seconds)[len(jobs) // 2]
    requests = sum(len(asked.requests) for asked in middle.asked)
    return {
        "requests": requests,
        "tokens": middle.tokens,
        "job_seconds": round(statistics.median(one.seconds for one in jobs), 2),
        "engine_seconds": round(statistics.median(bare), 2),
        "added": round(statistics.median(added), 4),
        "from_to": [round(min(added), 4), round(max(added), 4)],
        "job_rows_per_second": round(config.limit / statistics.median(one.seconds for one in jobs), 1),
        "stage_seconds": {name: round(value, 3) for name, value in middle.stages.items()},
        "runs": repeat,
    }


def timed_run(config: RunConfig, model: Any) -> Timed:
    """Run the job with a clock around each stage, and note what its engine is asked for."""
    stages = dict.fromkeys([*STAGES, "waiting for the engine"], 0.0)
    asked: list[Asked] = []
    runs: list[Run] = []
    original, generate = ContinuousEngine.generate, job.generate

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                stages[name] += time.perf_counter() - started

        return called

    def noted(self: ContinuousEngine, requests: Any, width: int, rows: int, *rest: Any) -> Iterator[Any]:
        asked.append(Asked(runs[-1], requests, width, rows))
        completions = original(self, requests, width, rows, *rest)
        while True:
            started = time.perf_counter()
            one = next(completions, None)
            stages["waiting for the engine"] += time.perf_counter() - started
            if one is None:
                return
            yield one

    def known(run_: Run, *rest: Any) -> bool:
        runs.append(run_)
        return generate(run_, *rest)

    with ExitStack() as stack:
        for name, (owner, attribute) in STAGES.items():
            stack.enter_context(mock.patch.object(owner, attribute, clocked(name, getattr(owner, attribute))))
        stack.enter_context(mock.patch.object(ContinuousEngine, "generate", noted))
        stack.enter_context(mock.patch.object(job, "generate", known))
        started = time.perf_counter()
        summary = run(config, show_bar=False, model=model)
        seconds = time.perf_counter() - started
    return Timed(seconds, stages, asked, summary.generated_tokens)


def alone(timed: Timed) -> float:
    """Return the seconds that the engine takes for what the run asked of it, each attempt once the one before is done.

    Like the run it lays out its weights first.
    """
    started = time.perf_counter()
    run = timed.asked[0].run
    engine = make_engine(run.model, run.tokenizer, run.params, EngineStats(), deterministic=run.config.deterministic)
    for asked in timed.asked:
        requests = [request for request in asked.requests if request.attempt == 1]
        following = {(request.seed, request.attempt): request for request in asked.requests}
        for index, _ in engine.generate(requests, asked.width, asked.batch_rows, lambda: False):
            done = requests[index]
            if (again := following.get((done.seed, done.attempt + 1))) is not None:
                requests.append(again)
        assert len(requests) == len(asked.requests)
    return time.perf_counter() - started


def judged(config: RunConfig, model: Any, judges: list[int], repeat: int) -> Iterator[dict[str, Any]]:
    """Yield, for each number of processes that judge, how many texts a second a run takes: the median of its times."""
    recorded: dict[tuple[int, int], Completion] = {}
    original = ContinuousEngine.generate
    seconds = 0.0

    def noted(self: ContinuousEngine, requests: Any, *rest: Any) -> Iterator[tuple[int, Completion]]:
        for index, completion in original(self, requests, *rest):
            recorded[requests[index].seed, requests[index].attempt] = completion
            yield index, completion

    def replayed(_: ContinuousEngine, requests: Any, *__: Any) -> Iterator[tuple[int, Completion]]:
        nonlocal seconds
        started = time.perf_counter()
        for index, request in enumerate(requests):  # which grow meanwhile
            yield index, recorded[request.seed, request.attempt]
        seconds += time.perf_counter() - started

    with mock.patch.object(ContinuousEngine, "generate", noted):
        run(config, show_bar=False, model=model)
    took: dict[int, list[float]] = {number: [] for number in judges}
    with mock.patch.object(ContinuousEngine, "generate", replayed):
        for _ in range(repeat):
            for number in judges:
                seconds = 0.0
                with mock.patch.object(judging_crew, "processors", lambda number=number: number + 1):
                    run(config, show_bar=False, model=model)
                took[number].append(seconds)
    for number, times in took.items():
        yield {
            "judges": number,
            "texts": len(recorded),
            "texts_per_second": round(len(recorded) / statistics.median(times)),
            "from_to": [round(len(recorded) / max(times)), round(len(recorded) / min(times))],
        }


def profile(config: RunConfig, model: Any) -> None:
    """Print the functions that the run's own thread spends its time in, planning's thread left out."""
    profiler = cProfile.Profile()
    profiler.enable()
    run(config, show_bar=False, model=model)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)


def memory(rows: int, directory: Path) -> dict[str, Any]:
    """Run the command on so many rows with a tiny model; return the peak of its own process."""
    model = directory / "tiny"
    if not model.exists():
        shapes = ROOT / "benchmarks" / "peers" / "shapes.py"
        home = ROOT / "enrich" / "models" / "home-mini"
        subprocess.run([sys.executable, shapes, "tiny", model, home], check=True, stderr=subprocess.DEVNULL)
    catalog = repeated(rows, directory / f"{rows}.parquet")
    command = [
        sys.executable, "-m", "enrich", "run", catalog, "-o", directory / "out.parquet", "--model", model,
        "--overwrite", "--max-new-tokens", "4", "--rules", "all=off", "--restart", "--fresh",
        "--max-quarantined", "100%", "--json",
    ]  # fmt: skip
    started = time.monotonic()
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        out, err = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"enrich run on {rows} rows: exit code {process.returncode}: {err.strip()}")
    summary = json.loads(out)
    return {
        "rows": rows, "generated": summary["generated"], "peak_mib": usage.ru_maxrss >> 10,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
