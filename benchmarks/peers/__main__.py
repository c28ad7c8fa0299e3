"""One peer in a process of its own: loads a model, then does a job for each line that comes in and tells the seconds.

    python benchmarks/peers PEER --model DIRECTORY --dtype float32 --threads 2

Started by bench_engine.py. Loading is not in the seconds, nor is what a first, short job sets up.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from job import Job, Peer

MODULES = {
    "engine": "ours", "before": "ours", "reference": "ours", "generate": "hugging", "pipeline": "hugging",
    "generate_batch": "hugging", "ctranslate2": "ct2", "openvino": "genai", "openvino-wide": "genai",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=MODULES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not come between the answers

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        peer: Peer = importlib.import_module(MODULES[args.peer]).load(args.peer, args.model, args.dtype, args.threads)
    except (ImportError, FileNotFoundError) as error:
        answer({"missing": f"{type(error).__name__}: {error}"})
        return
    except Exception as error:
        answer({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})
        raise
    answer({"version": peer.version, "setting": peer.setting})
    for line in sys.stdin:
        job = Job.of(line)
        try:
            peer.run(job.short())
            started = time.perf_counter()
            done = peer.run(job)
            seconds = time.perf_counter() - started
        except Exception as error:
            answer({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})
            raise
        lengths, figures = done if isinstance(done, tuple) else (done, {})
        if lengths != job.new_tokens:
            rows = enumerate(zip(lengths, job.new_tokens, strict=True))
            answer(
                {"failed": next(f"row {row}: {got} tokens of {asked}" for row, (got, asked) in rows if got != asked)}
            )
            return
        answer({"seconds": seconds, **figures})


if __name__ == "__main__":
    main()
