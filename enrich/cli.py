"""The command line: options in, one function called, its result printed, an exit code out."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from enrich.config import DEVICES, DTYPES, RunConfig, build_config
from enrich.errors import ConfigError, EnrichError, TooManyQuarantined, TryAgain

if TYPE_CHECKING:
    from enrich.staging import Stage
    from enrich.summary import Summary

log = logging.getLogger("enrich")


class _Place(click.Path):
    """A file on this machine, or a URL in remote storage, as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from enrich.storage.url import Url, is_remote

        if isinstance(value, str) and is_remote(value):
            Url.parse(value)
            return value
        return super().convert(value, param, ctx)


_EXIT_CODES = """
\b
Exit codes:
  0          published, or nothing had changed (--exit-code-unchanged names another code for that)
  1          unexpected error
  2          usage, configuration, catalog or model: do not retry
  3          too many rows without a usable text (--max-quarantined), or texts too unlike the last ones (--max-drift);
             output withheld
  4          rows in and rows out differ; output withheld
  75         locked by another run, out of time or memory: the same command later goes on
  130, 143   stopped by SIGINT, SIGTERM: committed, the same command goes on
"""


class _Commands(click.Group):
    """Turns the errors of the library into one line and their exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except EnrichError as error:
            click.echo(f"enrich: {_tame(str(error))}", err=True)
            ctx.exit(_exit_code(error))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"enrich: {_tame(f'{where}{error.strerror or error}')}", err=True)
            ctx.exit(_exit_code(error))
        except MemoryError as error:
            what = "out of memory; committed rows are safe, the same command goes on from them"
            click.echo(f"enrich: {what}", err=True)
            ctx.exit(_exit_code(error))
        except Exception as error:
            traceback.print_exc()
            click.echo(
                "enrich: that was unexpected; committed rows are safe, the same command goes on from them", err=True
            )
            ctx.exit(_exit_code(error))


def _show_versions(ctx: click.Context) -> None:
    from enrich.engine.loading import pick_device, pick_dtype
    from enrich.versions import versions

    device = pick_device("auto")
    for name, version in versions().items():
        click.echo(f"{name} {version}")
    click.echo(f"device {device}, {pick_dtype('auto', device)}")
    ctx.exit()


def _exit_code(error: Exception) -> int:
    if isinstance(error, EnrichError):
        return error.exit_code
    if isinstance(error, OSError):
        return 75 if error.errno in _TEMPORARY else 2 if error.errno in _PERMANENT else 1
    return 75 if isinstance(error, MemoryError) else 1


_TEMPORARY = {errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
_PERMANENT = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip

# What ends a line, moves a terminal's cursor or turns its text around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _tame(text: str) -> str:
    """Return a text of a catalog or of another's error fit for one line of a terminal or a log."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _lines(text: str) -> str:
    """Return a text of several lines fit for a terminal."""
    return "\n".join(map(_tame, text.split("\n")))


