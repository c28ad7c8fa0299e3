"""The short form of `make soak`: a tiny model, some hundred rows, the same looks from outside."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soak

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at /proc")]


def test_a_run_of_some_thousand_rows_is_steady(tmp_path: Path, tiny_gpt2: Path) -> None:
    options = ["--model", str(tiny_gpt2), "--max-new-tokens", "32", "--batch-size", "16", "--commit-rows", "100"]
    found = soak.soak(3_000, [*options, "--rules", "all=off", "--dtype", "float32"], tmp_path, every=0.05)
    assert len(found) >= 5
    assert sum(one.rows for one in found) >= 1_500
    # Seconds tell nothing of a pace, and little of memory; of open files they do.
    assert not [fault for fault in soak.faults(found) if "files" in fault]
    assert max(one.rss for one in found) < 2_000


def test_what_grows_and_what_slows_down_is_told() -> None:
    steady = [soak.Stretch(60.0, 600, 30_000, 100.0, 900.0, 40)] * 10
    assert soak.faults(steady) == []
    leak = [replace(one, rss=900.0 + 20 * number) for number, one in enumerate(steady)]
    files = [replace(one, files=40 + number) for number, one in enumerate(steady)]
    slow = [replace(one, tokens=30_000 - 2_000 * number) for number, one in enumerate(steady)]
    assert [len(soak.faults(one)) for one in (leak, files, slow)] == [1, 1, 1]
    assert "memory grew" in soak.faults(leak)[0]
    assert "open files grew" in soak.faults(files)[0]
    assert "pace fell" in soak.faults(slow)[0]


def test_a_process_is_looked_at_from_outside(tmp_path: Path) -> None:
    state = tmp_path / "progress.json"
    program = (
        "import json, sys, time\n"
        "held = [open('/dev/null') for _ in range(9)]\n"
        "open(sys.argv[1], 'w').write(json.dumps({'done': 7}))\n"
        "time.sleep(1)\n"
    )
    code, samples = soak.watched([sys.executable, "-c", program, str(state)], state, 0.05)
    assert code == 0
    assert samples[0].done == 7
    assert max(sample.files for sample in samples) >= 12
    assert max(sample.rss for sample in samples) > 5
