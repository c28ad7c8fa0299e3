"""The commands that publish: `run` and `merge`."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enrich.commands.ending import check_metrics, failure_noted, never_stuck, note_ending, signals
from enrich.commands.options import (
    Place,
    catalog_argument,
    config_file_option,
    config_options,
    json_option,
    log_options,
)
from enrich.commands.printing import set_up_logging, tame
from enrich.config import build_config
from enrich.errors import ConfigError, EnrichError

if TYPE_CHECKING:
    from enrich.staging import Stage
    from enrich.summary import Summary

log = logging.getLogger("enrich")


@click.command()
@catalog_argument
@config_file_option
@config_options
@json_option
@log_options
def run(
    catalog: str, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, log_format: str, **flags: Any
) -> None:
    """Write a description for every product of CATALOG that has none.

    CATALOG is a CSV or JSON Lines file (also .gz or .zst), a Parquet file, or Amazon product metadata as McAuley's
    group publishes it (2014, 2018 or 2023). The output has all its columns, `description` filled where it was empty,
    and a column `generation` that says how. Texts of the last output are reused where nothing has changed that they
    depend on. A run that was broken off goes on where it was.

    Every option can also stand in a TOML file, or in the environment: ENRICH_MODEL, ENRICH_MAX_TIME and so on.

    \b
    Examples:
      enrich run catalog.parquet
      enrich run export.csv -o enriched.parquet --title-column Name --attributes Color,Material
      enrich run catalog.parquet --max-time 2h --max-quarantined 2% --changes changes.parquet
    """
    with failure_noted(flags["metrics_file"]):
        config = build_config(catalog, config_file, flags)
    set_up_logging(quiet, verbose, log_format)
    with failure_noted(config.metrics_file), signals() as stopped_by:
        from enrich import job
        from enrich.staging import staged

        check_metrics(config.metrics_file)
        show_bar = sys.stderr.isatty() and not quiet and log_format != "json"
        with (
            never_stuck(config, lambda: stopped_by[0]) as should_stop,
            staged(config, should_stop) as stage,
            _reported(stage),
        ):
            summary = job.run_staged(stage, show_bar=show_bar, should_stop=should_stop)
    exit_code = config.exit_code_unchanged if summary.unchanged else 0
    note_ending(config.metrics_file, exit_code, summary.seconds, summary)
    _report(summary, as_json, quiet)
    click.get_current_context().exit(exit_code)


@contextmanager
def _reported(stage: Stage) -> Iterator[None]:
    """Write the run's report, if there is to be one, once it has published."""
    config = stage.config
    if config.report is None:
        yield
        return
    from enrich.report import charts, opening, write_report

    charts.check_available()
    before = None
    if config.published_path.is_file():
        try:  # opened now, so that it can still be read when the new one has taken its place
            before = opening.open_output(config.published_path)
        except EnrichError as error:
            log.warning("the report has no night before: %s", error)
    yield
    try:
        called = stage.names(str(config.output_path))
        write_report(config.output_path, Path(config.report), before=before, called=called)
    except OSError as error:  # the catalog is published, and that is what counts
        log.warning("%s: no report: %s", config.report, error)


@click.command()
@click.argument("output", envvar="ENRICH_OUTPUT", type=Place(path_type=Path))
@click.option(
    "--changes",
    type=click.Path(path_type=Path),
    envvar="ENRICH_CHANGES",
    help="Parquet file to write the rows to that are new, have another text, or are gone since.",
)
@click.option(
    "--metrics-file",
    envvar="ENRICH_METRICS_FILE",
    help="File for node_exporter to collect, such as enrich.prom; needs the extra `metrics`.",
)
@json_option
@log_options
def merge(
    output: Path | str,
    changes: Path | None,
    metrics_file: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    log_format: str,
) -> None:
    """Join the shards of OUTPUT that `enrich run --shard` has written, publish it and remove them.

    \b
    Example:
      enrich merge catalog.enriched.parquet
    """
    set_up_logging(quiet, verbose, log_format)
    if isinstance(output, str):
        raise ConfigError("shards work on local files only, not on remote storage")
    from enrich import job

    with failure_noted(metrics_file):
        check_metrics(metrics_file)
        summary = job.merge(output, changes)
    note_ending(metrics_file, 0, summary.seconds, summary)
    _report(summary, as_json, quiet, with_speed=False)  # its seconds are not those in which the texts were written


def _report(summary: Summary, as_json: bool, quiet: bool, *, with_speed: bool = True) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
        return
    if quiet:
        return
    resumed = f" ({summary.resumed_rows:,} of them by an earlier run)" if summary.resumed_rows else ""
    counts = [f"{summary.generated:,} generated{resumed}"]
    counts += [f"{getattr(summary, name):,} {name}" for name in ("reused", "kept", "quarantined")]
    counts += [f"{n:,} {name}" for name in ("retried", "skipped", "pending", "edited") if (n := getattr(summary, name))]
    speed = f", {summary.tokens_per_second:,.0f} tokens/s" if summary.generated and with_speed else ""
    click.echo(f"{summary.rows:,} rows: {', '.join(counts)}; {summary.seconds:.1f} s{speed}")
    click.echo(f"{'unchanged:' if summary.unchanged else 'written to'} {tame(summary.output)}")