@click.group(cls=_Commands, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _show_versions(ctx) if wanted else None,
    help="Show the versions of this and its libraries, and the device that runs would use.",
)
def main() -> None:
    """Write the missing descriptions of a product catalog.

    \b
    Example:
      enrich run catalog.parquet
    """


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each field of RunConfig, in its order."""
    for option in reversed(dataclasses.fields(RunConfig)):
        if option.name == "catalog":
            continue
        flag = "--" + option.name.replace("_", "-")
        kind, help_text = str(option.type).split(" | ")[0], option.metadata["help"]
        if option.default is not None and kind != "bool":
            help_text += f"  [default: {option.default}]"
        if option.metadata["built_in"] is not None and kind != "bool":
            help_text += f"  [default: the model's own, or {option.metadata['built_in']}]"
        settings: dict[str, Any] = {"default": None, "help": help_text, "envvar": f"ENRICH_{option.name.upper()}"}
        if kind == "bool":
            flag += f"/--no-{option.name}" if option.name in ("overwrite", "chat") else ""
            settings["is_flag"] = True
        elif option.metadata["choices"]:
            settings["type"] = click.Choice(option.metadata["choices"])
        else:
            settings["type"] = {"int": int, "float": float}.get(kind, str)
            settings["metavar"] = {"int": "N", "float": "X"}.get(kind, "TEXT")
        command = click.option(*option.metadata["flags"], flag, option.name, **settings)(command)
    return command


_catalog_argument = click.argument("catalog", envvar="ENRICH_CATALOG")
_config_file_option = click.option(
    "--config",
    "config_file",
    envvar="ENRICH_CONFIG",
    type=click.Path(path_type=Path),
    help="TOML file with any of these options; flags win.  [default: enrich.toml beside CATALOG]",
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object, the last line of standard output."
)


def _log_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Print more of what is done."),
        click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only."),
        click.option(
            "--log-format",
            type=click.Choice(["auto", "plain", "json"]),
            default="auto",
            envvar="ENRICH_LOG_FORMAT",
            help="Log lines with time and level, or as JSON objects; auto: bare ones on a terminal.",
        ),
    ):
        command = option(command)
    return command


@main.command()
@_catalog_argument
@_config_file_option
@_config_options
@_json_option
@_log_options
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
    with _failure_noted(flags["metrics_file"]):
        config = build_config(catalog, config_file, flags)
    _set_up_logging(quiet, verbose, log_format)
    with _failure_noted(config.metrics_file), _signals() as stopped_by:
        from enrich import job
        from enrich.staging import staged

        _check_metrics(config.metrics_file)
        show_bar = sys.stderr.isatty() and not quiet and log_format != "json"
        with (
            _never_stuck(config, lambda: stopped_by[0]) as should_stop,
            staged(config, should_stop) as stage,
            _reported(stage),
        ):
            summary = job.run_staged(stage, show_bar=show_bar, should_stop=should_stop)
    exit_code = config.exit_code_unchanged if summary.unchanged else 0
    _note(config.metrics_file, exit_code, summary.seconds, summary)
    _report(summary, as_json, quiet)
    click.get_current_context().exit(exit_code)


_STUCK_SECONDS = 600.0


@contextmanager
def _never_stuck(config: RunConfig, should_stop: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """End the process if its time is up and nothing has moved for long: an engine or a disk that never answers.

    Who gives a run an end does not expect it to hold the lock for ever. The run must ask the function yielded, in place
    of `should_stop`, as often as it moves.
    """
    seconds = config.seconds_left()
    if seconds is None:
        yield should_stop
        return
    started = moved = time.monotonic()
    is_over = threading.Event()

    def asked() -> int:
        nonlocal moved
        moved = time.monotonic()
        return should_stop()

    def watch(wait: float) -> None:
        while not is_over.wait(wait):
            now = time.monotonic()
            wait = moved + _STUCK_SECONDS - now
            if wait <= 0:
                _give_up(config, now - started, now - moved)

    threading.Thread(target=watch, args=(seconds,), daemon=True).start()
    try:
        yield asked
    finally:
        is_over.set()


def _give_up(config: RunConfig, seconds: float, stuck: float) -> NoReturn:
    """End the process at once, as one that is out of time."""
    click.echo(
        f"enrich: time is up, and nothing has moved for {stuck:.0f} s; committed rows are safe, the same command goes"
        " on from them",
        err=True,
    )
    with suppress(Exception):  # whatever it is, the process must end
        _note(config.metrics_file, TryAgain.exit_code, seconds, None, TryAgain("stuck"))
    os._exit(TryAgain.exit_code)


@contextmanager
def _reported(stage: Stage) -> Iterator[None]:
    """Write the run's report, if there is to be one, once it has published."""
    config = stage.config
    if config.report is None:
        yield
        return
    from enrich.report import charts, gather, write_report

    charts.check_available()
    before = None
    if config.published_path.is_file():
        try:  # opened now, so that it can still be read when the new one has taken its place
            before = gather.open_output(config.published_path)
        except EnrichError as error:
            log.warning("the report has no night before: %s", error)
    yield
    try:
        called = stage.names(str(config.output_path))
        write_report(config.output_path, Path(config.report), before=before, called=called)
    except OSError as error:  # the catalog is published, and that is what counts
        log.warning("%s: no report: %s", config.report, error)


