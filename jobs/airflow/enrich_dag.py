"""Enrich a catalog every night from Airflow 3.3 or newer: plan the shards, run them side by side, merge them.

    plan ──> enrich (one task for each shard) ──> merge ──> the asset `enriched_catalog`

The tasks only call the command `enrich`, which is installed on the workers in an environment of its own; nothing of it
is imported here. Parameters reach it through environment variables, never through the command line, so that neither a
shell nor a template interprets them. Credentials are not passed at all: the command inherits the worker's environment.

These variables, set for the DAG processor and the workers, fit the DAG to a deployment:

    ENRICH_BIN                  the command, with its path if that is not on PATH    enrich
    ENRICH_CATALOG              default of the parameter `catalog`                   /srv/catalog/products.parquet
    ENRICH_OUTPUT               default of the parameter `output`                    /srv/catalog/products.enriched.parquet
    ENRICH_DAG_SCHEDULE         cron expression, in UTC                              30 1 * * *
    ENRICH_DAG_POOL             pool with one slot for each GPU                      default_pool
    ENRICH_DAG_TIMEOUT_SECONDS  longest that one try of a task may take              28800
    ENRICH_DAG_RETRY_SECONDS    wait before a retry                                  600
"""  # noqa: E501

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Param, RetryDecision, RetryPolicy, dag, literal, task

CATALOG = os.environ.get("ENRICH_CATALOG", "/srv/catalog/products.parquet")
OUTPUT = os.environ.get("ENRICH_OUTPUT", "/srv/catalog/products.enriched.parquet")
ENRICHED = Asset("enriched_catalog", uri=OUTPUT if "://" in OUTPUT else f"file://{OUTPUT}")

COMMAND = '"${ENRICH_BIN:-enrich}"'
UNCHANGED = 99  # what Airflow takes for "skip this task"
# Configuration, quality and counts come out the same the next time; 126 and 127 are the shell's for a missing command.
PERMANENT = {2, 3, 4, 126, 127}

ABSOLUTE = r"^(/|[a-z0-9]+://)"  # tasks run in a directory that Airflow makes and removes
PARAMS = {
    "catalog": Param(CATALOG, type="string", pattern=ABSOLUTE, description="CSV, JSON Lines or Parquet file"),
    "output": Param(
        OUTPUT, type="string", pattern=ABSOLUTE + r".*\.(parquet|pq)$", description="Parquet file to publish"
    ),
    "shards": Param(1, type="integer", minimum=1, maximum=1024, description="tasks to split the catalog over"),
    "max_time": Param("4h", type=["null", "string"], description="time for one try of one shard, such as 90m"),
    "config": Param(None, type=["null", "string"], pattern=ABSOLUTE, description="TOML file with further options"),
    "model": Param(None, type=["null", "string"], description="model, if not the configured one"),
}


class PermanentExitCodes(RetryPolicy):
    """Fails a task at once on an exit code that another try would only repeat; `@task.bash` alone retries on all.

    The exit code stands in the message of the exception only. Should that be worded otherwise one day, such a task is
    retried like the others.
    """

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:  # noqa: ARG002
        """Decide by the exit code."""
        found = re.search(r"exit code (-?\d+)", str(exception))
        if found and int(found[1]) in PERMANENT:
            return RetryDecision.fail(f"exit code {found[1]} is permanent")
        return RetryDecision.default()


def environment(context: Any, jinja_env: object) -> dict[str, Any]:  # noqa: ARG001
    """Return the parameters of the run as environment variables of the command.

    A function and not templates, because it sees the shard of a mapped task and can leave out what was not given; and
    `literal`, because Airflow renders what `@task.bash` holds a second time, and what a person typed is no template.
    Only the declared parameters, because a trigger may bring others, such as one to replace the command.
    """
    values = {name: context["params"][name] for name in PARAMS} | context["task"].op_kwargs
    return {f"ENRICH_{name.upper()}": literal(str(value)) for name, value in values.items() if value not in (None, "")}


@dag(
    dag_id="enrich_nightly",
    description="Write the missing descriptions of a product catalog",
    schedule=os.environ.get("ENRICH_DAG_SCHEDULE", "30 1 * * *"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args={
        "env": environment,
        "append_env": True,
        "execution_timeout": timedelta(seconds=int(os.environ.get("ENRICH_DAG_TIMEOUT_SECONDS", "28800"))),
        "retries": 2,
        "retry_delay": timedelta(seconds=int(os.environ.get("ENRICH_DAG_RETRY_SECONDS", "600"))),
        "retry_policy": PermanentExitCodes(),
    },
    doc_md=__doc__,
)
def enrich_nightly() -> None:
    """Plan, enrich shard by shard, merge; everything is skipped when nothing has changed since the last night."""

    @task.bash(output_processor=json.loads)
    def plan() -> str:
        return f"exec {COMMAND} plan --exit-code-unchanged {UNCHANGED}"

    @task.bash(pool=os.environ.get("ENRICH_DAG_POOL", "default_pool"), pool_slots=1, map_index_template="{{ shard }}")
    def enrich(shard: str) -> str:  # noqa: ARG001 - `environment` passes it on
        return f"exec {COMMAND} run --exit-code-unchanged 0 --json"

    @task.bash(trigger_rule="none_failed_min_one_success", outlets=[ENRICHED])
    def merge(*, params: dict[str, Any], outlet_events: Any) -> str:
        outlet_events[ENRICHED].extra = {"output": params["output"]}
        return f"exec {COMMAND} merge --json"

    enrich.expand(shard=plan()) >> merge()


enrich_nightly()
