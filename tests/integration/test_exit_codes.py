"""Exit codes of real processes that the other tests do not come by: 1, 4, and 75 by the clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from commands import enrich

pytestmark = pytest.mark.slow

HOME = Path(__file__).parents[2] / "sample_catalogs" / "home.parquet"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def test_a_shard_that_is_missing_is_exit_code_4(tmp_path: Path, tiny_gpt2: Path) -> None:
    output = tmp_path / "out.parquet"
    options = ["-o", output, "--model", tiny_gpt2, "--max-new-tokens", 8, "--limit", 20]
    assert enrich("run", HOME, *options, "--shard", "1/2").returncode == 0
    done = enrich("merge", output)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"enrich: {output} was withheld: out.shard-2-of-2.parquet missing")
    assert enrich("run", HOME, *options, "--shard", "2/2").returncode == 0
    merged = enrich("merge", output, "--json")
    assert merged.returncode == 0, merged.stderr
    assert json.loads(merged.stdout)["rows"] == 20


def test_an_unexpected_error_is_exit_code_1_with_a_traceback(tmp_path: Path) -> None:
    program = (
        "from enrich import cli, job\n"
        "def fail(*_, **__): raise ZeroDivisionError('of all things')\n"
        "job.prepare = fail\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", program, "run", str(HOME), "-o", str(tmp_path / "out.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError: of all things" in done.stderr
    assert "committed rows are safe" in done.stderr


@pytest.mark.slow
def test_a_deadline_by_the_clock_is_exit_code_75(tmp_path: Path) -> None:
    home = pl.read_parquet(HOME).with_columns(description=pl.lit(None, pl.String))
    pl.concat([home] * 40).write_parquet(tmp_path / "catalog.parquet")  # some half an hour of work
    output = tmp_path / "out.parquet"
    # The clocks of a time zone of our own will show the next full minute in 25 seconds.
    now = datetime.now(UTC).replace(microsecond=0)
    end = now + timedelta(seconds=25)
    ahead = (60 - end.second) % 60
    done = enrich(
        "run", tmp_path / "catalog.parquet", "-o", output, "--deadline",
        f"{end + timedelta(seconds=ahead):%H:%M}", TZ=f"OUR-00:00:{ahead:02}",
    )  # fmt: skip
    ended = time.time()
    assert done.returncode == 75, done.stderr
    assert "time is up" in done.stderr
    # In time to finish what is in flight, give or take a batch on a machine that is slower at times.
    assert ended < end.timestamp() + 30
    assert not output.exists()
    state = json.loads(enrich("status", output, "--json").stdout)
    assert state["state"] == "interrupted"
    assert 0 < state["done"] < state["rows"] == 40 * len(home)
    assert state["last_commit"]
