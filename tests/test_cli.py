from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from importlib import metadata
from pathlib import Path

import click
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import enrich

from enrich.cli import main
from enrich.config import RunConfig

ROOT = Path(__file__).parent.parent
HOME = ROOT / "sample_catalogs" / "home.parquet"


@pytest.mark.slow
def test_help_lists_commands_and_exit_codes_and_each_command_has_an_example() -> None:
    done = enrich("--help")
    assert done.returncode == 0
    for word in ("run", "show", "Exit codes", "75"):
        assert word in done.stdout
    for name, command in main.commands.items():
        text = command.get_help(click.Context(command, info_name=f"enrich {name}"))
        assert re.search(rf"Examples?:\n +enrich {name}( |$)", text, re.M) or name == "rules", name


def test_the_version_comes_with_those_of_the_libraries_and_the_device() -> None:
    lines = enrich("--version").stdout.splitlines()
    assert lines[0] == f"enrich {metadata.version('enrich')}"
    assert {line.split()[0] for line in lines} == {
        "enrich",
        "python",
        "polars",
        "pyarrow",
        "torch",
        "transformers",
        "device",
    }
    assert lines[-1].startswith(("device cpu, ", "device cuda, ", "device mps, "))


def test_every_option_of_a_run_is_a_flag() -> None:
    text = enrich("run", "--help").stdout
    for option in dataclasses.fields(RunConfig):
        if option.name != "catalog":
            assert "--" + option.name.replace("_", "-") in text