@contextmanager
def _failure_noted(metrics_file: str | None) -> Iterator[None]:
    """Write an error's exit code to the metrics file, if there is to be one, and let the error go its way."""
    started = time.monotonic()
    try:
        yield
    except Exception as error:
        try:
            _note(metrics_file, _exit_code(error), time.monotonic() - started, getattr(error, "summary", None), error)
        except (OSError, ImportError) as second:  # what went wrong first is what counts
            log.warning("%s: no metrics: %s", metrics_file, second)
        raise


def _check_metrics(metrics_file: str | None) -> None:
    if metrics_file is not None:
        from enrich import metrics

        metrics.check_available()


def _note(
    metrics_file: str | None, exit_code: int, seconds: float, summary: Summary | None, error: Exception | None = None
) -> None:
    if metrics_file is not None:
        from enrich import metrics

        values = dataclasses.asdict(summary) if summary else None
        metrics.write_metrics(
            Path(metrics_file), exit_code=exit_code, succeeded=error is None, seconds=seconds, summary=values
        )


@main.command()
@_catalog_argument
@_config_file_option
@click.option(
    "--shards",
    type=click.IntRange(1, 9999),
    envvar="ENRICH_SHARDS",
    help="Print so many shards for `enrich run --shard`, as a JSON list, in place of the plan.",
)
@click.option("--price-per-hour", type=click.FloatRange(0), help="What the machine costs an hour, for the cost.")
@_config_options
@_json_option
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
    _set_up_logging(quiet=True, verbose=False)
    from enrich import job

    if shards is None:
        from enrich.plan import as_table

        foreseen = job.foresee(config, price_per_hour)
        click.echo(json.dumps(dataclasses.asdict(foreseen)) if as_json else _lines(as_table(foreseen, price_per_hour)))
        return
    planned = job.plan(config, shards)
    click.echo(json.dumps(planned or []))
    if planned is None:
        click.get_current_context().exit(config.exit_code_unchanged)


@main.command()
@click.argument("output", envvar="ENRICH_OUTPUT", type=_Place(path_type=Path))
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
@_json_option
@_log_options
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
    _set_up_logging(quiet, verbose, log_format)
    if isinstance(output, str):
        raise ConfigError("shards work on local files only, not on remote storage")
    from enrich import job

    with _failure_noted(metrics_file):
        _check_metrics(metrics_file)
        summary = job.merge(output, changes)
    _note(metrics_file, 0, summary.seconds, summary)
    _report(summary, as_json, quiet)


@main.command()
@click.argument("output", envvar="ENRICH_OUTPUT", type=_Place(path_type=Path))
@_json_option
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
    if found.rows is not None:
        speed = f", {found.tokens_per_second:,.0f} tokens/s" if found.tokens_per_second else ""
        left = f", about {duration(found.seconds_left)} left" if found.seconds_left is not None else ""
        click.echo(f"  {found.done:,} of {found.rows:,} rows to do are done{speed}{left}")
    if found.last_commit:
        click.echo(f"  last commit {found.last_commit}")
    if found.published_at:
        click.echo(f"  published {found.published_at} with {found.published_rows:,} rows")


@main.command()
@_catalog_argument
@_config_file_option
@_config_options
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


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def models(as_json: bool) -> None:
    """List the models that a run can name: embedded ones, presets, and those in the hub cache of this machine.

    Any other model of the hub or directory can be named as well; `enrich run` fetches what isn't here if it may.

    \b
    Examples:
      enrich models
      enrich run catalog.parquet --model gpt2-home
    """
    from enrich.engine import inventory

    entries = inventory.list_models()
    click.echo(inventory.as_json(entries) if as_json else inventory.as_table(entries))


