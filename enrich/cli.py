"""The command line: options in, one function called, its result printed, an exit code out.

The commands are in `enrich.commands`; what they work with is imported when one is called.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from enrich.commands import foreseeing, judging, models, reading, running
from enrich.commands.ending import exit_code_of
from enrich.commands.printing import tame
from enrich.errors import EnrichError

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


class _Misused(click.UsageError):
    """A command line that can't be read, told in one line."""

    def show(self, file: IO[Any] | None = None) -> None:
        command = self.ctx.command_path if self.ctx else "enrich"
        told = tame(self.format_message()).rstrip(".")
        click.echo(f"{command}: {told}; see `{command} --help`", file=file or sys.stderr)


class _Commands(click.Group):
    """Turns the errors of the library into one line and their exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _in_one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _in_one_line():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except EnrichError as error:
            click.echo(f"enrich: {tame(str(error))}", err=True)
            ctx.exit(exit_code_of(error))
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                # Silently, as other commands end before `head`; and Python is not to try once more at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(128 + signal.SIGPIPE)
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"enrich: {tame(f'{where}{error.strerror or error}')}", err=True)
            ctx.exit(exit_code_of(error))
        except MemoryError as error:
            what = "out of memory; committed rows are safe, the same command goes on from them"
            click.echo(f"enrich: {what}", err=True)
            ctx.exit(exit_code_of(error))
        except Exception as error:
            traceback.print_exc()
            click.echo(
                "enrich: that was unexpected; committed rows are safe, the same command goes on from them", err=True
            )
            ctx.exit(exit_code_of(error))


def _nobody_reads() -> bool:
    """Say whether what is printed goes into a pipe whose other end was closed."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file, such as a test's
        return False


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Let errors of usage be told in one line. A command without anything is no error: it shows its help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise _Misused(error.format_message(), error.ctx) from error


def _show_versions(ctx: click.Context) -> None:
    from enrich.engine.loading import pick_device, pick_dtype
    from enrich.versions import versions

    device = pick_device("auto")
    for name, version in versions().items():
        click.echo(f"{name} {version}")
    click.echo(f"device {device}, {pick_dtype('auto', device)}")
    ctx.exit()


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


for command in (
    running.run, running.merge, foreseeing.plan, foreseeing.status, foreseeing.config, reading.show, reading.export,
    reading.report, reading.compare, judging.check, judging.rules, judging.categories, models.models, models.finetune,
    models.evaluate, models.demo,
):  # fmt: skip
    main.add_command(command)
