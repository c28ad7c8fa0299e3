"""Nothing that stands in a catalog is executed, fetched or used as a path."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

# Notes what the interpreter is asked for while a catalog is enriched: files opened, code compiled and run, programs
# started, names looked up, machines called. What is written in C++ opens files unseen, hence the pipe below.
PROGRAM = """
import json, sys
seen = []
def note(event, arguments):
    if event in ("open", "compile", "exec", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn",
                 "os.fork", "os.forkpty", "pty.spawn", "ctypes.dlopen", "import", "os.remove", "os.rename", "os.mkdir",
                 "os.chmod", "os.symlink", "os.link", "shutil.rmtree", "os.truncate", "os.listdir", "os.scandir",
                 "glob.glob", "pickle.find_class", "webbrowser.open", "sqlite3.connect", "code.__new__",
                 ) or event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        seen.append([event, *(a if isinstance(a, str) else a.decode("utf-8", "replace") if isinstance(a, bytes)
                              else repr(a)[:2000] for a in arguments)])
from enrich import RunConfig, job
from enrich.checking import check
from enrich.catalog import RoleOptions
from enrich.report import gather, opening
from pathlib import Path
catalog, output, model, log = sys.argv[1:]
config = RunConfig(catalog, output, model=model, max_new_tokens=4, rules="all=off", max_quarantined="100%",
                   changes=output.replace("out.", "changes."), seo=True)
sys.addaudithook(note)
job.foresee(config)
summary = job.run(config)
check(Path(catalog), RoleOptions())
gather.gather(opening.open_output(Path(output)))
events, seen = seen, []
open(log, "w").write(json.dumps({"events": events, "rows": summary.rows, "generated": summary.generated}))
"""
MARK = "h0st1le"


@pytest.fixture
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and who has called it."""
    server = socket.create_server(("127.0.0.1", 0))
    callers: list[object] = []

    def accept() -> None:
        while True:
            try:
                connection, caller = server.accept()
            except OSError:
                return
            callers.append(caller)
            connection.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield server.getsockname()[1], callers
    server.close()


def test_a_catalog_reaches_nothing(tmp_path: Path, tiny_gpt2: Path, listening: tuple[int, list[object]]) -> None:
    port, callers = listening
    secret, pipe = tmp_path / f"{MARK}.txt", tmp_path / f"{MARK}.pipe"
    secret.write_text(f"{MARK} secret")
    os.mkfifo(pipe)  # whoever opened it would wait for ever
    cells = [
        str(secret), str(pipe), f"file://{secret}", f"file://{pipe}", f"../{secret.name}", f"{secret}\0.png",
        f"http://127.0.0.1:{port}/{MARK}", f"<img src=http://127.0.0.1:{port}/{MARK}>", f"s3://{MARK}/key",
        f"=HYPERLINK(\"http://127.0.0.1:{port}/{MARK}\")", f"{{% include '{secret}' %}}", f"$(cat {secret})",
        f"{{{{ ''.__class__.__mro__[1].__subclasses__() }}}} {MARK}", f"`cat {secret}`",
        f"; touch {tmp_path}/{MARK}.new",
        f"__import__('os').system('touch {tmp_path}/{MARK}.new')", f"<script src=//127.0.0.1:{port}/{MARK}></script>",
        f"cos\nsystem\n(S'touch {tmp_path}/{MARK}.new'\ntR.", f"<!DOCTYPE x SYSTEM '{secret}'>{MARK}",
        f"!!python/object/apply:os.system ['touch {tmp_path}/{MARK}.new']", f"{{{{ open('{secret}').read() }}}}",
        f"http://{MARK}.example.com/", f"| touch {tmp_path}/{MARK}.new", f"../../{MARK}/../out",
        f"{MARK}'; DROP TABLE x",
    ]  # fmt: skip
    columns = ("id", "title", "category", "color", "image", "image_url", "features", "handle")
    table = pa.table({name: [*cells, *[f"Lamp {n}" for n in range(len(cells))]] for name in columns})
    described = [*[None] * len(cells), *cells]
    catalog = tmp_path / "catalog.parquet"
    pq.write_table(table.append_column("description", pa.array(described, pa.string())), catalog)
    before = {path.name for path in tmp_path.iterdir()}
    out, log = tmp_path / "out", tmp_path / "log.json"
    out.mkdir()
    arguments = [str(catalog), str(out / "out.parquet"), str(tiny_gpt2), str(log)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(out)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    noted = json.loads(log.read_text())
    assert noted["rows"] == 2 * len(cells)
    reasons = [json.loads(line)["reasons"][0] for line in (out / "out.parquet.quarantine.jsonl").open()]
    # The random streams follow from the ids, which have this test's directory in them: four tokens may be no text.
    assert noted["generated"] + reasons.count("empty") == len(cells)
    assert (
        len(reasons) - reasons.count("empty") == reasons.count("no_title") == 2
    )  # the markup, of which nothing is left
    assert not callers
    events: list[list[str]] = noted["events"]
    assert len(events) > 50  # they are seen: the output's own files are among them
    assert any(event[0] == "open" and "out.parquet" in event[1] for event in events)
    kinds = {event[0] for event in events}
    started = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "os.fork"}
    assert not kinds & {*started, "pickle.find_class", "webbrowser.open"}
    assert not {kind for kind in kinds if kind.startswith(("socket.connect", "socket.getaddrinfo", "urllib.", "http."))}
    assert not [event for event in events if MARK in " ".join(event)]
    assert {path.name for path in tmp_path.iterdir()} - before == {"out", "log.json"}
    written = {path.name for path in out.iterdir()}
    expected = {"out.parquet", "out.parquet.quarantine.jsonl", "changes.parquet", "enrich"}
    assert {name for name in written if not name.startswith(".")} <= expected