def _report(summary: Summary, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
        return
    if quiet:
        return
    resumed = f" ({summary.resumed_rows:,} of them by an earlier run)" if summary.resumed_rows else ""
    counts = [f"{summary.generated:,} generated{resumed}"]
    counts += [f"{getattr(summary, name):,} {name}" for name in ("reused", "kept", "quarantined")]
    counts += [f"{n:,} {name}" for name in ("retried", "skipped", "pending", "edited") if (n := getattr(summary, name))]
    speed = f", {summary.tokens_per_second:,.0f} tokens/s" if summary.generated else ""
    click.echo(f"{summary.rows:,} rows: {', '.join(counts)}; {summary.seconds:.1f} s{speed}")
    click.echo(f"{'unchanged:' if summary.unchanged else 'written to'} {_tame(summary.output)}")


@main.command()
@click.argument("output", envvar="ENRICH_OUTPUT", type=_Place(path_type=Path))
@click.option(
    "-o",
    "--page",
    type=_Place(path_type=Path),
    help="HTML file to write.  [default: OUTPUT's stem + .report.html; none with --json]",
)
@click.option(
    "--before",
    type=_Place(path_type=Path),
    help="Output of the night before: its texts and lengths stand beside tonight's.",
)
@click.option("--sample", type=click.IntRange(0, 5000), default=300, show_default=True, help="Texts to show.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other texts.")
@_json_option
def report(
    output: Path | str, page: Path | str | None, before: Path | str | None, sample: int, seed: int, as_json: bool
) -> None:
    """Write a report on OUTPUT: one HTML file that needs no network.

    It says what the run did and how fast, row by row accounted for; what was computed for nothing in each bucket; how
    long prompts and texts are and why they ended; flags and quarantine with examples; how far the texts are from the
    night before; texts that stand twice; and a sample of texts to search, with what the row says marked.

    Needs the extra `report`: pip install 'enrich[report]'. --json does not.

    \b
    Examples:
      enrich report catalog.enriched.parquet
      enrich report catalog.enriched.parquet --before last-night.parquet -o report.html
      enrich report catalog.enriched.parquet --json
    """
    _set_up_logging(quiet=True, verbose=False)
    from enrich.report import gather, report_path
    from enrich.report import page as pages
    from enrich.staging import fetched, lent_to_send

    _check_page(page, as_json)
    with ExitStack() as stack:
        earlier = gather.open_output(stack.enter_context(fetched(before))) if before else None
        local = stack.enter_context(fetched(output, with_quarantine=True))
        found = gather.gather(gather.open_output(local), before=earlier, sample=sample, seed=seed)
        found = dataclasses.replace(found, output=str(output))
        path = page or (None if as_json else report_path(output))
        if path is not None:
            pages.write(pages.render(found), stack.enter_context(lent_to_send(path)))
    click.echo(json.dumps(dataclasses.asdict(found)) if as_json else f"{found.sentence}\nwritten to {path}")


@main.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--page",
    type=click.Path(path_type=Path),
    help="HTML file to write.  [default: FIRST's stem + .compared.html]",
)
@click.option("--sample", type=click.IntRange(1, 5000), default=300, show_default=True, help="Products to show.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other products.")
@_json_option
def compare(first: Path, second: Path, page: Path | None, sample: int, seed: int, as_json: bool) -> None:
    """Write a page with two outputs of one catalog side by side, such as of two models or settings.

    It has both texts of each product of a sample, and what differs in counts, lengths, flags, speed and settings. Needs
    the extra `report`, as `enrich report` does; --json does not.

    \b
    Example:
      enrich compare home-mini.enriched.parquet gpt2-home.enriched.parquet -o models.html
    """
    _set_up_logging(quiet=True, verbose=False)
    from enrich.report import gather
    from enrich.report import page as pages
    from enrich.report.compare import compare as compared

    _check_page(page, as_json)
    found = compared(gather.open_output(first), gather.open_output(second), sample=sample, seed=seed)
    path = page or (None if as_json else first.with_name(f"{first.stem}.compared.html"))
    if path is not None:
        pages.write(pages.render_comparison(found), path)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    for figure in found.figures:
        click.echo(f"{figure.name:<30} {figure.before:>12,} {figure.now:>12,}")
    click.echo(f"written to {path}")


def _check_page(page: Path | str | None, as_json: bool) -> None:
    """Refuse what could not be written, before anything is read."""
    from enrich.report.charts import check_available

    if page is not None and Path(page).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--page {page}: must end in .html")
    if page is not None or not as_json:
        check_available()


