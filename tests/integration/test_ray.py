"""Runs with several workers in a real Ray, its processes killed: `make ray-test`; `make test` leaves them out.

Every run is the real command, and what it publishes is held against that of a run without Ray.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

pytest.importorskip("ray", reason="`make ray-test` installs it")
pytestmark = pytest.mark.ray

HOME = Path(__file__).parent.parent.parent / "sample_catalogs" / "home.parquet"
ROWS = 100
OPTIONS = ("--limit", ROWS, "--batch-size", 32, "--commit-rows", 8, "--dtype", "float32", "--max-new-tokens", 64)
VOLATILE = ("generated_at", "run_id")


def start(output: Path, *options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "enrich", "run", str(HOME), "-o", str(output), "--log-format", "plain"]
    return subprocess.Popen(
        [*command, *map(str, (*OPTIONS, *options))],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], exit_code: int = 0) -> str:
    """Wait for a run's end; return its log."""
    _, log = process.communicate(timeout=120)
    assert process.returncode == exit_code, log
    assert "Traceback" not in log
    return log


def parts(output: Path) -> int:
    manifest = output.with_name(output.name + ".checkpoint") / "manifest.jsonl"
    return max(0, manifest.read_bytes().count(b"\n") - 1) if manifest.exists() else 0


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + 90
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the actors below a process, which Ray names after what they are."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::EnrichWorker"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_same(output: Path, expected: pl.DataFrame) -> None:
    found = pl.read_parquet(output)
    names = [field.name for field in expected.schema["generation"].fields if field.name not in VOLATILE]
    assert len(found) == len(expected) == ROWS
    assert found["sku"].equals(expected["sku"])
    assert found.drop("generation").equals(expected.drop("generation"))
    for name in names:
        assert found["generation"].struct.field(name).equals(expected["generation"].struct.field(name)), name
    leftovers = {path.name for path in output.parent.iterdir()} - {output.name, f".{output.name}.lock"}
    assert not leftovers


@pytest.fixture(scope="module", autouse=True)
def _home_mini() -> Iterator[None]:
    """Let the embedded model's texts be judged as users' are, and leave no token of Ray's in the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ENRICH_RULES", raising=False)
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """What a run without Ray publishes."""
    output = tmp_path_factory.mktemp("local") / "out.parquet"
    log = finish(start(output))
    assert "Ray" not in log
    frame = pl.read_parquet(output)
    assert frame["generation"].struct.field("attempt").max() > 1  # rows that come while others are done
    return frame


def test_an_actor_that_is_killed_costs_its_rows_in_flight(tmp_path: Path, local: pl.DataFrame) -> None:
    output = tmp_path / "out.parquet"
    process = start(output, "--workers", 2)
    wait_for(lambda: parts(output) >= 2, process)
    actors = workers_of(process.pid)
    assert len(actors) == 2
    actors[0].send_signal(signal.SIGKILL)
    log = finish(process)
    assert "is gone; its" in log
    assert_same(output, local)
    # With nothing to do, there is no Ray.
    log = finish(start(output, "--workers", 2))
    assert "unchanged" in log
    assert "Ray" not in log
    assert_same(output, local)


@pytest.mark.slow
def test_a_driver_that_is_killed_or_stopped_is_gone_on_from(tmp_path: Path, local: pl.DataFrame) -> None:
    output = tmp_path / "out.parquet"
    process = start(output, "--workers", 2)
    wait_for(lambda: parts(output) >= 2, process)
    below = workers_of(process.pid)
    process.kill()
    process.communicate()
    assert not output.exists()
    done = parts(output)
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive  # they end by themselves

    process = start(output, "--workers", 2)
    wait_for(lambda: parts(output) >= done + 2, process)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does it: Ray's own processes hear it too
    log = finish(process, 143)
    assert "rows found done" in log
    assert "rows are done and committed" in log
    assert parts(output) >= done + 2
    assert not output.exists()

    assert "rows found done" in finish(start(output))  # without Ray
    assert_same(output, local)


def test_what_an_engine_raises_in_an_actor_is_told_as_by_a_run_without(tmp_path: Path, tiny_gpt2: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_gpt2.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    with safe_open(broken / "model.safetensors", framework="numpy") as file:
        tensors = {name: file.get_tensor(name) * float("nan") for name in file.keys()}  # noqa: SIM118
        save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    options = ("--model", broken, "--max-new-tokens", 8)
    logs = [finish(start(tmp_path / "out.parquet", *options, *more), 2) for more in ((), ("--workers", 2))]
    lines = [log.strip().splitlines()[-1] for log in logs]
    assert lines[0] == lines[1]
    assert lines[0].startswith("enrich: ")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two machines with a core each, as far as Ray is concerned, under a head that has none to give away."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            started.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        yield started
    finally:
        started.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_goes_on(tmp_path: Path, local: pl.DataFrame, cluster: Any) -> None:
    output = tmp_path / "out.parquet"
    process = start(output, "--ray", cluster.address, "--json")
    wait_for(lambda: parts(output) >= 2, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    stdout, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "2 workers with 1 threads each" in log
    assert "is gone; its" in log
    assert json.loads(stdout.splitlines()[-1])["generated"] > 0
    assert_same(output, local)


def test_a_machine_without_the_model_is_named(tmp_path: Path, tiny_gpt2: Path, cluster: Any) -> None:
    """A directory that is another on the machines of the cluster: here, one that is changed while they start."""
    model = tmp_path / "model"
    shutil.copytree(tiny_gpt2, model)
    process = start(tmp_path / "out.parquet", "--ray", cluster.address, "--model", model, "--max-new-tokens", 8)
    wait_for(lambda: (tmp_path / "out.parquet.checkpoint").exists(), process)
    (model / "vocab.txt").write_text("changed")
    line = finish(process, 2).strip().splitlines()[-1]
    assert line.startswith(f"enrich: model {model}: ")
    assert "holds other files" in line
    assert "(on " in line


def test_a_cluster_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    log = finish(start(tmp_path / "out.parquet", "--ray", "127.0.0.1:1"), 75)
    assert log.strip().splitlines()[-1].startswith("enrich: --ray 127.0.0.1:1: can't be reached: ")
