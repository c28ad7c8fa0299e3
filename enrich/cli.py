"""The command line: options in, one function called, its result printed, an exit code out.

The commands are in `enrich.commands`; what they work with is imported when one is called.
"""

from __future__ import annotations

import traceback
from typing import Any

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


class _Commands(click.Group):
    """Turns the errors of the library into one line and their exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except EnrichError as error:
            click.echo(f"enrich: {tame(str(error))}", err=True)
            ctx.exit(exit_code_of(error))
        except OSError as error:
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
