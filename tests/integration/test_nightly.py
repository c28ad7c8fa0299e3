"""The nightly script under cron's environment, with its lock, log, time limit and exit codes; and the systemd units."""

from __future__ import annotations

import configparser
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "jobs" / "nightly.sh"
DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ")

# Stands in for the command: notes what it was given, then does what FAKE says.
FAKE = """#!{python}
import json, os, pathlib, signal, sys, time
here = pathlib.Path({here!r})
signals = []
def note(number, frame):
    signals.append(number)
signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
(here / "seen.json").write_text(json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}))
print("a line of output")
print("a line of the log", file=sys.stderr, flush=True)
wanted, _, number = os.environ.get("FAKE", "exit 0").partition(" ")
if wanted == "exit":
    sys.exit(int(number))
(here / "started").touch()
end = time.monotonic() + 60
while time.monotonic() < end and not (signals and wanted == "commit"):
    time.sleep(0.02)
time.sleep(0.5)  # a second signal would arrive while it commits
(here / "committed").write_text(json.dumps(signals))
sys.exit(128 + signals[0])
"""


class Night:
    """A place to run the script in, with a stand-in for the command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "logs" / "nightly.log"
        self.command = directory / "enrich"
        self.command.write_text(FAKE.format(python=sys.executable, here=str(directory)))
        self.command.chmod(0o755)
        # As bare as cron's; not even HOME.
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "ENRICH_BIN": str(self.command),
            "NIGHTLY_LOG": str(self.log),
        }

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SCRIPT, *arguments],
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What was ignored when a shell began, as it is behind nohup, it can't trap.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 60
        while not (self.directory / name).exists():
            assert time.monotonic() < deadline, f"{name} did not appear"
            time.sleep(0.02)

    def signals(self) -> str:
        return (self.directory / "committed").read_text()


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_arguments_and_environment_reach_the_command(night: Night) -> None:
    code, out, err = night.run("a catalog.csv", "-o", "$(touch x).parquet", ENRICH_SEED="7")
    assert (code, out, err) == (0, "", "")
    seen = (night.directory / "seen.json").read_text()
    assert '"arguments": ["run", "a catalog.csv", "-o", "$(touch x).parquet"]' in seen
    assert '"ENRICH_SEED": "7"' in seen
    assert '"HOME"' not in seen


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 75, 99])
def test_the_exit_code_is_passed_on_with_the_end_of_the_log(night: Night, wanted: int) -> None:
    code, out, err = night.run("catalog.csv", FAKE=f"exit {wanted}")
    assert (code, out) == (wanted, "")
    assert "a line of the log" in err
    assert f"exit code {wanted}" in err


def test_a_night_without_changes_is_silent_whatever_its_exit_code(night: Night) -> None:
    assert night.run("catalog.csv", FAKE="exit 99", ENRICH_EXIT_CODE_UNCHANGED="99") == (99, "", "")


def test_the_log_is_appended_to_with_dates(night: Night) -> None:
    night.run("catalog.csv")
    night.run("catalog.csv", FAKE="exit 3")
    lines = night.log.read_text().splitlines()
    own = [line for line in lines if " nightly: " in line]
    assert [re.sub(r" after \d+ s$", "", DATED.sub("", line)) for line in own] == [
        "nightly: start",
        "nightly: exit code 0",
        "nightly: start",
        "nightly: exit code 3",
    ]
    assert all(DATED.match(line) for line in own)
    assert lines.count("a line of output") == lines.count("a line of the log") == 2


def test_when_time_is_up_one_signal_is_sent_and_the_command_may_commit(night: Night) -> None:
    code, _, _ = night.run("catalog.csv", FAKE="commit", NIGHTLY_TIMEOUT="5s")
    assert code == 128 + signal.SIGTERM
    assert night.signals() == f"[{signal.SIGTERM}]"


def test_a_command_that_does_not_stop_is_killed_after_the_grace(night: Night) -> None:
    code, _, _ = night.run("catalog.csv", FAKE="stay", NIGHTLY_TIMEOUT="2s", NIGHTLY_GRACE="1s")
    assert code == 128 + signal.SIGKILL
    assert not (night.directory / "committed").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_script_reaches_the_command_once_and_is_waited_for(
    night: Night, number: signal.Signals
) -> None:
    process = night.start("catalog.csv", FAKE="commit")
    night.wait_for("started")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert night.signals() == f"[{number}]"


def test_a_held_lock_is_exit_code_75(night: Night) -> None:
    night.run("catalog.csv")
    (night.directory / "seen.json").unlink()
    with night.log.with_name("nightly.log.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = night.run("catalog.csv")
    assert code == 75
    assert "another run holds" in err
    assert "another run holds" in night.log.read_text()
    assert not (night.directory / "seen.json").exists()
    assert night.run("catalog.csv")[0] == 0


def test_the_lock_is_held_as_long_as_the_command_runs_even_if_the_script_was_killed(night: Night) -> None:
    process = night.start("catalog.csv", FAKE="commit", NIGHTLY_TIMEOUT="8s")
    night.wait_for("started")
    process.kill()
    process.wait()
    assert night.run("catalog.csv")[0] == 75
    night.wait_for("committed")  # the time limit holds as well
    deadline = time.monotonic() + 30
    while night.run("catalog.csv")[0] == 75:
        assert time.monotonic() < deadline
    assert night.signals() == f"[{signal.SIGTERM}]"


def test_the_environment_file_is_exported_and_its_credentials_stay_out_of_the_log(night: Night) -> None:
    file = night.directory / "nightly.env"
    file.write_text("ENRICH_MODEL='./my model'\nAWS_SECRET_ACCESS_KEY=not-for-the-log\n")
    code, out, err = night.run(NIGHTLY_ENV=str(file), FAKE="exit 2")
    assert code == 2
    seen = (night.directory / "seen.json").read_text()
    assert '"ENRICH_MODEL": "./my model"' in seen
    assert '"AWS_SECRET_ACCESS_KEY": "not-for-the-log"' in seen
    assert "not-for-the-log" not in night.log.read_text() + out + err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NIGHTLY_ENV", "/nowhere/nightly.env", "can't read"),
        ("ENRICH_BIN", "/nowhere/enrich", "there is no command"),
        ("NIGHTLY_TIMEOUT", "soon", "no duration"),
        ("NIGHTLY_GRACE", "-1", "no duration"),
        ("NIGHTLY_LOG", "/dev/null/nightly.log", "can't make"),
        ("NIGHTLY_LOCK", "/nowhere/lock", "can't write"),
    ],
)
def test_what_can_not_be_started_is_exit_code_2(night: Night, name: str, value: str, message: str) -> None:
    code, _, err = night.run("catalog.csv", **{name: value})
    assert code == 2
    assert message in err


def test_the_command_beside_the_script_is_found_from_anywhere(night: Night) -> None:
    home = night.directory / "an installation"
    (home / "jobs").mkdir(parents=True)
    (home / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(SCRIPT, home / "jobs")
    night.command.rename(home / ".venv" / "bin" / "enrich")
    done = subprocess.run([home / "jobs" / "nightly.sh", "catalog.csv"], env={}, cwd="/", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (night.directory / "seen.json").exists()
    assert (home / "logs" / "nightly.log").exists()


@pytest.mark.slow
def test_the_line_of_the_crontab_works_in_the_environment_of_cron(tiny_gpt2: Path, tmp_path: Path) -> None:
    """With the real command; the variables are those that Debian's cron sets, and the crontab's own."""
    pl.DataFrame({"sku": ["1", "2"], "title": ["Wool rug", "Oak lamp"]}).write_parquet(tmp_path / "products.parquet")
    log = tmp_path / "nightly.log"
    options = {
        "ENRICH_BIN": Path(sys.executable).with_name("enrich"),
        "ENRICH_MODEL": tiny_gpt2,
        "ENRICH_MAX_NEW_TOKENS": 8,
        "ENRICH_RULES": "all=off",
        "NIGHTLY_LOG": log,
    }
    (tmp_path / "nightly.env").write_text("".join(f"{name}='{value}'\n" for name, value in options.items()))
    example = (ROOT / "jobs" / "crontab.example").read_text()
    later = f"{datetime.now() + timedelta(hours=6):%H:%M}"
    for there, here in {
        "/etc/enrich": str(tmp_path),
        "/srv/catalog": str(tmp_path),
        "/opt/enrich": str(ROOT),
        "05:30": later,
    }.items():
        assert there in example
        example = example.replace(there, here)
    lines = [line for line in example.splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    command = re.fullmatch(r"(?:\S+\s+){5}(.+)", lines[-1])
    assert command is not None
    done = subprocess.run(
        ["/bin/sh", "-c", command[1]],
        env={"HOME": "/", "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "PWD": "/", **variables},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), log.read_text()
    enriched = pl.read_parquet(tmp_path / "products.enriched.parquet")
    assert enriched["generation"].struct.field("status").to_list() == ["generated", "generated"]
    assert "nightly: exit code 0" in log.read_text()


def read_unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment]  # the names of systemd have capitals
    unit.read(ROOT / "jobs" / "systemd" / name)
    return unit


def test_the_systemd_units_mean_what_the_exit_codes_mean() -> None:
    service, timer = read_unit("enrich.service"), read_unit("enrich.timer")
    assert service["Service"]["ExecStart"] == "/opt/enrich/jobs/nightly.sh"
    assert os.access(SCRIPT, os.X_OK)
    assert service["Service"]["Restart"] == "on-failure"
    assert service["Service"]["RestartPreventExitStatus"].split() == ["2", "3", "4", "75", "130", "143"]
    assert service["Service"]["KillMode"] == "mixed"  # else the command would get a second signal from systemd
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d", timer["Timer"]["OnCalendar"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here: its own check can't be run")
def test_systemd_itself_accepts_the_units(tmp_path: Path) -> None:
    for name in ("enrich.service", "enrich.timer"):
        text = (ROOT / "jobs" / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/enrich", str(ROOT)))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "enrich.service", tmp_path / "enrich.timer"],
        capture_output=True,
        text=True,
    )
    # A key that it does not know is a warning only, and the exit code then still 0.
    assert done.returncode == 0, done.stderr
    assert "enrich." not in done.stdout + done.stderr
