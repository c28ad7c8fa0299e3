"""Runs with everything on an S3 server: killed, gone on with elsewhere, published, unchanged, contended for, failing.

`make s3-test` sets the server up, in an environment of its own, and runs these tests; `make test` leaves them out.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from enrich.storage.remote import Changed, Patience, Remote
from enrich.storage.url import Url

pytestmark = pytest.mark.s3

ROOT = Path(__file__).parent.parent.parent
SERVER = Path(__file__).parent / "s3" / "server.py"
CATALOG = ROOT / "sample_catalogs" / "home.csv"
ROWS = 100
SECRET, TOKEN = "wJalrXUtnFEMI-a-secret-key", "a-session-token-of-this-night"
OUT, LOCK = "out/home.parquet", "out/home.parquet.lock"
CHECKPOINT = "out/home.parquet.checkpoint/"


class Server:
    """An S3 server in another process, and a bucket of it at a time."""

    def __init__(self) -> None:
        python = ROOT / os.environ.get("S3_VENV", ".s3-venv") / "bin" / "python"
        assert python.exists(), "there is no S3 server here: make s3-test"
        self.process = subprocess.Popen([python, SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "AKIAENRICHTEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }
        os.environ.update(self.environment)
        self.remote, self.bucket, self.buckets = Remote(), "", 0

    def tell(self, command: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def new_bucket(self) -> None:
        for command in ("fail 0", "refuse", "admit"):
            self.tell(command)
        self.buckets += 1
        self.bucket = f"night-{self.buckets}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{self.bucket}", method="PUT"), timeout=10)
        self.remote.upload(CATALOG, self.url("in/home.csv"))
        self.tell("writes")

    def url(self, key: str) -> Url:
        return Url("s3", self.bucket, key)

    def read(self, key: str) -> bytes | None:
        found = self.remote.read(self.url(key))
        return found[0] if found else None

    def keys(self, below: str) -> set[str]:
        return {entry.url.key.removeprefix(below + "/") for entry in self.remote.below(self.url(below))}

    def output(self) -> pl.DataFrame:
        content = self.read(OUT)
        assert content is not None
        return pl.read_parquet(content)

    def listed(self) -> list[str]:
        """The keys of the parts that the checkpoint lists."""
        lines = (self.read(CHECKPOINT + "manifest.jsonl") or b"").splitlines()
        run_id = json.loads(lines[0])["run_id"] if lines else ""
        return [f"{CHECKPOINT}{run_id}/{json.loads(line)['part']['name']}" for line in lines[1:]]

    def wait_for_parts(self, process: subprocess.Popen[str], number: int) -> None:
        deadline = time.monotonic() + 120
        while len(self.listed()) < number and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    before = dict(os.environ)
    server = Server()
    yield server
    server.process.terminate()
    server.process.wait(30)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def server(running_server: Server) -> Server:
    running_server.new_bucket()
    return running_server


class Command:
    """The real command, with a directory for its copies and none of its secrets in what it says."""

    def __init__(self, server: Server, model: Path, work: Path) -> None:
        self.server, self.model, self.work = server, model, work

    def start(self, *options: Any, catalog: str = "in/home.csv", verb: str = "run") -> subprocess.Popen[str]:
        self.work.mkdir(exist_ok=True)
        told = ["--limit", ROWS, "--batch-size", 16, "--max-new-tokens", 48, "--commit-rows", 8, "--dtype", "float32"]
        told += ["-o", self.server.url(OUT), "--model", self.model, "--work-dir", self.work, "-v"]
        arguments = map(str, [verb, self.server.url(catalog), *told, *options])
        return subprocess.Popen(
            [sys.executable, "-m", "enrich", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            env=os.environ | self.server.environment,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], exit_code: int = 0) -> str:
        out, log = process.communicate(timeout=300)
        assert process.returncode == exit_code, out + log
        assert SECRET not in out + log and TOKEN not in out + log
        assert "Traceback" not in log and "enrich-work-" not in out + log
        return out + log

    def run(self, *options: Any, exit_code: int = 0, **where: str) -> str:
        return self.finish(self.start(*options, **where), exit_code)


@pytest.fixture
def command(server: Server, tiny_gpt2: Path, tmp_path: Path) -> Command:
    return Command(server, tiny_gpt2, tmp_path / "work")


@pytest.fixture(scope="module")
def local(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The output of a run of the same catalog on this machine alone."""
    output = tmp_path_factory.mktemp("local") / "home.parquet"
    told = ["--limit", ROWS, "--batch-size", 16, "--max-new-tokens", 48, "--dtype", "float32", "--model", tiny_gpt2]
    subprocess.run([sys.executable, "-m", "enrich", "run", CATALOG, "-o", output, *map(str, told)], check=True)
    return pl.read_parquet(output)


