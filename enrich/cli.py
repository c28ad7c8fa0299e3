"""The command line: options in, one function called, its result printed, an exit code out."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import enrich
from enrich.config import RunConfig, build_config
from enrich.errors import ConfigError, EnrichError

log = logging.getLogger("enrich")

_EXIT_CODES = """
\b
Exit codes:
  0          published
  1          unexpected error
  2          usage, configuration, catalog or model: do not retry
  4          rows in and rows out differ; output withheld
  75         locked by another run or out of memory: the same command later goes on
  130, 143   stopped by SIGINT, SIGTERM: committed, the same command goes on
"""


class _Commands(click.Group):
    """Turns the errors of the library into one line and their exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EnrichError as error:
            click.echo(f"enrich: {error}", err=True)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"enrich: {where}{error.strerror or error}", err=True)
            ctx.exit(75 if error.errno in _TEMPORARY else 2 if error.errno in _PERMANENT else 1)
        except Exception:
            traceback.print_exc()
            click.echo(
                "enrich: that was unexpected; committed rows are safe, the same command goes on from them", err=True
            )
            ctx.exit(1)


_TEMPORARY = {errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
_PERMANENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


@click.group(cls=_Commands, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(enrich.__version__, prog_name="enrich")
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
        settings: dict[str, Any] = {"default": None, "help": help_text}
        if kind == "bool":
            flag += f"/--no-{option.name}" if option.name == "overwrite" else ""
            settings["is_flag"] = True
        elif option.metadata["choices"]:
            settings["type"] = click.Choice(option.metadata["choices"])
        else:
            settings["type"] = {"int": int, "float": float}.get(kind, str)
            settings["metavar"] = {"int": "N", "float": "X"}.get(kind, "TEXT")
        command = click.option(*option.metadata["flags"], flag, option.name, **settings)(command)
    return command


@main.command()
@click.argument("catalog")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with any of these options; flags win."
)
@_config_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as one JSON object, the last line of standard output."
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print more of what is done.")
def run(catalog: str, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **flags: Any) -> None:
    """Write a description for every product of CATALOG that has none.

    CATALOG is a CSV, JSON Lines (each also .gz or .zst) or Parquet file. The output has all its columns, `description`
    filled where it was empty, and a column `generation` that says how. A run that was broken off goes on where it was.

    \b
    Examples:
      enrich run catalog.parquet
      enrich run export.csv -o enriched.parquet --title-column Name --attributes Color,Material
      enrich run catalog.parquet --model ./my-model --temperature 0.6
    """
    config = build_config(catalog, config_file, flags)
    _set_up_logging(quiet, verbose)
    with _signals() as stopped_by:
        from enrich import job

        summary = job.run(config, show_bar=sys.stderr.isatty() and not quiet, should_stop=lambda: stopped_by[0])
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
    elif not quiet:
        resumed = f" ({summary.resumed_rows:,} of them by an earlier run)" if summary.resumed_rows else ""
        click.echo(
            f"{summary.rows:,} rows: {summary.generated:,} generated{resumed}, {summary.kept:,} kept,"
            f" {summary.quarantined:,} quarantined; {summary.seconds:.1f} s, {summary.tokens_per_second:,.0f} tokens/s"
        )
        click.echo(f"written to {summary.output}")


@main.command()
@click.argument("output", type=click.Path(exists=True, dir_okay=False))
@click.option("-n", "--rows", type=click.IntRange(1), default=3, show_default=True, help="How many rows.")
def show(output: str, rows: int) -> None:
    """Print some of the texts that a run generated.

    \b
    Example:
      enrich show catalog.enriched.parquet -n 10
    """
    from enrich.output import read_texts

    for title, text in read_texts(Path(output), rows):
        click.secho(title, bold=True)
        click.echo(f"  {text}\n")


@main.command()
@click.argument("catalogs", nargs=-1, required=True, metavar="CATALOG...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Model directory to write.")
@click.option("--base", metavar="MODEL", help="Model to go on from.")
@click.option(
    "--from-scratch", "size", metavar="SIZE", help="Make a GPT-2 of this size instead: mini (6 M parameters)."
)
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps.  [default: 4800]")
@click.option("--batch-size", type=click.IntRange(1), help="Texts in a step.  [default: 16]")
@click.option("--learning-rate", type=float, help="Peak of the schedule.  [default: 0.0012]")
@click.option("--max-tokens", type=click.IntRange(8), help="Leave out longer prompt and text.  [default: 192]")
@click.option("--held-out", type=float, help="Share of the products to measure on.  [default: 0.1]")
@click.option("--evaluate-every", type=click.IntRange(1), help="Steps between checkpoints.  [default: 500]")
@click.option("--seed", type=int, help="Seed of weights and order.  [default: 7]")
def finetune(catalogs: tuple[Path, ...], output: Path, base: str | None, size: str | None, **recipe: Any) -> None:
    """Train a model on the descriptions that catalogs already have.

    Prompts are rendered as `enrich run` renders them. A training that was killed goes on from its last checkpoint in
    OUTPUT.training. Needs the extra `train`: pip install 'enrich[train]'

    \b
    Examples:
      enrich finetune catalog.parquet --base gpt2 --learning-rate 5e-5 -o my-model
      enrich finetune catalog.parquet --from-scratch mini -o my-model
    """
    if (base is None) == (size is None):
        raise ConfigError("name either --base MODEL or --from-scratch SIZE")
    _set_up_logging(quiet=False, verbose=False)
    from enrich import finetune as training

    metrics = training.finetune(catalogs, output, base=base, size=size, settings=recipe)
    click.echo(json.dumps(metrics))


def _set_up_logging(quiet: bool, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO,
        format="%(message)s" if sys.stderr.isatty() else "%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    for name in ("transformers", "filelock", "httpx", "huggingface_hub", "urllib3", "torch", "asyncio"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the first SIGINT or SIGTERM for the run to see; let a second one end the process at once."""
    stopped_by = [0]

    def note(number: int, _frame: object) -> None:
        stopped_by[0] = number
        signal.signal(number, signal.SIG_DFL)
        log.warning("%s: finishing; once more to stop at once", signal.Signals(number).name)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped_by
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
