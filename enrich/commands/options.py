"""Options that several commands have, those of a run made from its configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from enrich.config import RunConfig


class Place(click.Path):
    """A file on this machine, or a URL in remote storage, as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take a URL as it is, anything else as a path."""
        from enrich.storage.url import Url, is_remote

        if isinstance(value, str) and is_remote(value):
            Url.parse(value)
            return value
        return super().convert(value, param, ctx)


def config_options(command: Callable[..., None]) -> Callable[..., None]:
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


catalog_argument = click.argument("catalog", envvar="ENRICH_CATALOG")
config_file_option = click.option(
    "--config",
    "config_file",
    envvar="ENRICH_CONFIG",
    type=click.Path(path_type=Path),
    help="TOML file with any of these options; flags win.  [default: enrich.toml beside CATALOG]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object, the last line of standard output."
)


def log_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what tells how much is logged and in which form."""
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