def stable(frame: pl.DataFrame) -> pl.DataFrame:
    generation = frame["generation"].struct.unnest().drop("generated_at", "run_id")
    return frame.drop("generation").hstack(generation.rename({name: f"of {name}" for name in generation.columns}))


def is_left_clean(server: Server) -> bool:
    return not server.keys("out/home.parquet.checkpoint") and server.read(LOCK) is None


def test_killed_gone_on_with_elsewhere_published_unchanged_and_changed(
    server: Server, command: Command, local: pl.DataFrame, tmp_path: Path
) -> None:
    process = command.start()
    server.wait_for_parts(process, 3)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert server.read(OUT) is None
    status = subprocess.run(
        [sys.executable, "-m", "enrich", "status", "--json", str(server.url(OUT))], capture_output=True, text=True
    )
    assert json.loads(status.stdout)["state"] == "interrupted"
    committed = [pl.read_parquet(server.read(key) or b"") for key in server.listed()]
    assert len(committed) >= 3
    leftover = b"".join(path.read_bytes() for path in command.work.rglob("*") if path.is_file())
    assert leftover and SECRET.encode() not in leftover

    elsewhere = Command(server, command.model, tmp_path / "elsewhere")
    log = elsewhere.run("--report", server.url("out/home.html"))
    assert "rows found done in " + str(server.url(CHECKPOINT)).rstrip("/") in log
    found = server.output()
    assert stable(found).equals(stable(local))
    for row in pl.concat(committed).iter_rows(named=True):
        assert found[row["ordinal"]]["description"].item() == row["text"]
        assert found[row["ordinal"]]["generation"].item()["generated_at"] == row["generation"]["generated_at"]
    assert not list((tmp_path / "elsewhere").iterdir())
    assert is_left_clean(server)
    content = server.read(OUT) or b""
    facts = (pq.ParquetFile(io.BytesIO(content)).metadata.metadata or {})[b"enrich.run"]
    assert json.loads(facts)["config"]["catalog"] == str(server.url("in/home.csv"))
    assert json.loads(facts)["summary"]["output"] == str(server.url(OUT))
    page = server.read("out/home.html") or b""
    assert str(server.url(OUT)).encode() in page
    for told in (SECRET, TOKEN, "enrich-work-"):  # the directory that the copies were in
        assert told.encode() not in content + page

    # The killed run's copies go when the next one comes to the same directory.
    version = server.remote.version(server.url(OUT))
    server.tell("writes")
    log = command.run("--exit-code-unchanged", 99, exit_code=99)
    assert f"unchanged: {server.url(OUT)}" in log and "loading" not in log
    assert not list(command.work.iterdir())
    uploaded = {entry for entry in json.loads(server.tell("writes")) if entry.startswith("PUT")}
    assert uploaded == {f"PUT /{server.bucket}/{LOCK}"}
    assert server.remote.version(server.url(OUT)) == version

    catalog = pl.read_csv(CATALOG, infer_schema=False)
    title = pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("Oak bread board")).otherwise(pl.col("title"))
    server.remote.write(server.url("in/home.csv"), catalog.with_columns(title.alias("title")).write_csv().encode())
    log = command.run("--changes", server.url("out/changes.parquet"), "--json")
    summary = json.loads(log.splitlines()[0])
    assert (summary["generated"], summary["output"]) == (1, str(server.url(OUT)))
    assert pl.read_parquet(server.read("out/changes.parquet") or b"")["title"].to_list() == ["Oak bread board"]
    assert is_left_clean(server)


def test_a_server_that_fails_every_third_request(server: Server, command: Command, local: pl.DataFrame) -> None:
    server.tell("fail 3")
    command.run()
    assert int(server.tell("fail 0")) > 15
    assert stable(server.output()).equals(stable(local))
    assert is_left_clean(server)


