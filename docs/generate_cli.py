"""Write docs/cli.md from the commands' own help: python docs/generate_cli.py."""

from __future__ import annotations

from pathlib import Path

import click

from enrich.cli import main

TARGET = Path(__file__).with_name("cli.md")


def reference() -> str:
    """Return the help of `enrich` and of each command as Markdown."""
    context = click.Context(
        main, info_name="enrich", terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    parts = ["# Command line\n\nMade by `python docs/generate_cli.py` from `--help`.\n"]
    parts.append(f"```\n{main.get_help(context).rstrip()}\n```\n")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100)
        parts.append(f"## enrich {name}\n\n```\n{command.get_help(inner).rstrip()}\n```\n")
    return "\n".join(line.rstrip() for line in "\n".join(parts).splitlines()) + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
