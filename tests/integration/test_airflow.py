"""The DAG in a real Airflow, with the real command: what becomes of the tasks, read from Airflow's own database.

`make airflow-test` sets Airflow up, in an environment of its own, and runs these tests; `make test` leaves them out.
"""

from __future__ import annotations

import ast
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).parent.parent.parent
DAG_FILE = ROOT / "jobs" / "airflow" / "enrich_dag.py"
COMMAND = Path(sys.executable).with_name("enrich")
SECRET = "a-secret-of-the-worker"
ROWS = 7


@dataclass(frozen=True)
class DagRun:
    """What Airflow has on record of one run of the DAG."""

    exit_code: int
    log: str
    state: str
    # of each task, or task[map_index]: its state, and the try that it ended in (0: never started)
    tasks: dict[str, tuple[str, int]]
    run_id: str


class Airflow:
    """An Airflow with a database of its own."""

    def __init__(self, home: Path) -> None:
        self.bin = ROOT / os.environ.get("AIRFLOW_VENV", ".airflow-venv") / "bin"
        assert (self.bin / "airflow").exists(), "there is no Airflow here: make airflow-test"
        self.home = home
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "ENRICH_BIN": str(COMMAND),
            "ENRICH_MAX_NEW_TOKENS": "8",
            "ENRICH_RULES": "all=off",
            "ENRICH_DAG_POOL": "gpu",
            "ENRICH_DAG_RETRY_SECONDS": "0",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def call(self, *command: str | Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            env=self.environment | {name: str(value) for name, value in variables.items()},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    def query(self, sql: str, *values: str) -> list[tuple]:
        with sqlite3.connect(self.home / "airflow.db") as database:
            return database.execute(sql, values).fetchall()

    def run(self, parameters: dict[str, object], **variables: str | Path) -> DagRun:
        before = {run_id for (run_id,) in self.query("SELECT run_id FROM dag_run")}
        done = self.call("airflow", "dags", "test", "enrich_nightly", "--conf", json.dumps(parameters), **variables)
        new = [row for row in self.query("SELECT run_id, state FROM dag_run") if row[0] not in before]
        assert len(new) == 1, done.stdout
        run_id, state = new[0]
        tasks = {
            task if index < 0 else f"{task}[{index}]": (task_state, try_number)
            for task, index, task_state, try_number in self.query(
                "SELECT task_id, map_index, state, try_number FROM task_instance WHERE run_id = ?", run_id
            )
        }
        return DagRun(done.returncode, done.stdout, state, tasks, run_id)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    airflow = Airflow(tmp_path_factory.mktemp("airflow"))
    done = airflow.call("airflow", "db", "migrate")
    assert done.returncode == 0, done.stdout
    return airflow


@pytest.fixture
def parameters(tmp_path: Path, tiny_gpt2: Path) -> dict[str, object]:
    products = {"sku": [f"{n}" for n in range(ROWS)], "title": [f"Wool rug number {n}" for n in range(ROWS)]}
    pl.DataFrame(products).write_parquet(tmp_path / "products.parquet")
    return {
        "catalog": str(tmp_path / "products.parquet"),
        "output": str(tmp_path / "enriched.parquet"),
        "model": str(tiny_gpt2),
    }


def stand_in(directory: Path, script: str) -> Path:
    """Write a shell script to take the command's place."""
    file = directory / "stand-in"
    file.write_text(f"#!/bin/bash\n{script}\n")
    file.chmod(0o755)
    return file


def test_parsing_imports_airflow_and_the_standard_library_only() -> None:
    tree = ast.parse(DAG_FILE.read_text(encoding="utf-8"))
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert modules - sys.stdlib_module_names == {"airflow"}


def test_the_tasks_are_declared_as_the_scheduler_should_treat_them(airflow: Airflow) -> None:
    done = airflow.call("python", "-c", DESCRIBE, ENRICH_DAG_TIMEOUT_SECONDS="900", DAG_FILE=DAG_FILE)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    assert {name: task["timeout"] for name, task in found["tasks"].items()} == dict.fromkeys(found["tasks"], 900)
    assert (found["tasks"]["enrich"]["pool"], found["tasks"]["enrich"]["slots"]) == ("gpu", 1)
    assert {name: task["pool"] for name, task in found["tasks"].items() if name != "enrich"} == {
        "plan": "default_pool",
        "merge": "default_pool",
    }
    assert found["tasks"]["merge"]["rule"] == "none_failed_min_one_success"
    assert {name: task["outlets"] for name, task in found["tasks"].items()} == {
        "plan": [],
        "enrich": [],
        "merge": ["file:///srv/catalog/products.enriched.parquet"],
    }
    assert found["refused"] == ["catalog", "output", "shards", "shards", "max_time"]


# Runs in Airflow's environment: the DAG as the DAG processor reads it, and which values of parameters it refuses.
DESCRIBE = """
import json, os
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(os.environ["DAG_FILE"])
dag = bag.dags["enrich_nightly"]
values = [("catalog", "products.csv"), ("output", "/srv/enriched.csv"), ("shards", 0), ("shards", "3"), ("max_time", 5)]
refused = []
for name, value in [*values, ("catalog", "s3://bucket/products.csv"), ("shards", 1024), ("max_time", None)]:
    try:
        dag.params.get_param(name).resolve(value)
    except Exception:
        refused.append(name)
tasks = {
    task.task_id: {
        "pool": task.pool,
        "slots": task.pool_slots,
        "timeout": task.execution_timeout.total_seconds(),
        "rule": task.trigger_rule,
        "outlets": [asset.uri for asset in getattr(task, "outlets", None) or task.partial_kwargs.get("outlets", [])]
        if task.task_id == "merge" else [],
    }
    for task in dag.tasks
}
print(json.dumps({"errors": bag.import_errors, "tasks": tasks, "refused": refused}, default=str))
"""


def test_three_shards_are_merged_and_an_unchanged_catalog_is_skipped(
    airflow: Airflow, parameters: dict[str, object], tmp_path: Path
) -> None:
    output = tmp_path / "enriched.parquet"
    run = airflow.run(parameters | {"shards": 3})
    assert run.exit_code == 0, run.log
    assert run.state == "success"
    assert run.tasks == {
        "plan": ("success", 1),
        "enrich[0]": ("success", 1),
        "enrich[1]": ("success", 1),
        "enrich[2]": ("success", 1),
        "merge": ("success", 1),
    }
    enriched = pl.read_parquet(output)
    assert enriched["sku"].to_list() == [f"{n}" for n in range(ROWS)]
    assert enriched["generation"].struct.field("status").to_list() == ["generated"] * ROWS
    assert not list(tmp_path.glob("enriched.shard*"))

    # The command lines are constant; nothing of the parameters is in them, and no credential anywhere.
    commands = {line.split("Running command: ")[1].split("]")[0] for line in run.log.splitlines() if "Running" in line}
    assert commands == {
        """['/usr/bin/bash', '-c', 'exec "${ENRICH_BIN:-enrich}" plan --exit-code-unchanged 99'""",
        """['/usr/bin/bash', '-c', 'exec "${ENRICH_BIN:-enrich}" run --exit-code-unchanged 0 --json'""",
        """['/usr/bin/bash', '-c', 'exec "${ENRICH_BIN:-enrich}" merge --json'""",
    }
    assert SECRET not in run.log
    rendered = airflow.query("SELECT rendered_fields FROM rendered_task_instance_fields")
    assert rendered
    assert SECRET not in str(rendered)
    names = airflow.query(
        "SELECT rendered_map_index FROM task_instance WHERE run_id = ? AND map_index >= 0", run.run_id
    )
    assert sorted(name for (name,) in names) == ["1/3", "2/3", "3/3"]
    pools = airflow.query(
        "SELECT DISTINCT pool, pool_slots FROM task_instance WHERE run_id = ? AND map_index >= 0", run.run_id
    )
    assert pools == [("gpu", 1)]
    events = airflow.query("SELECT extra FROM asset_event WHERE source_run_id = ?", run.run_id)
    assert [json.loads(extra) for (extra,) in events] == [{"output": str(output)}]

    published = output.read_bytes()
    run = airflow.run(parameters | {"shards": 3})
    assert run.exit_code == 0, run.log
    assert run.state == "success"
    assert run.tasks == {"plan": ("skipped", 1), "enrich": ("skipped", 0), "merge": ("skipped", 0)}
    assert output.read_bytes() == published
    assert not airflow.query("SELECT extra FROM asset_event WHERE source_run_id = ?", run.run_id)


def test_bad_configuration_fails_without_a_retry_and_parameters_are_never_interpreted(
    airflow: Airflow, parameters: dict[str, object], tmp_path: Path
) -> None:
    hostile = (
        f"{tmp_path}/$(touch {tmp_path}/shell) `touch {tmp_path}/shell` '; touch {tmp_path}/shell; {{{{ 7 * 7 }}}}.sh"
    )
    run = airflow.run(parameters | {"catalog": hostile, "bin": "/bin/true", "append_env": False})
    assert run.exit_code == 1
    assert run.state == "failed"
    assert run.tasks == {"plan": ("failed", 1), "enrich": ("upstream_failed", 0), "merge": ("upstream_failed", 0)}
    assert "exit code 2 is permanent" in run.log
    assert f"enrich: {hostile}: " in run.log
    assert not (tmp_path / "shell").exists()


def test_a_shard_comes_again_after_75_and_fails_at_once_on_2(
    airflow: Airflow, parameters: dict[str, object], tmp_path: Path
) -> None:
    command = stand_in(
        tmp_path,
        f"""
        case "$1 ${{ENRICH_SHARD:-}}" in
            "run 1/3") [ -e {tmp_path}/tried ] || {{ touch {tmp_path}/tried; exit 75; }} ;;
            "run 2/3") exit 2 ;;
        esac
        exec {COMMAND} "$@"
        """,
    )
    run = airflow.run(parameters | {"shards": 3}, ENRICH_BIN=command)
    assert run.exit_code == 1
    assert run.state == "failed"
    assert run.tasks == {
        "plan": ("success", 1),
        "enrich[0]": ("success", 2),
        "enrich[1]": ("failed", 1),
        "enrich[2]": ("success", 1),
        "merge": ("upstream_failed", 0),
    }
    assert not (tmp_path / "enriched.parquet").exists()


def test_a_task_that_takes_too_long_is_told_to_stop_and_tried_again(
    airflow: Airflow, parameters: dict[str, object], tmp_path: Path
) -> None:
    script = f"trap 'echo stopped >> {tmp_path}/stops; exit 143' TERM; while :; do sleep 0.1; done"
    run = airflow.run(parameters, ENRICH_BIN=stand_in(tmp_path, script), ENRICH_DAG_TIMEOUT_SECONDS="2")
    assert run.exit_code == 1
    assert run.tasks == {"plan": ("failed", 3), "enrich": ("upstream_failed", 0), "merge": ("upstream_failed", 0)}
    assert (tmp_path / "stops").read_text() == "stopped\n" * 3
