"""Names and places: odd file names, links, pipes, directories, and what is written where."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from commands import enrich as enrich_command

from enrich import RunConfig, job
from enrich.catalog.formats import open_source
from enrich.cli import main
from enrich.config import build_config
from enrich.errors import CatalogError, ConfigError
from enrich.output import read_texts
from enrich.status import read_status

TABLE = pl.DataFrame({"id": ["1", "2"], "title": ["Lamp", "Vase"]})


def command(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command; it must not print a traceback, whatever it is given, nor anything that moves a cursor."""
    done = enrich_command(*arguments, cwd=cwd, **environment)
    assert "Traceback" not in done.stderr
    assert_tame(done.stdout + done.stderr)
    return done


def assert_tame(shown: str) -> None:
    """See that nothing of it ends a line or moves a cursor that should not."""
    assert not [c for c in shown.replace("\n", "") if ord(c) < 32 or c in "\x7f\x9b\u202e\u2028"], repr(shown)


ODD_NAMES = [
    "a b",
    "[v2]",
    "*",
    "?",
    "100%20",
    "a#b?c=d",
    "ü日本",
    "year=2024",
    "-o",
    "'\"",
    "{x}",
    "$HOME",
    "a\nb",
    "😀",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_files_and_directories_are_names(enrich, tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    catalog, output = directory / f"{name}.csv", directory / f"{name}.parquet"
    TABLE.write_csv(catalog.open("wb"))
    changes = directory / f"{name}.changes.parquet"
    for _ in range(2):
        summary = enrich(catalog, f"{name}/{name}.parquet", changes=str(changes), max_new_tokens=2)
        assert pq.ParquetFile(output.open("rb")).read()["title"].to_pylist() == ["Lamp", "Vase"]
    assert summary.unchanged
    TABLE.with_columns(title=pl.lit("Rug")).write_csv(catalog.open("wb"))
    assert enrich(catalog, f"{name}/{name}.parquet", changes=str(changes), max_new_tokens=2).generated == 2
    assert len(read_texts(output, 2)) == 2
    assert pq.ParquetFile(changes.open("rb")).read()["change"].to_pylist() == ["changed", "changed"]
    assert read_status(output).state == "published"


def test_an_output_that_is_a_link_is_published_through_it(enrich, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "of-tonight", tmp_path / "out.parquet"
    link.symlink_to(Path("data") / "of-tonight")
    summary = enrich(TABLE)  # there is nothing behind it yet
    assert summary.output == str(target)
    assert link.is_symlink()
    assert pq.read_table(target).num_rows == pq.read_table(link).num_rows == 2
    before = target.stat().st_ino
    assert enrich(pl.concat([TABLE, TABLE])).reused == 2
    assert link.is_symlink() and target.stat().st_ino != before  # replaced in one step, as any output
    assert pq.read_table(link).num_rows == 4
    assert read_status(link).published_rows == 4
    assert {path.name for path in tmp_path.iterdir()} == {"catalog.parquet", "data", "out.parquet"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"of-tonight", ".of-tonight.lock"}


def test_shards_of_a_linked_output_are_merged_behind_it(enrich, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "out.parquet"
    link.symlink_to(tmp_path / "data" / "real.parquet")
    for shard in ("1/2", "2/2"):
        enrich(TABLE, shard=shard)
    assert job.merge(link).rows == 2
    assert link.is_symlink() and pq.read_table(link).num_rows == 2


def test_links_that_lead_nowhere_or_to_the_catalog_are_refused(tmp_path: Path) -> None:
    catalog, link = tmp_path / "catalog.parquet", tmp_path / "out.parquet"
    TABLE.write_parquet(catalog)
    link.symlink_to(link)
    with pytest.raises(ConfigError, match="leads nowhere"):
        RunConfig(str(catalog), str(link))
    with pytest.raises(CatalogError, match=r"out\.parquet"):
        open_source(link)
    link.unlink()
    link.symlink_to(catalog)
    with pytest.raises(ConfigError, match="must not be the catalog itself"):
        RunConfig(str(catalog), str(link))
    (tmp_path / "catalog.enriched.parquet").symlink_to(catalog)
    with pytest.raises(ConfigError, match="must not be the catalog itself"):
        RunConfig(str(catalog))


def test_what_a_run_writes_is_never_its_catalog(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    for name, path in (
        ("changes", catalog),
        ("metrics_file", catalog),
        ("changes", tmp_path / "." / "catalog.parquet"),
    ):
        with pytest.raises(ConfigError, match=f"{name} = .*must not be the catalog itself"):
            RunConfig(str(catalog), **{name: str(path)})
    with pytest.raises(ConfigError, match=r"changes = .*must not be the output"):
        RunConfig(str(catalog), str(tmp_path / "o.parquet"), changes=str(tmp_path / "o.parquet"))


def test_an_output_that_is_a_directory_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        RunConfig(str(tmp_path / "catalog.parquet"), str(tmp_path / "out.parquet"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "catalog.csv")
    done = command("run", tmp_path / "catalog.csv", "--model", tmp_path)
    assert done.returncode == 2
    assert "is no regular file" in done.stderr


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    Path(os.fsdecode(name)).write_text("title\nLamp\n")
    with pytest.raises(ConfigError, match="must be UTF-8"):
        RunConfig(os.fsdecode(name))
    done = command("run", os.fsdecode(name))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "must be UTF-8" in done.stderr


def test_a_name_too_long_is_refused(tmp_path: Path, tiny_gpt2: Path) -> None:
    catalog = tmp_path / ("x" * 245 + ".csv")
    catalog.write_text("title\nLamp\n")  # the default output's name has no room any more
    done = command("run", catalog, "--model", tiny_gpt2)
    assert done.returncode == 2
    assert "File name too long" in done.stderr


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/proc/self/mem", "/dev/fd/0"])
def test_devices_are_refused(path: str) -> None:
    if Path(path).exists():
        with pytest.raises(CatalogError, match=path):
            open_source(Path(path))


@pytest.mark.slow
def test_names_of_columns_can_not_forge_a_log_or_move_a_cursor(tmp_path: Path, tiny_gpt2: Path) -> None:
    names = [
        "title",
        "color\n2026-01-01 ERROR all is lost",
        "\x1b[2Jsize",
        "\u202ematerial",
        "id\r\x07",
        "brand\u2028x",
    ]
    rows = {name: ["\x1b]0;gone\x07Lamp", "Va\nse\x9b31m"] for name in names}
    catalog, output = tmp_path / "catalog.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table(rows | {"description": [None, "\x1b[31m A vase, \x07 red. A vase."]}), catalog)
    options = ["--model", tiny_gpt2, "--max-new-tokens", 2, "--rules", "all=off", "-o", output]
    options += ["--attributes", ",".join(names[1:])]
    ran = command("run", catalog, *options)
    assert ran.returncode == 0, ran.stderr
    assert not [line for line in ran.stderr.splitlines() if "ERROR" in line and "attributes=" not in line]
    others = (
        (0, "plan", catalog, *options), (0, "show", output), (0, "check", catalog, "--rules", "min_words=50"),
        (2, "plan", catalog, "--title-column", "\x1b[2Jx"), (0, "status", output), (0, "config", catalog),
    )  # fmt: skip
    for code, *arguments in others:
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == code, done.output
        assert_tame(done.output)


@pytest.mark.slow
def test_lines_without_an_end_are_refused_and_not_read_to_it(tmp_path: Path) -> None:
    # 200 MB that take 1 MB or less: one line of JSON, one of spaces, one cell of CSV.
    head = {
        "bomb.jsonl.gz": b'{"title": "',
        "spaces.jsonl.gz": b" ",
        "bomb.csv.gz": b'title\n"',
        "bare.csv.gz": b"title\n",
    }
    for name, begin in head.items():
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
            file.write(begin)
            for _ in range(200):
                file.write((b" " if name.startswith("spaces") else b"x") * (1 << 20))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from enrich.catalog.formats import open_source\n"
        "from enrich.errors import CatalogError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    list(open_source(Path(sys.argv[1])).batches())\n"
        "except CatalogError as error:\n"
        "    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)\n"
    )
    for name in head:
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / name], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        grown, _, message = done.stdout.partition(" ")
        assert "longer than 16,777,216 bytes" in message, message
        assert int(grown) < 150


@pytest.mark.slow
def test_a_refused_csv_ends_its_process_in_peace(tmp_path: Path) -> None:
    # Arrow's reader is far ahead, in a thread of its own, when the second row is refused.
    with gzip.open(tmp_path / "x.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"id,title\n1,Lamp,red\n" + b"2,Vase\n" * 4_000_000)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from enrich.catalog.formats import open_source\n"
        "source = open_source(Path(sys.argv[1]))\n"
        "try:\n"
        "    next(source.batches())\n"
        "except Exception as error:\n"
        "    sys.exit('row 2: 3 fields' in str(error) and 2)\n"
    )
    # Several at once: on an idle machine Arrow is quick enough for this to pass by luck.
    command = [sys.executable, "-c", program, str(tmp_path / "x.csv.gz")]
    for _ in range(3):
        started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(8)]
        assert {(process.communicate()[1], process.returncode) for process in started} == {("", 2)}


def test_a_short_bomb_of_many_rows_is_streamed(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "rows.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"id,title\n")
        for _ in range(40):
            file.write(b"1,Lamp\n" * 50_000)
    held = pa.total_allocated_bytes()
    count = most = 0
    for batch in open_source(tmp_path / "rows.csv.gz").batches():
        count += len(batch)
        most = max(most, pa.total_allocated_bytes() - held)
    assert count == 2_000_000
    assert most < 200 << 20


def test_a_wide_parquet_is_read_in_few_rows_at_a_time(tmp_path: Path) -> None:
    rows, columns = 3_000, 2_000
    table = pa.table({"title": ["Lamp"] * rows, **{f"c{n}": ["some text or other"] * rows for n in range(columns)}})
    pq.write_table(table, tmp_path / "wide.parquet")
    del table
    lengths = [len(batch) for batch in open_source(tmp_path / "wide.parquet").batches()]
    assert sum(lengths) == rows
    assert max(lengths) * columns <= 4 << 20


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_modes_that_the_umask_gives(enrich, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        rows = pl.concat([TABLE, pl.DataFrame({"id": ["3"], "title": [""]})])
        enrich(rows, changes=str(tmp_path / "changes.parquet"), max_new_tokens=2)
    finally:
        os.umask(before)
    written = [path for path in tmp_path.rglob("*") if path.name not in ("catalog.parquet",)]
    assert {"out.parquet", "changes.parquet", "out.parquet.quarantine.jsonl"} <= {path.name for path in written}
    for path in written:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o777 if path.is_dir() else 0o666) & ~mask, (path.name, oct(mode))


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-aws", "AWS_SESSION_TOKEN": "s3cr3t-session", "HF_TOKEN": "hf_s3cr3t",
    "HUGGING_FACE_HUB_TOKEN": "hf_s3cr3t2", "OPENAI_API_KEY": "sk-s3cr3t", "DATABASE_URL": "postgres://u:s3cr3t@h/d",
    "GITHUB_TOKEN": "ghp_s3cr3t", "SOME_PASSWORD": "s3cr3t-word",
}  # fmt: skip


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written_or_logged(tmp_path: Path, tiny_gpt2: Path) -> None:
    catalog, output = tmp_path / "catalog.csv", tmp_path / "out.parquet"
    pl.concat([TABLE, pl.DataFrame({"id": ["3"], "title": [""]})]).write_csv(catalog)
    options = ["-o", output, "--model", tiny_gpt2, "--max-new-tokens", 4, "--rules", "all=off", "-v", "--changes",
               tmp_path / "changes.parquet", "--metrics-file", tmp_path / "enrich.prom"]  # fmt: skip
    environment = SECRETS | {"XDG_CACHE_HOME": str(tmp_path)}
    ran = command("run", catalog, *options, "--log-format", "json", "--report", tmp_path / "r.html", **environment)
    assert ran.returncode == 0, ran.stderr
    crashed = subprocess.run(
        [sys.executable, "-c", "from enrich import cli, job\njob.prepare = None\ncli.main()", "run", str(catalog)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert crashed.returncode == 1
    told = "".join(one.stdout + one.stderr for one in (ran, crashed))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            told += path.read_bytes().decode("latin-1")
    facts = pq.read_schema(output).metadata
    told += repr(facts) + json.dumps(pq.read_table(output).to_pylist(), default=str)
    assert "s3cr3t" not in told


def test_an_enrich_toml_beside_the_catalog_names_no_unknown_thing(tmp_path: Path) -> None:
    (tmp_path / "enrich.toml").write_text("trust_remote_code = true\n")
    with pytest.raises(ConfigError, match="unknown option 'trust_remote_code'"):
        build_config(str(tmp_path / "catalog.csv"), None, {})