@main.command()
@click.argument("output", type=_Place(exists=True, dir_okay=False))
@click.option("-n", "--rows", type=click.IntRange(1), default=3, show_default=True, help="How many rows.")
def show(output: str, rows: int) -> None:
    """Print some of the texts that a run generated.

    \b
    Example:
      enrich show catalog.enriched.parquet -n 10
    """
    from enrich.output import read_texts
    from enrich.staging import fetched

    with fetched(output) as path:
        texts = read_texts(path, rows)
    for title, text in texts:
        click.secho(_tame(str(title)), bold=True)
        click.echo(f"  {_tame(text)}\n")


@main.command()
@click.argument("output", type=_Place(exists=True, dir_okay=False, path_type=Path))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(["generated", "reused", "kept", "quarantined", "skipped", "pending"]),
    help="Write rows of this status only; may be given again.",
)
@click.option("--no-generation", is_flag=True, help="Leave out how the rows came by their texts.")
def export(output: Path | str, file: Path, statuses: tuple[str, ...], no_generation: bool) -> None:
    """Write OUTPUT in a flat form to FILE (.csv, .jsonl, both also .gz, or .parquet).

    The record `generation` becomes a column a field (generation_status, ...), lists become text with commas.

    \b
    Examples:
      enrich export catalog.enriched.parquet catalog.csv
      enrich export catalog.enriched.parquet new.csv --status generated --no-generation
    """
    from enrich.export import export as write
    from enrich.staging import fetched

    with fetched(output) as path:
        rows = write(path, file, statuses=statuses, generation=not no_generation)
    click.echo(f"{rows:,} rows written to {file}")


_SHARE = click.FloatRange(0, 1, max_open=True)