@pytest.mark.slow
def test_one_run_at_a_time_and_none_over_what_another_has_published(server: Server, command: Command) -> None:
    server.remote.write(server.url(OUT), b"of last night")
    first = command.start()
    server.wait_for_parts(first, 1)
    log = command.run(exit_code=75)
    assert f"{server.url(OUT)} is being written by process {first.pid} on " in log
    server.remote.write(server.url(OUT), b"of someone without manners")
    log = command.finish(first, 75)
    assert f"{server.url(OUT)} was written by someone else meanwhile" in log
    assert server.read(OUT) == b"of someone without manners"
    assert server.listed()  # nothing is lost: the next run has only to publish
    assert "rows found done" in command.run()
    assert len(server.output()) == ROWS
    assert is_left_clean(server)


@pytest.mark.slow
def test_stopped_and_out_of_time(server: Server, command: Command, local: pl.DataFrame) -> None:
    process = command.start()
    server.wait_for_parts(process, 2)
    process.send_signal(signal.SIGTERM)
    assert "rows are done and committed" in command.finish(process, 143)
    done = len(server.listed())
    assert done >= 2 and server.read(OUT) is None and server.read(LOCK) is None
    log = command.run("--max-time", "1s", "--publish-partial", exit_code=75)
    assert f"published {server.url(OUT)} with" in log
    assert "pending" in server.output()["generation"].struct.field("status").to_list()
    assert len(server.listed()) >= done
    command.run()
    assert stable(server.output()).equals(stable(local))
    assert is_left_clean(server)


@pytest.mark.slow
def test_a_failed_upload_leaves_the_old_object(server: Server, command: Command) -> None:
    server.remote.write(server.url(OUT), b"of last night")
    server.tell(f"refuse {OUT}")
    log = command.run(exit_code=2)  # not even the lock
    assert f"enrich: {server.url(LOCK)}: access denied (AccessDenied)" in log
    server.tell("refuse")
    process = command.start()
    server.wait_for_parts(process, 1)
    server.tell("refuse parquet")
    log = command.finish(process, 2)
    assert "access denied (AccessDenied)" in log.splitlines()[-1]
    server.tell("refuse")
    assert server.read(OUT) == b"of last night"
    assert len(server.listed()) >= 1
    command.run()
    assert len(server.output()) == ROWS


def test_what_will_not_help_to_try_again_is_said_in_a_line(server: Server, command: Command) -> None:
    assert "there is no such object" in last_line(command.run(catalog="in/none.csv", exit_code=2))
    bucket, server.bucket = server.bucket, "no-such-bucket"
    assert "there is no bucket 'no-such-bucket'" in last_line(command.run(exit_code=2))
    server.bucket = bucket
    server.tell("deny")
    assert "access denied (InvalidAccessKeyId)" in last_line(command.run(exit_code=2))
    server.tell("admit")
    assert f"enrich: {server.url('in/home.csv')}: no column 'Name'" in last_line(
        command.run("--title-column", "Name", exit_code=2)
    )
    assert is_left_clean(server)


def last_line(log: str) -> str:
    return log.splitlines()[-1]


def test_large_objects_in_parts(server: Server, tmp_path: Path) -> None:
    """Multipart uploads: whole in spite of faults, checked before they are completed, gone without a trace if not."""
    remote, url = Remote(patience=Patience(first_pause=0.01)), server.url("large")
    large = tmp_path / "large"
    large.write_bytes(os.urandom(40 << 20))
    remote.upload_over(large, url, None)
    version = remote.version(url)
    assert version is not None and (version.e_tag or "").endswith('-5"')  # as S3 marks what came in five parts
    server.tell("fail 3")
    copy = tmp_path / "copy"
    assert remote.download(url, copy) == version
    assert copy.read_bytes() == large.read_bytes()
    remote.upload(large, server.url("another"))
    assert int(server.tell("fail 0")) >= 2
    assert remote.download(server.url("another"), copy) is not None
    assert copy.read_bytes() == large.read_bytes()

    remote.write(url, b"of someone else")
    with pytest.raises(Changed, match="written by someone else"):
        remote.upload_over(large, url, version)
    assert server.read("large") == b"of someone else"

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Remote(stop).upload(large, url)
    assert server.read("large") == b"of someone else"
    with urllib.request.urlopen(f"{server.endpoint}/{server.bucket}?uploads", timeout=10) as answer:
        assert b"<UploadId>" not in answer.read()
