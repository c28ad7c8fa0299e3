"""The commands about texts and their rules: `check`, `rules` and `categories`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from enrich.commands.options import catalog_argument, config_file_option, json_option
from enrich.commands.printing import set_up_logging, tame
from enrich.config import build_config
from enrich.errors import ConfigError, TooManyQuarantined


@click.command()
@catalog_argument
@config_file_option
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
@json_option
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
    try:
        config = build_config(catalog, config_file, {**flags, "max_quarantined": max_failing})
    except ConfigError as error:
        raise ConfigError(str(error).replace("max_quarantined", "max_failing")) from error
    set_up_logging(quiet=True, verbose=False)
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
                click.echo(f"{'':28}row {example.row:,}, {tame(f'{example.title[:50]}: {example.reason}')}")
    if max_failing is not None and report.failing > config.most_quarantined(report.texts):
        raise TooManyQuarantined(f"{report.failing:,} of {report.texts:,} texts fail, more than {max_failing}")


@click.command()
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


@click.command()
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