@main.command()
@click.argument("catalogs", nargs=-1, required=True, metavar="CATALOG...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Model directory to write.")
@click.option("--base", metavar="MODEL", help="Model to go on from: any causal language model.")
@click.option(
    "--from-scratch",
    "size",
    metavar="SIZE",
    help="Make a GPT-2 of this size instead: mini (8 million parameters), small (34), gpt2 (111).",
)
@click.option(
    "--validation",
    metavar="CATALOG",
    type=click.Path(path_type=Path),
    help="Measure on these texts, just as they are, instead of on held-out products.",
)
@click.option(
    "--template",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Jinja2 file to render prompts with, kept with the model for its runs.",
)
@click.option("--limit", type=click.IntRange(1), help="Read only the first N rows of each CATALOG.")
@click.option("--clean/--no-clean", default=True, help="Drop texts not worth learning from.  [default: clean]")
@click.option("--min-words", type=click.IntRange(1), help="Drop shorter texts.  [default: 6]")
@click.option(
    "--max-copies", type=click.IntRange(0), help="Products that one text may stand for; 0: any number.  [default: 3]"
)
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps, at most.  [default: 4800]")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Times to go over the texts, instead of steps.")
@click.option(
    "--patience",
    type=click.IntRange(0),
    help="Stop after so many evaluations without a better loss and keep the best weights; 0: go on to the end and keep"
    " the last.  [default: 5]",
)
@click.option("--batch-size", type=click.IntRange(1), help="Texts in a batch.  [default: 16]")
@click.option("--accumulate", type=click.IntRange(1), help="Batches in a step, if memory is short.  [default: 1]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Peak of the schedule.  [default: 5e-5; with LoRA 2e-4; from scratch 1.2e-3]",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "one-cycle"]),
    help="Down along a cosine after a short warm-up, or one of 30 % of the steps.  [default: cosine]",
)
@click.option("--warmup-steps", type=click.IntRange(0), help="Steps of the warm-up of cosine.  [default: 150]")
@click.option("--weight-decay", type=click.FloatRange(0), help="Decay of the weights.  [default: 0.05]")
@click.option("--dropout", type=click.FloatRange(0, 0.9), help="Dropout, from scratch or of LoRA.  [default: 0]")
@click.option(
    "--word-dropout",
    type=click.FloatRange(0, 0.9),
    help="Share of a text's tokens shown wrongly, so that fewer texts are learned by heart.  [default: 0]",
)
@click.option(
    "--calibrate",
    is_flag=True,
    default=None,
    help="Divide the finished model's logits by the number that suits the held-out texts best.",
)
@click.option("--lora", metavar="RANK", type=click.IntRange(1), help="Train adapters of this rank, then merge them.")
@click.option(
    "--max-tokens",
    type=click.IntRange(8),
    help="Leave out longer prompt and text.  [default: 384; 192 in a context of up to 512]",
)
@click.option("--learn-prompts", is_flag=True, default=None, help="Take the loss on the prompts as well.")
@click.option("--held-out", type=_SHARE, help="Share of the products to measure on.  [default: 0.1]")
@click.option("--evaluate-every", type=click.IntRange(1), help="Steps between checkpoints.  [default: 500]")
@click.option("--seed", type=click.IntRange(0), help="Seed of weights and order.  [default: 7]")
@click.option("--max-new-tokens", type=click.IntRange(1), help="What runs of the model shall take for default.")
@click.option("--temperature", type=click.FloatRange(0), help="The same, for the sampling temperature.")
@click.option("--top-k", type=click.IntRange(0), help="The same, for top-k.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="The same, for top-p.")
@click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), help="The same, for the penalty.")
@click.option("--license", metavar="ID", help="Licence of the model, for its card: apache-2.0, say.")
@click.option("--data-license", metavar="TEXT", help="Licence of the catalogs' texts, for the card.")
@click.option("--restart", is_flag=True, help="Begin anew where a training was broken off.")
def finetune(
    catalogs: tuple[Path, ...],
    output: Path,
    validation: Path | None,
    template: Path | None,
    base: str | None,
    size: str | None,
    limit: int | None,
    clean: bool,
    max_new_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float | None,
    license: str | None,
    data_license: str | None,
    restart: bool,
    **recipe: Any,
) -> None:
    """Train a model on the descriptions that catalogs already have.

    CATALOG is whatever `enrich run` reads. Texts that are not worth learning from are dropped and counted: HTML alone,
    the title alone, too short, no prose, duplicates, one text under many products; sentences that stand everywhere are
    cut out. Prompts are rendered as `enrich run` renders them.

    OUTPUT is a model directory: safetensors weights, tokenizer, enrich.toml (how runs are to ask the model),
    metrics.json, loss.svg and a card, README.md. A training that was killed goes on from its last checkpoint in
    OUTPUT.training. Needs the extra `train`: pip install 'enrich[train]'

    \b
    Examples:
      enrich finetune catalog.parquet --base gpt2 --epochs 3 -o my-model
      enrich finetune meta_Home_and_Kitchen.json.gz --limit 100000 --base gpt2 --lora 16 -o my-model
      enrich finetune catalog.parquet --from-scratch mini -o my-model
    """
    if (base is None) == (size is None):
        raise ConfigError("name either --base MODEL or --from-scratch SIZE")
    if recipe["steps"] and recipe["epochs"]:
        raise ConfigError("name either --steps or --epochs")
    _set_up_logging(quiet=False, verbose=False)
    with _signals() as stopped_by:
        from enrich import finetune as training

        metrics = training.finetune(
            catalogs,
            output,
            settings=recipe,
            validation=validation,
            template=template,
            base=base,
            size=size,
            clean=clean,
            limit=limit,
            wishes={
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "repetition_penalty": repetition_penalty,
            },
            license=license,
            data_license=data_license,
            restart=restart,
            should_stop=lambda: stopped_by[0],
        )
    click.echo(json.dumps(metrics))


