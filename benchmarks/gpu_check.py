"""Test the engine on this machine's GPU, measure it beside `generate` of transformers, and print a table.

    make gpu-check PYTHON=/usr/bin/python3

Needs a Python with torch (CUDA) and transformers, no network, no pytest and nothing of the project's environment. Ends
within eight minutes: what is not done by then is said to be not done. Exits with 1 if a check fails, and with 2 where
there is no GPU, since nothing has been checked then.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 450
MEASURED = [
    ["--rows", "256", "--slots", "64", "--batch", "64"],
    ["--rows", "1024", "--slots", "256", "--batch", "256"],
    ["--rows", "1024", "--slots", "256", "--batch", "256", "--model", "home-mini"],
]
COMMON = [
    "--dtype",
    "bfloat16",
    "--cases",
    "greedy,sampled,sampled-ragged",
    "--peers",
    "engine,generate",
    "--repeat",
    "2",
]


def main() -> int:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"gpu-check: {sys.executable} has no {' and no '.join(missing)}; name one that has: make gpu-check PYTHON=…"
        )
        return 2
    import torch
    import transformers

    if not torch.cuda.is_available():
        print(f"gpu-check: no GPU here that torch {torch.__version__} can use; nothing was checked")
        return 2
    until = time.monotonic() + SECONDS
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}",
        flush=True,
    )
    failed = check(until)
    tell_places()
    lines: list[dict[str, Any]] = []
    for options in MEASURED:
        lines += measure([*COMMON, *options], until)
    print(table(lines))
    return 1 if failed else 0


def check(until: float) -> int:
    """Run the checks of tests/engine/device_checks.py; return how many failed."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engine")]
    from device_checks import CHECKS, MODELS

    failed = 0
    for name, make in MODELS.items():
        for what, run in CHECKS.items():
            if time.monotonic() > until:
                print(f"NOT DONE  {name}: {what}", flush=True)
                continue
            try:
                run(make().to("cuda"))
                print(f"passed    {name}: {what}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED    {name}: {what}: {type(error).__name__}: {error}", flush=True)
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
    return failed


def tell_places() -> None:
    """Say which operations give rows other bits in another place: what makes 16-bit texts depend on the order."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "peers")]
    import torch
    from places import rows_that_differ

    for slots in (64, 256):
        found = {name: rows for name, rows in rows_that_differ("cuda", torch.bfloat16, slots, 64, 64) if rows}
        told = ", ".join(f"{name}: {rows} rows" for name, rows in found.items()) or "none"
        print(f"bfloat16, {slots} rows, operations whose bits depend on a row's place: {told}", flush=True)


def measure(options: list[str], until: float) -> list[dict[str, Any]]:
    """Return the lines of bench_engine.py; an empty list if there is no time left, or it failed."""
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_engine.py"), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(f"NOT DONE  bench_engine.py {' '.join(options)}", flush=True)
        return []
    if done.returncode:
        print(f"FAILED    bench_engine.py {' '.join(options)}: {done.stderr.strip()}", flush=True)
    model = options[options.index("--model") + 1] if "--model" in options else "gpt2-small"
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return [{"model": model, **line} for line in lines if "peer" in line]


def table(lines: list[dict[str, Any]]) -> str:
    rows = [
        (
            "model",
            "case",
            "slots",
            "peer",
            "tokens/s",
            "engine × as fast",
            "useful slot-steps",
            "of roofline",
            "peak MiB",
        )
    ]
    for line in lines:
        ratio = (
            f"{line['engine_times_as_fast']} ({line['from_to'][0]} to {line['from_to'][1]})"
            if "from_to" in line
            else ""
        )
        keys = ("tokens_per_second", "useful_slot_steps", "share_of_roofline", "peak_device_mib")
        speed, useful, share, peak = (str(line.get(key, "")) for key in keys)
        speed = speed or str(line.get("failed", line.get("missing", "")))
        about = (line["model"], line.get("case", ""), str(line.get("slots", "")), line["peer"])
        rows.append((*about, speed, ratio, useful, share, peak))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
