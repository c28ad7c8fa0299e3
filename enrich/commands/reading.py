"""The commands that read an output: `show`, `export`, `report` and `compare`."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path

import click

from enrich.commands.options import Place, json_option
from enrich.commands.printing import set_up_logging, tame
from enrich.errors import ConfigError


@click.command()
@click.argument("output", envvar="ENRICH_OUTPUT", type=Place(path_type=Path))
@click.option(
    "-o",
    "--page",
    type=Place(path_type=Path),
    help="HTML file to write.  [default: OUTPUT's stem + .report.html; none with --json]",
)
@click.option(
    "--before",
    type=Place(path_type=Path),
    help="Output of the night before: its texts and lengths stand beside tonight's.",
)
@click.option("--sample", type=click.IntRange(0, 5000), default=300, show_default=True, help="Texts to show.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other texts.")
@json_option
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
    set_up_logging(quiet=True, verbose=False)
    from enrich.report import page as pages
    from enrich.report import report_path
    from enrich.report.gather import gather
    from enrich.report.opening import open_output
    from enrich.staging import fetched, lent_to_send

    _check_page(page, as_json)
    with ExitStack() as stack:
        earlier = open_output(stack.enter_context(fetched(before))) if before else None
        local = stack.enter_context(fetched(output, with_quarantine=True))
        found = gather(open_output(local), before=earlier, sample=sample, seed=seed)
        found = dataclasses.replace(found, output=str(output))
        path = page or (None if as_json else report_path(output))
        if path is not None:
            pages.write(pages.render(found), stack.enter_context(lent_to_send(path)))
    click.echo(json.dumps(dataclasses.asdict(found)) if as_json else f"{found.sentence}\nwritten to {path}")


@click.command()
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
@json_option
def compare(first: Path, second: Path, page: Path | None, sample: int, seed: int, as_json: bool) -> None:
    """Write a page with two outputs of one catalog side by side, such as of two models or settings.

    It has both texts of each product of a sample, and what differs in counts, lengths, flags, speed and settings. Needs
    the extra `report`, as `enrich report` does; --json does not.

    \b
    Example:
      enrich compare home-mini.enriched.parquet gpt2-home.enriched.parquet -o models.html
    """
    set_up_logging(quiet=True, verbose=False)
    from enrich.report import page as pages
    from enrich.report.compare import compare as compared
    from enrich.report.opening import open_output

    _check_page(page, as_json)
    found = compared(open_output(first), open_output(second), sample=sample, seed=seed)
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


@click.command()
@click.argument("output", type=Place(exists=True, dir_okay=False))
@click.option("-n", "--rows", type=click.IntRange(1), default=3, show_default=True, help="How many rows.")
def show(output: str, rows: int) -> None:
    """Print some of the texts that a model wrote, with their titles.

    \b
    Example:
      enrich show catalog.enriched.parquet -n 10
    """
    from enrich.output import read_texts
    from enrich.staging import fetched

    with fetched(output) as path:
        texts = read_texts(path, rows)
    for title, text in texts:
        click.secho(tame(str(title)), bold=True)
        click.echo(f"  {tame(text)}\n")
    if not texts:
        click.echo(f"{output}: a model wrote none of its texts; `enrich status` and `enrich report` say what is in it")


@click.command()
@click.argument("output", type=Place(exists=True, dir_okay=False, path_type=Path))
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
