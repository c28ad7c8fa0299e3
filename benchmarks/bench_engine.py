"""Measure the engine beside what else generates texts, on the same prompts in one run; one JSON line a peer and case.

    python benchmarks/bench_engine.py [--model home-mini] [--peers engine,generate] [--dtype float32,bfloat16]
                                      [--cases greedy,sampled,greedy-ragged,sampled-ragged] [--repeat 3] [--check]

Without --model it runs the shape of GPT-2 small with random weights. Each peer is a process of its own that has loaded
its model before the clock starts; they work in turn, never at once. Tokens that count are those that a row asked for:
what a peer computes for rows that have theirs is its waste. Peers that can't be had here are named with the reason.
--check first holds the engine's tokens against the reference engine's. The engine needs torch and transformers only;
`make bench-peers` sets up the others. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
BUILD = ROOT / "build" / "bench"
sys.path[:0] = [str(PEERS)]

from job import Job  # noqa: E402

NEW_TOKENS = 64
RAGGED = (8, 128)
CASES = ("greedy", "sampled", "greedy-ragged", "sampled-ragged")
ALL = ("engine", "generate", "pipeline", "generate_batch", "ctranslate2", "openvino", "openvino-wide")
SHAPES = ("gpt2-small", "llama-small")
SLOWER_OFTEN = 8  # a peer that takes so many times as long as the engine is not asked again


def main() -> None:
    args = options()
    model = make_model(args.model, args.tokenizer)
    convert(model, args.peers, args.peer_python, args.export_python)
    if args.check:
        subprocess.run([args.engine_python, PEERS / "check.py"], check=True, env=environment(ROOT, args.threads))
    prompts = make_prompts(model, args.rows)
    print(json.dumps(machine(args)), flush=True)
    for dtype in args.dtype:
        running = start_all(args, model, dtype)
        for case in args.cases:
            for line in measure(running, make_job(prompts, case, args), args.repeat):
                about = {"case": case, "dtype": dtype, "rows": args.rows, "slots": args.slots, "threads": args.threads}
                print(json.dumps(line | about), flush=True)
        for peer in running:
            peer.end()


def options() -> argparse.Namespace:
    def several(known: tuple[str, ...]) -> Any:
        def read(text: str) -> list[str]:
            if text == "all":
                return list(known)
            if unknown := sorted(set(text.split(",")) - set(known)):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
            return text.split(",")

        return read

    beside = ROOT / ".bench-venv" / "bin" / "python"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2-small", help=f"{', '.join(SHAPES)}, a directory or embedded model")
    parser.add_argument(
        "--tokenizer", type=Path, default=os.environ.get("BENCH_TOKENIZER"),
        help="a directory with the tokenizer of --model gpt2-small or llama-small; else words are numbered",
    )  # fmt: skip
    parser.add_argument(
        "--peers", type=several(ALL), default=["engine", "generate"], help=f"all, or of {', '.join(ALL)}"
    )
    parser.add_argument("--dtype", type=several(("float32", "bfloat16", "float16")), default=["float32"])
    parser.add_argument("--cases", type=several(CASES), default=list(CASES[:2]), help=f"all, or of {', '.join(CASES)}")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--slots", type=int, default=128, help="rows at once: the engine, continuous batching")
    parser.add_argument("--batch", type=int, default=64, help="rows at once: generate, pipeline, CTranslate2")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case, in alternation; medians are printed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--before", type=Path, help="another source tree, whose engine is measured as a peer too")
    parser.add_argument("--check", action="store_true", help="hold tokens against the reference engine's first")
    parser.add_argument("--engine-python", default=sys.executable, help="has torch and transformers")
    parser.add_argument("--peer-python", help="has CTranslate2 and OpenVINO GenAI; default: .bench-venv, or this one")
    parser.add_argument("--export-python", default=beside, help="has optimum-intel; default: .bench-venv")
    args = parser.parse_args()
    args.peer_python = args.peer_python or (beside if beside.exists() else sys.executable)
    args.peers = ["engine", *(peer for peer in args.peers if peer != "engine")]
    if args.before:
        args.peers.insert(1, "before")
    return args


def machine(args: argparse.Namespace) -> dict[str, Any]:
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), name)
    return {
        "processor": name, "threads": args.threads, "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(), "model": args.model, "new_tokens": NEW_TOKENS, "ragged": RAGGED,
    }  # fmt: skip


def environment(source: Path, threads: int) -> dict[str, str]:
    """Return what a peer's process is started with: the enrich of one source tree, and so many threads."""
    return os.environ | {
        "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip


def make_model(name: str, tokenizer: Path | None) -> Path:
    """Return the directory of a model; one of random weights is made and kept in build/."""
    if name not in SHAPES:
        embedded = ROOT / "enrich" / "models" / name
        directory = embedded if embedded.is_dir() else Path(name).resolve()
        if not directory.is_dir():
            sys.exit(f"--model {name}: no directory, and not one of {', '.join(SHAPES)}")
        link = BUILD / directory.name  # so that what is converted from it lies in build/
        BUILD.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(directory)
        return link
    directory = BUILD / (f"{name}-{tokenizer.name}" if tokenizer else name)
    if not directory.is_dir():
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, PEERS / "shapes.py", name, directory, *([tokenizer.resolve()] if tokenizer else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return directory


def convert(model: Path, peers: list[str], peer_python: str, export_python: str) -> None:
    """Make what CTranslate2 and OpenVINO read, once; why it can't be made is told where the peer is started."""
    commands = {
        "ctranslate2": [peer_python, PEERS / "convert.py", "ctranslate2"],
        "openvino": [export_python, PEERS / "convert.py", "openvino"],
    }
    for kind, command in commands.items():
        target = model.with_name(f"{model.name}.{kind}")
        if any(peer.startswith(kind) for peer in peers) and not target.is_dir() and Path(command[0]).exists():
            done = subprocess.run([*command, model, target], capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                print(json.dumps({"peer": kind, "not_converted": last}), flush=True)


def make_prompts(model: Path, rows: int) -> list[list[int]]:
    """Return prompts of 8 to 62 tokens, 35 in the mean, each token a word."""
    from shapes import word_tokens

    words, draw = word_tokens(model), random.Random(0)
    return [[draw.choice(words) for _ in range(draw.randint(8, 62))] for _ in range(rows)]


def make_job(prompts: list[list[int]], case: str, args: argparse.Namespace) -> Job:
    draw, ragged = random.Random(1), case.endswith("ragged")
    asked = [draw.randint(*RAGGED) if ragged else NEW_TOKENS for _ in prompts]
    return Job(prompts, asked, max(asked), case.startswith("sampled"), args.slots)


@dataclass
class Running:
    """A peer's process."""

    name: str
    process: subprocess.Popen[str]
    batch: int
    about: dict[str, Any] = field(default_factory=dict)

    def answer(self) -> dict[str, Any]:
        """Return the next line that it says, or how it ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"ended with exit code {self.process.wait()}"}

    def ask(self, job: Job) -> dict[str, Any]:
        """Have it do a job, and wait until it has."""
        assert self.process.stdin
        mine = Job(job.prompts, job.new_tokens, job.limit, job.sampled, self.batch)
        print(mine.line(), file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        """Let it end."""
        self.process.communicate()


def start_all(args: argparse.Namespace, model: Path, dtype: str) -> list[Running]:
    """Start the peers, the engine first; those that can't be had are named and left out."""
    running = []
    for name in args.peers:
        foreign = name.startswith(("ctranslate2", "openvino"))
        command = [
            args.peer_python if foreign else args.engine_python, PEERS, name,
            "--model", model, "--dtype", dtype, "--threads", str(args.threads),
        ]  # fmt: skip
        source = args.before.resolve() if name == "before" else ROOT
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment(source, args.threads),
        )  # fmt: skip
        whole = name in ("engine", "before", "generate_batch") or name.startswith("openvino")
        peer = Running(name, process, args.slots if whole else args.batch)
        peer.about = peer.answer()
        if "version" in peer.about:
            running.append(peer)
            continue
        print(json.dumps({"peer": name, "dtype": dtype, **peer.about}), flush=True)
        if name == "engine":
            sys.exit("the engine can't be run")
        peer.end()
    return running


def measure(running: list[Running], job: Job, repeat: int) -> list[dict[str, Any]]:
    """Run a job with each peer in turn, `repeat` times; return a line for each."""
    answers: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in running}
    for _ in range(repeat):  # in alternation, since a shared machine's speed drifts
        for peer in running:
            before = answers[peer.name]
            engine = answers["engine"]
            slow = before and "seconds" in before[0] and before[0]["seconds"] > SLOWER_OFTEN * engine[0]["seconds"]
            if slow or (before and "failed" in before[-1]):
                continue
            before.append(peer.ask(job))
    lines = []
    for peer in running:
        done = [answer for answer in answers[peer.name] if "seconds" in answer]
        line: dict[str, Any] = {"peer": peer.name}
        if not done:
            lines.append(line | answers[peer.name][-1])
            continue
        middle = statistics.median(answer["seconds"] for answer in done)
        line |= {"tokens_per_second": int(sum(job.new_tokens) / middle), "seconds": round(middle, 3)}
        if peer.name != "engine":
            pairs = zip(answers["engine"], done, strict=False)
            ratios = sorted(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)
            low, middle, high = (round(value, 2) for value in (ratios[0], statistics.median(ratios), ratios[-1]))
            line |= {"engine_times_as_fast": middle, "from_to": [low, high]}
        own = {key: value for key, value in done[-1].items() if key != "seconds"}
        if "least_seconds" in own:
            line["share_of_roofline"] = round(own.pop("least_seconds") / line["seconds"], 3)
        lines.append(line | own | {"runs": len(done), **peer.about})
    return lines


if __name__ == "__main__":
    main()
