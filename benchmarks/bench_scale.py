"""Measure what the catalog's size costs beside the engine: time by stage and memory; see benchmarks/README.md.

Every stage of a run is real but the engine, which answers at once with the end of the prompt, and the rules, which are
off. Each size is run in a process of its own, broken off in the middle, and gone on with in another one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench_nights import make_catalog

OPTIONS: dict[str, Any] = {"max_new_tokens": 64, "rules": "all=off", "overwrite": True}
STAGES = ("prepare", "open_checkpoint", "survey_catalog", "keep_survey", "plan_windows", "generate", "publish")


class Stages:
    """Seconds by the clock and on the processors, this process's and its children's, by stage."""

    def __init__(self) -> None:
        self.clock, self.processors = Counter[str](), Counter[str]()

    def __call__(self, name: str, do: Callable[[], Any]) -> Any:
        """Do something that belongs to a stage."""
        clock, processors = time.monotonic(), _processor_seconds()
        try:
            return do()
        finally:
            self.clock[name] += time.monotonic() - clock
            self.processors[name] += _processor_seconds() - processors

    def as_dict(self, rows: int) -> dict[str, Any]:
        """Return them, with rows a second."""
        return {
            name: {
                "seconds": round(seconds, 2),
                "cpu_seconds": round(self.processors[name], 2),
                "rows_per_second": round(rows / seconds) if seconds else None,
            }
            for name, seconds in self.clock.items()
        }


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def watch_stages() -> Stages:
    """Time the stages of runs in this process."""
    from enrich import job

    stages = Stages()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if name != "plan_windows":
            return lambda *arguments, **options: stages(name, lambda: function(*arguments, **options))

        def windows(*arguments: Any) -> Iterator[Any]:
            planned = function(*arguments)
            while (window := stages(name, lambda: next(planned, None))) is not None:
                yield window

        return windows

    for name in STAGES:
        setattr(job, name, timed(name, getattr(job, name)))
    return stages


class CannedEngine:
    """Answers with the end of the prompt."""

    pads = True

    def __init__(self, stats: Any, begin: Callable[[], None]) -> None:
        self.stats, self._begin = stats, begin

    def generate(self, requests: Sequence[Any], *told: Any) -> Iterator[tuple[int, Any]]:
        """See `enrich.engine.protocol.Engine`."""
        from enrich.engine.protocol import Completion

        _, batch_rows, _, may_begin = told
        self._begin()
        for index, request in enumerate(requests):
            if index % batch_rows == 0 and not may_begin():
                return
            tokens = len(request.prompt_token_ids)
            self.stats.count(tokens, tokens, min(tokens, 56), min(tokens, 56))
            yield index, Completion(request.prompt_token_ids[-56:], "stop")


def run_once(catalog: Path, rows: int, case: str, until: float) -> None:
    """Run, or break off in the middle, or go on from there; print what it took, and until when it began to generate."""
    from enrich import RunConfig, run
    from enrich.errors import Interrupted, TryAgain
    from enrich.stages import setup

    stages = watch_stages()
    started = time.monotonic()
    has_begun: list[bool] = []

    def tell(what: str) -> None:
        seconds = round(time.monotonic() - started, 2)
        own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        told = {"rows": rows, "format": catalog.suffix[1:], "case": what}
        memory = {
            "seconds": seconds,
            "peak_mib": own // 1024,
            "largest_child_mib": children // 1024,
            "crowd_mib": crowd.most // 1024,
        }
        print(json.dumps(told | memory | {"stages": stages.as_dict(rows)}), flush=True)

    def begin() -> None:
        if not has_begun:
            has_begun.append(True)
            tell(f"{case}: begins to generate")

    setup.Run.engine = property(lambda self: CannedEngine(self.stats, begin))  # type: ignore[assignment]
    part = {"max_time": "60s", "publish_partial": True} if case == "publish a part" else {}
    config = RunConfig(str(catalog), fresh=True, restart=case == "whole", **OPTIONS, **part)
    crowd = Crowd()
    checkpoint = config.output_path.with_name(config.output_path.name + ".checkpoint")

    def should_stop() -> int:
        is_far = case == "break off" and sum(1 for _ in checkpoint.glob("part-*")) * config.commit_rows > until * rows
        return signal.SIGTERM if is_far else 0

    with suppress(Interrupted, TryAgain):
        run(config, show_bar=False, should_stop=should_stop)
    tell(case)


class Crowd:
    """The largest resident memory, in KiB, of this process and those that it has started, together."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            own = os.getpid()
            listed = Path(f"/proc/{own}/task/{own}/children")
            children = listed.read_text().split() if listed.exists() else []
            self.most = max(self.most, sum(_resident(process) for process in [str(own), *children]))
            time.sleep(0.25)


def _resident(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes, comma-separated")
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--cases", default="whole,break off,go on", help="also: publish a part")
    parser.add_argument("--directory", type=Path, help="keep the files here")
    parser.add_argument("--until", type=float, default=0.5, help="share of the rows after which a run is broken off")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_catalog(Path(arguments.make[0]), int(arguments.make[1]), described=True)
        return
    if arguments.run:
        run_once(Path(arguments.run[0]), int(arguments.run[1]), arguments.run[2], arguments.until)
        return
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary  # the speeds of an engine that is none are for nobody
        directory = arguments.directory or Path(temporary)
        for rows in map(int, arguments.rows.split(",")):
            catalog = directory / f"{rows}.{arguments.format}"
            if not catalog.exists():  # by a process of its own: a process begins with the peak of who has started it
                subprocess.run([sys.executable, __file__, "--make", str(catalog), str(rows)], check=True)
            for case in arguments.cases.split(","):
                command = [sys.executable, __file__, "--until", str(arguments.until), "--run", str(catalog), str(rows)]
                subprocess.run([*command, case], check=True)


if __name__ == "__main__":
    main()
