"""The real command, killed and stopped at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

HOME = Path(__file__).parent.parent.parent / "sample_catalogs" / "home.parquet"
ROWS = 150


def command(model: Path, output: Path) -> list[str]:
    options = ["--limit", ROWS, "--batch-size", 16, "--max-new-tokens", 48, "--commit-rows", 8, "--dtype", "float32"]
    return [
        sys.executable,
        "-m",
        "enrich",
        "run",
        str(HOME),
        "-o",
        str(output),
        "--model",
        str(model),
        *map(str, options),
    ]


def start(model: Path, output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(model, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )


def listed_parts(output: Path) -> int:
    manifest = output.with_name(output.name + ".checkpoint") / "manifest.jsonl"
    return max(0, manifest.read_bytes().count(b"\n") - 1) if manifest.exists() else 0


def wait_for_parts(process: subprocess.Popen[str], output: Path, parts: int) -> None:
    deadline = time.monotonic() + 120
    while listed_parts(output) < parts and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.fixture(scope="module")
def uninterrupted(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    output = tmp_path_factory.mktemp("whole") / "out.parquet"
    process = start(tiny_gpt2, output)
    assert process.wait(300) == 0, process.communicate()
    return pl.read_parquet(output)


def assert_same(output: Path, expected: pl.DataFrame) -> None:
    found = pl.read_parquet(output)
    volatile = ["generated_at", "run_id"]
    names = [field.name for field in expected.schema["generation"].fields if field.name not in volatile]
    for frame in (found, expected):
        assert len(frame) == ROWS
    assert found.drop("generation").equals(expected.drop("generation"))
    for name in names:
        assert found["generation"].struct.field(name).equals(expected["generation"].struct.field(name)), name
    leftovers = {path.name for path in output.parent.iterdir()} - {output.name, f".{output.name}.lock"}
    assert not leftovers


@pytest.mark.slow
def test_killed_again_and_again_at_random_moments(tiny_gpt2: Path, tmp_path: Path, uninterrupted: pl.DataFrame) -> None:
    rng = random.Random(int(os.environ.get("ENRICH_TEST_SEED", time.time_ns())))
    output = tmp_path / "out.parquet"
    done = [0]
    for _ in range(6):
        process = start(tiny_gpt2, output)
        wait_for_parts(process, output, done[-1] + rng.randint(1, 3))
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.communicate()
        if output.exists():  # killed after publishing, or not at all: then it is whole
            break
        assert process.returncode == -signal.SIGKILL
        done.append(listed_parts(output))
        assert done[-1] >= done[-2]  # what was committed stays
    assert len(done) > 1  # it was killed before the end at least once
    process = start(tiny_gpt2, output)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert "rows found done" in log or "unchanged" in log
    assert_same(output, uninterrupted)
    assert not list(tmp_path.glob("*.checkpoint*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 3)], ids=["INT", "TERM", "TERMs"]
)
def test_a_signal_commits_and_the_next_run_goes_on(
    tiny_gpt2: Path, tmp_path: Path, uninterrupted: pl.DataFrame, number: signal.Signals, times: int
) -> None:
    output = tmp_path / "out.parquet"
    process = start(tiny_gpt2, output)
    wait_for_parts(process, output, 2)
    for _ in range(times):  # as `timeout` sends it to a process and to its group
        process.send_signal(number)
        time.sleep(0.02)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 128 + number, log
    assert "rows are done and committed" in log
    assert "Traceback" not in log
    assert not output.exists()
    assert listed_parts(output) >= 2
    process = start(tiny_gpt2, output)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert "rows found done" in log
    assert_same(output, uninterrupted)


def test_a_second_signal_ends_a_run_at_once_if_it_is_no_echo_of_the_first() -> None:
    program = (
        "import time\n"
        "from enrich.commands.ending import signals\n"
        "with signals() as stopped_by:\n"
        "    print('ready', flush=True)\n"
        "    while not stopped_by[0]: time.sleep(0.01)\n"
        "    print('stopping', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.stdout.readline() == "stopping\n"
    process.terminate()
    time.sleep(1.2)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