@main.command()
@click.option("--model", default="home-mini", show_default=True, help="As for `enrich run`.", envvar="ENRICH_MODEL")
@click.option("--revision", help="Branch, tag or commit of a hub model.", envvar="ENRICH_REVISION")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to compute.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 lets others in.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="Port; 0 for any.")
def demo(model: str, revision: str | None, device: str, host: str, port: int) -> None:
    """Serve a page on which a model writes live, for this machine alone unless --host says otherwise.

    Type a prompt or describe a product, watch the text come, see what would be published of it, compare three attempts,
    or upload a small catalog and get it back enriched. Nothing is sent elsewhere. Needs the extra `demo`:
    pip install 'enrich[demo]'

    \b
    Examples:
      enrich demo
      enrich demo --model ./my-model --port 8000
    """
    _set_up_logging(quiet=True, verbose=False)
    from enrich import demo as page

    page.check_available()
    from enrich.workbench import Workbench

    page.serve(Workbench(model, revision=revision, device=device), host=host, port=port, say=click.echo)


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.argument("catalog", type=click.Path(path_type=Path))
@click.option("--texts", "num_texts", type=click.IntRange(1), default=500, show_default=True, help="Texts to generate.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest text to generate, in tokens, as in a run.")
@click.option(
    "--training",
    multiple=True,
    metavar="CATALOG",
    type=click.Path(path_type=Path),
    help="Catalog that the models were trained on, to find what they copy from it; may be given again.",
)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to compute.")
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Number format.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other texts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line in place of the table.")
def evaluate(
    models: tuple[str, ...],
    catalog: Path,
    num_texts: int,
    max_new_tokens: int | None,
    training: tuple[Path, ...],
    device: str,
    dtype: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure models on the descriptions of CATALOG, which they should not have seen, and on texts of their own.

    Prints a table for each category, the models side by side: the loss per token and per byte; how many of their texts
    stop by themselves, end on a sentence, name the product and what is given of it, or name a colour, material or
    number that is not the row's; how varied and how long they are; tokens per second.

    \b
    Examples:
      enrich evaluate home-mini ./my-model held-out.parquet
      enrich evaluate ./my-model held-out.parquet --training catalog.parquet --texts 200
    """
    _set_up_logging(quiet=True, verbose=False)
    from enrich import evaluate as evaluation

    found = evaluation.evaluate(
        models,
        catalog,
        num_texts=num_texts,
        max_new_tokens=max_new_tokens,
        training=training,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    if as_json:
        for one in found:
            click.echo(json.dumps(dataclasses.asdict(one)))
    else:
        click.echo(evaluation.as_table(found))


@main.command()
@_catalog_argument
@_config_file_option
@click.option("--rules", help="Limits and severities, such as max_words=80,shouting=flag (see `enrich rules`).")
@click.option("--strict-facts", is_flag=True, help="Count what a row merely does not state as failing too.")
@click.option("--categories", type=click.Path(path_type=Path), help="Directory of category files.")
@click.option("--id-column", help="Column with the product's id ('' for none).")
@click.option("--title-column", help="Column with the product's title.")
@click.option("--category-column", help="Column with the category or its path ('' for none).")
@click.option("--description-column", help="Column with the descriptions.")
@click.option("--attributes", help="Columns that say something of the product, comma-separated.")
@click.option("--limit", type=click.IntRange(1), help="Read only the first N rows.")
@click.option("-n", "--examples", type=click.IntRange(0), default=3, show_default=True, help="Texts to show of a rule.")
@click.option("--max-failing", metavar="X", help="Exit with 3 if more texts, or a larger share (2%), fail.")
@_json_option
def check(catalog: str, config_file: Path | None, examples: int, max_failing: str | None, as_json: bool,
          **flags: Any) -> None:  # fmt: skip
    """Hold the descriptions that CATALOG has against the rules, whoever wrote them. No model is needed.

    \b
    Examples:
      enrich check catalog.parquet
      enrich check catalog.enriched.parquet --strict-facts --max-failing 2% --json
    """
    # A run's own check of its options; the share is told as --max-quarantined is.
    flags["strict_facts"] = flags["strict_facts"] or None
    config = build_config(catalog, config_file, {**flags, "max_quarantined": max_failing})
    _set_up_logging(quiet=True, verbose=False)
    from enrich import checking
    from enrich.catalog import RoleOptions

    roles = RoleOptions(
        config.id_column, config.title_column, config.category_column, config.description_column, config.attributes
    )
    report = checking.check(
        Path(catalog),
        roles,
        categories=Path(config.categories) if config.categories else None,
        settings=config.rule_settings(),
        strict_facts=config.strict_facts,
        limit=config.limit,
        examples=examples,
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
    else:
        click.echo(
            f"{report.file}: {report.texts:,} texts, {report.failing:,} fail ({report.failing_share:.1%}),"
            f" {report.flagged:,} more are flagged; {report.seconds:.1f} s"
        )
        for broken in report.rules:
            click.echo(f"{broken.texts:>8,}  {broken.share:>6.1%}  {broken.severity:<10}  {broken.rule}")
            for example in broken.examples:
                click.echo(f"{'':28}row {example.row:,}, {_tame(f'{example.title[:50]}: {example.reason}')}")
    if max_failing is not None and report.failing > config.most_quarantined(report.texts):
        raise TooManyQuarantined(f"{report.failing:,} of {report.texts:,} texts fail, more than {max_failing}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line in place of the table.")
def rules(as_json: bool) -> None:
    """List the rules that texts are held to, with their severities, and the limits that can be set.

    \b
    Set them for a run or a category:
      enrich run catalog.parquet --rules max_words=80,shouting=flag
      [rules] in enrich.toml or in a category's file: max_words = 80
    """
    from dataclasses import fields

    from enrich.quality import RULES
    from enrich.quality.limits import Limits

    if as_json:
        for rule in RULES.values():
            entry = {"rule": rule.name, "severity": str(rule.severity), "available": rule.available}
            click.echo(json.dumps(entry | {"finds": rule.about}))
        return
    for rule in RULES.values():
        needs = "" if rule.available else " (needs the extra `quality`)"
        click.echo(f"{rule.name:<22}  {rule.severity!s:<10}  {rule.about}{needs}")
    limits = [f"{one.name}={one.default}" for one in fields(Limits) if one.type == "int"]
    click.echo(f"\nlimits: {', '.join(limits)}, language=, banned_words=one|another")


@main.command()
@click.option("--categories", "directory", type=click.Path(path_type=Path), help="Directory of category files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line in place of the table.")
def categories(directory: Path | None, as_json: bool) -> None:
    """List the categories, the built-in ones and those of a directory, and check their files.

    A category is one TOML file: name, aliases, attributes; template, tone, claims and [rules] if it has its own.

    \b
    Example:
      enrich categories --categories my-categories
    """
    from enrich.category_report import check_categories

    entries, problems = check_categories(directory)
    if problems:
        for problem in problems[1:]:
            click.echo(f"enrich: {problem}", err=True)
        raise ConfigError(problems[0])
    for entry in entries:
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(entry), ensure_ascii=False))
        else:
            own = "" if entry.built_in else f"  {entry.path}"
            click.echo(
                f"{entry.name:<12}  {len(entry.aliases):>3} aliases  {len(entry.attributes):>3} attributes"
                f"  {entry.claims:>3} claims  {entry.words[0]}-{entry.words[1]} words{own}"
            )


class _PlainLines(logging.Formatter):
    """One line for each message, whatever the names in it are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _tame(record.message)
        return super().formatMessage(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": self.formatTime(record, _TIME), "level": record.levelname.lower(), "message": ""}
        entry["message"] = record.getMessage()
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


_TIME = "%Y-%m-%dT%H:%M:%S%z"


def _set_up_logging(quiet: bool, verbose: bool, form: str = "auto") -> None:
    handler = logging.StreamHandler()
    bare = form == "auto" and sys.stderr.isatty()
    plain = _PlainLines("%(message)s" if bare else "%(asctime)s %(levelname)s %(message)s", _TIME)
    handler.setFormatter(_JsonLines() if form == "json" else plain)
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler])
    for name in ("transformers", "filelock", "httpx", "huggingface_hub", "urllib3", "torch", "asyncio", "matplotlib"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)


_SAME_SIGNAL_SECONDS = 1.0


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the first SIGINT or SIGTERM for the run to see; let a later one end the process at once.

    One that follows within a second is the same one: `timeout` and terminals signal a process and its group.
    """
    stopped_by = [0]
    stopped_at = 0.0

    def note(number: int, _frame: object) -> None:
        nonlocal stopped_at
        if not stopped_by[0]:
            stopped_by[0], stopped_at = number, time.monotonic()
            log.warning("%s: finishing; once more to stop at once", signal.Signals(number).name)
        elif time.monotonic() - stopped_at >= _SAME_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped_by
    finally:
        for number, handler in previous.items():
            # A process that was stopped is about to end, and the same signal must not replace its exit code. Python
            # takes handlers of its own away before it ends, so only to ignore helps.
            signal.signal(number, signal.SIG_IGN if stopped_by[0] else handler)
