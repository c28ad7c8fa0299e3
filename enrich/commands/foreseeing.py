"""The commands that look at a run from outside: `plan`, `status` and `config`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from enrich.commands.options import Place, catalog_argument, config_file_option, config_options, json_option
from enrich.commands.printing import lines_of, set_up_logging
from enrich.config import RunConfig, build_config


@click.command()
@catalog_argument
@config_file_option
@click.option(
    "--shards",
    type=click.IntRange(1, 9999),
    envvar="ENRICH_SHARDS",
    help="Print so many shards for `enrich run --shard`, as a JSON list, in place of the plan.",
)
@click.option("--price-per-hour", type=click.FloatRange(0), help="What the machine costs an hour, for the cost.")
@config_options
@json_option
def plan(
    catalog: str,
    config_file: Path | None,
    shards: int | None,
    price_per_hour: float | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print what a run of CATALOG would do and take, without loading the model's weights or writing anything.

    That is: the columns found; how many rows would be generated, reused and kept, and how many can't be used; the
    buckets of prompt lengths and their padding; tokens, time and cost, from what earlier runs took on this machine;
    and three of the prompts. What a run would refuse is refused.

    With --shards it prints a JSON list of shards alone. It ends with --exit-code-unchanged and an empty list if nothing
    has changed since the output was published.

    \b
    Examples:
      enrich plan catalog.parquet --price-per-hour 0.40
      enrich plan catalog.parquet --shards 3
    """
    config = build_config(catalog, config_file, flags)
    set_up_logging(quiet=True, verbose=False)
    from enrich import job

    if shards is None:
        from enrich.plan import as_table

        foreseen = job.foresee(config, price_per_hour)
        click.echo(
            json.dumps(dataclasses.asdict(foreseen)) if as_json else lines_of(as_table(foreseen, price_per_hour))
        )
        return
    planned = job.plan(config, shards)
    click.echo(json.dumps(planned or []))
    if planned is None:
        click.get_current_context().exit(config.exit_code_unchanged)


@click.command()
@click.argument("output", envvar="ENRICH_OUTPUT", type=Place(path_type=Path))
@json_option
def status(output: Path | str, as_json: bool) -> None:
    """Print how far the run that writes OUTPUT is, or was when it was broken off.

    \b
    Example:
      enrich status catalog.enriched.parquet
    """
    from enrich.status import read_remote_status, read_status
    from enrich.timing.progress import duration

    found = read_status(output) if isinstance(output, Path) else read_remote_status(output)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    click.echo(f"{found.output}: {found.state}" + (f" by {found.holder}" if found.holder else ""))
    if found.rows is not None and found.done is not None:
        speed = f", {found.tokens_per_second:,.0f} tokens/s" if found.tokens_per_second else ""
        left = f", about {duration(found.seconds_left)} left" if found.seconds_left is not None else ""
        click.echo(f"  {found.done:,} of {found.rows:,} rows to do are done{speed}{left}")
    if found.state == "interrupted":
        click.echo("  the command that began it goes on from there")
    if found.last_commit:
        click.echo(f"  last commit {found.last_commit}")
    if found.published_at:
        click.echo(f"  published {found.published_at} with {found.published_rows:,} rows")


@click.command()
@catalog_argument
@config_file_option
@config_options
def config(catalog: str, config_file: Path | None, **flags: Any) -> None:
    """Print the options of a run of CATALOG as TOML, each with where its value came from.

    \b
    Example:
      enrich config catalog.parquet --seed 7
    """
    from enrich.config import as_toml, find_config, read_config
    from enrich.engine.files import wishes_of

    given = build_config(catalog, config_file, flags)
    file = config_file or find_config(catalog)
    in_file = read_config(file) if file else {}
    known = wishes_of(given.model, given.revision)
    wished = known[1] if known else {}
    open_to_model, merged = given.left_open(wished), given.completed(wished)
    context = click.get_current_context()
    for option in dataclasses.fields(RunConfig):
        if option.name == "catalog":
            continue
        if flags[option.name] is not None:
            source = context.get_parameter_source(option.name)
            variable = f"ENRICH_{option.name.upper()}"
            origin = variable if source is click.core.ParameterSource.ENVIRONMENT else "command line"
        elif option.name in in_file:
            origin = str(file)
        elif option.name in open_to_model and known is None:
            origin = f"default, unless {given.model}, which is not on this machine, wishes otherwise"
        elif option.name == "template" and known and known[0].template is not None:
            origin = f"{given.model} has one of its own"
        else:
            origin = f"wish of {given.model}" if open_to_model.get(option.name, (None, False))[1] else "default"
        click.echo(f"{as_toml(option.name, getattr(merged, option.name)):<40}  # {origin}")