@pytest.mark.parametrize("module", ["torch", "polars", "transformers", "pyarrow"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        "import sys\nfrom enrich.cli import main\n"
        "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
        f"assert {module!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_run_prints_the_mapping_and_one_json_line_last(tmp_path: Path, tiny_gpt2: Path) -> None:
    done = enrich(
        "run",
        HOME,
        "-o",
        tmp_path / "out.parquet",
        "--model",
        tiny_gpt2,
        "--limit",
        20,
        "--json",
        "--max-new-tokens",
        8,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert list(summary) == [
        "rows", "generated", "reused", "kept", "quarantined", "prompt_tokens", "generated_tokens", "seconds",
        "tokens_per_second", "padding_waste", "resumed_rows", "output", "run_id", "edited",
        "skipped", "pending", "retried", "unchanged", "drift",
    ]  # fmt: skip
    assert summary["rows"] == 20
    assert "title=title" in done.stderr
    assert "\r" not in done.stderr  # no bar in a log
    assert "Traceback" not in done.stderr


def test_the_default_output_lies_beside_the_catalog(tmp_path: Path, tiny_gpt2: Path) -> None:
    (tmp_path / "shop.csv").write_text("title\nOak table\n")
    done = enrich("run", "shop.csv", "--model", tiny_gpt2, "--max-new-tokens", 8, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "written to shop.enriched.parquet" in done.stdout
    assert len(pl.read_parquet(tmp_path / "shop.enriched.parquet")) == 1


def test_quiet_prints_nothing(tmp_path: Path, tiny_gpt2: Path) -> None:
    done = enrich(
        "run", HOME, "-o", tmp_path / "o.parquet", "--model", tiny_gpt2, "--limit", 3, "--max-new-tokens", 4, "-q"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_bar_is_drawn_on_a_terminal(tmp_path: Path, tiny_gpt2: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = ["run", HOME, "-o", tmp_path / "o.parquet", "--model", tiny_gpt2, "--limit", 20, "--max-new-tokens", 8]
    done = subprocess.Popen(
        [sys.executable, "-m", "enrich", *map(str, command)], stderr=slave, stdout=subprocess.DEVNULL
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # the terminal is closed with the process
        pass
    assert done.wait() == 0
    assert b"tok/s" in shown
    assert b"\r" in shown


def test_options_come_from_toml_and_flags_win(tmp_path: Path, tiny_gpt2: Path) -> None:
    config = tmp_path / "enrich.toml"
    config.write_text(f'model = "{tiny_gpt2}"\nmax-new-tokens = 5\nlimit = 7\n')
    done = enrich("run", HOME, "-o", tmp_path / "o.parquet", "--config", config, "--limit", 4, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 4
    assert max(pl.read_parquet(tmp_path / "o.parquet")["generation"].struct.field("generated_tokens")) <= 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "missing.csv: no such file"),
        ([HOME, "--temperature", "-1"], "temperature"),
        ([HOME, "--model", "./nowhere"], "no such directory"),
        ([HOME, "--config", "missing.toml"], "missing.toml"),
        ([HOME, "--title-column", "titel"], "did you mean 'title'?"),
        ([HOME, "--device", "cuda"], "--device auto"),
        ([HOME, "--output", "x.csv"], ".parquet"),
    ],
)
def test_a_user_s_error_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[object], message: str) -> None:
    done = enrich("run", *arguments, "-q", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_unknown_flag_is_exit_code_2() -> None:
    assert enrich("run", HOME, "--temprature", "1").returncode == 2


def test_show_prints_titles_and_texts(tmp_path: Path, tiny_gpt2: Path) -> None:
    out = tmp_path / "out.parquet"
    enrich("run", HOME, "-o", out, "--model", tiny_gpt2, "--limit", 20, "--max-new-tokens", 8)
    done = enrich("show", out, "-n", 2)
    titles = pl.read_parquet(out)["title"].to_list()
    assert done.returncode == 0
    assert sum(line in titles for line in done.stdout.splitlines()) == 2
    assert enrich("show", HOME).returncode == 2


def test_a_read_only_directory_is_an_error_without_a_traceback(tmp_path: Path, tiny_gpt2: Path) -> None:
    done = enrich("run", HOME, "-o", "/proc/out.parquet", "--model", tiny_gpt2, "--limit", 3)
    assert done.returncode == 2
    assert "/proc" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_second_run_exits_75_while_the_first_one_holds_the_output(tmp_path: Path, tiny_gpt2: Path) -> None:
    options = [
        "run",
        HOME,
        "-o",
        tmp_path / "o.parquet",
        "--model",
        tiny_gpt2,
        "--max-new-tokens",
        100,
        "--batch-size",
        1,
    ]
    first = subprocess.Popen([sys.executable, "-m", "enrich", *map(str, options)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "o.parquet.checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        done = enrich(*options)
        assert done.returncode == 75
        assert "is being written by process" in done.stderr
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("run", "enrich run: Missing argument 'CATALOG'; see `enrich run --help`"),
        ("run c.csv --zzz", "enrich run: No such option '--zzz'; see `enrich run --help`"),
        ("run c.csv --limit 0", "enrich: limit = 0: must be at least 1"),
        ("run c.csv --channels amzon", "enrich: channels = ('amzon',): 'amzon' is not one of amazon, google, shopify"),
        ("run c.csv --template none.j2", "enrich: template none.j2: can't be read: No such file or directory"),
        ("check c.csv --max-failing lots", "enrich: max_failing = 'lots': must be like 25 or 2%"),
        ("rum c.csv", "enrich: No such command 'rum'. Did you mean 'run'?; see `enrich --help`"),
        ("show c.csv", "enrich: c.csv: not written by `enrich run`; name the Parquet file that it has written"),
        (
            "show c.parquet",
            "enrich: c.parquet: holds what a run has changed (--changes); name the enriched file itself",
        ),
        ("export c.csv x.csv", "enrich: c.csv: not written by `enrich run`; name the Parquet file that it has written"),
    ],
)
def test_a_mistake_is_told_in_one_line(command: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("title\nOak table\n")
    pq.write_table(pa.table({"change": ["added"], "title": ["Oak table"]}), tmp_path / "c.parquet")
    done = enrich(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


def test_nothing_is_told_of_a_reader_who_has_seen_enough(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("title\nOak table\n")
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "enrich", "config", "c.csv"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_bare_command_shows_its_help() -> None:
    done = enrich()
    assert done.returncode == 2
    assert "Commands:" in done.stderr + done.stdout
