"""Install the wheel with one extra after another, each into an environment without the others, and use the extra there.

    python tests/integration/extras.py [EXTRA...]

Nothing but Python, and pip with its index, is needed. What the package itself depends on is installed once; each
extra's environment stands on that one and gets the wheel and the extra's own packages. Every command is first tried
without the extra: it must end with exit code 2 and name it. Exits with 1 if one did not do what it should.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "extras"
CONSTRAINTS = ROOT / "constraints.txt"

_FEW = "run home.csv --limit 3 --max-quarantined 100% -q"
_PAGE = """
from pathlib import Path
from enrich.demo import build, check_available
from enrich.workbench import Workbench
check_available()
print(len(build(Workbench("home-mini"), Path.cwd()).get_config_file()["components"]), "parts of a page")
"""
_DRIVER = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print("a driver for", playwright.chromium.name)
"""
_FUZZER = """
import atheris
assert atheris.FuzzedDataProvider(b"abc").ConsumeBytes(2) == b"ab"
print("a provider of inputs")
"""
_PEERS = """
import ctranslate2, openvino_genai
assert "int8" in ctranslate2.get_supported_compute_types("cpu")
assert openvino_genai.GenerationConfig(max_new_tokens=3).max_new_tokens == 3
print("peers to measure")
"""


@dataclass(frozen=True)
class Use:
    """A command that needs an extra: arguments of `enrich`, or a program; and what comes of it.

    `makes` is a file that must hold `within`; without it, what the command prints must. `refused` says that the command
    names the extra where it is missing; what only tests use does not.
    """

    command: str
    within: str
    makes: str | None = None
    exit_code: int = 0
    refused: bool = True

    @property
    def is_program(self) -> bool:
        return "\n" in self.command


USES = {
    "train": [
        Use("finetune texts.csv --from-scratch mini --steps 2 --batch-size 4 -o scratch", "<svg", "scratch/loss.svg"),
        Use("finetune texts.csv --base home-mini --lora 4 --steps 2 --batch-size 4 -o lora", "lora", "lora/README.md"),
    ],
    "metrics": [Use(f"{_FEW} --metrics-file enrich.prom", "enrich_success 1.0", "enrich.prom")],
    "remote": [Use("show s3://shop/enriched.parquet", "s3://shop/enriched.parquet", exit_code=2)],
    "report": [Use("report three.parquet", "<svg", "three.report.html")],
    "demo": [Use(_PAGE, "parts of a page")],
    "browser": [Use(_DRIVER, "a driver for chromium", refused=False)],
    "quality": [Use(f"{_FEW} --rules profanity=flag --json", '"rows": 3')],
    "ray": [Use(f"{_FEW} --workers 1 --json", '"rows": 3')],
    "seo": [Use(f"{_FEW} --seo -o seo.parquet", "slug", "seo.parquet")],
    "fuzz": [Use(_FUZZER, "a provider of inputs", refused=False)],
    "bench": [Use(_PEERS, "peers to measure", refused=False)],
}


class _NoBucket(BaseHTTPRequestHandler):
    """An S3 server without a bucket."""

    def do_GET(self) -> None:
        body = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def bucketless() -> Iterator[dict[str, str]]:
    """Serve no bucket on this machine; yield the environment of a command that looks for one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NoBucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    try:
        yield passed | {
            "HF_HUB_OFFLINE": "1",
            "XDG_CACHE_HOME": str(BUILD / "cache"),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
    finally:
        server.shutdown()
        server.server_close()


def extras() -> list[str]:
    """Return the extras that users install, in the order of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name for name in project["optional-dependencies"] if name != "dev"]


def environment(name: str, *requirements: str, upon: Path | None = None) -> Path:
    """Make an empty environment, upon another one's packages if told to, install into it and return its Python."""
    directory = BUILD / name
    venv.create(directory, with_pip=True, clear=True)
    python = directory / "bin" / "python"
    if upon:
        (packages_of(python) / "base.pth").write_text(f"{packages_of(upon)}\n", encoding="utf-8")
    if requirements:
        pip(python, "install", "-c", str(CONSTRAINTS), *requirements)
    return python


def packages_of(python: Path) -> Path:
    """Return where an environment has its packages."""
    return next(python.parents[1].glob("lib/python*/site-packages"))


def pip(python: Path, *arguments: str) -> None:
    """Run an environment's pip."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True, cwd=BUILD)


def write_catalogs(work: Path) -> None:
    """Write a catalog to run over, and one with texts to learn from."""
    shutil.copy(ROOT / "sample_catalogs" / "home.csv", work)
    with (work / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sku", "title", "description"])
        words = product(
            ("oak", "pine", "steel", "glass"), ("table", "lamp", "shelf", "stool"), ("hall", "den", "attic")
        )
        for number, (material, thing, room) in enumerate(words):
            text = (
                f"Put this {thing} made of {material} in the {room}, where it stands well. It wipes clean in no time."
            )
            rows.writerow([number, f"{material} {thing} for the {room}".title(), text])


def try_out(python: Path, use: Use, work: Path, variables: dict[str, str]) -> str | None:
    """Use an extra in an environment that has it. Return what was wrong."""
    done = ran(python, use, work, variables)
    if done.returncode != use.exit_code:
        return f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    if use.makes is None:
        found = done.stdout + done.stderr
    else:
        made = work / use.makes
        found = made.read_bytes().decode("utf-8", "replace") if made.is_file() else ""
    return None if use.within in found else f"{use.within!r} is not in {use.makes or found}"


def try_without(python: Path, extra: str, use: Use, work: Path, variables: dict[str, str]) -> str | None:
    """Use an extra where it is missing. Return what was wrong."""
    done = ran(python, use, work, variables)
    said = f"enrich[{extra}]" in done.stderr
    if use.is_program:
        return None if said else f"without it: {done.stderr}"
    return None if said and done.returncode == 2 else f"without it: exit code {done.returncode}: {done.stderr}"


def ran(python: Path, use: Use, work: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command or a program away from the source tree."""
    command = [python, "-c", use.command] if use.is_program else [python.with_name("enrich"), *use.command.split()]
    return subprocess.run(command, cwd=work, env=variables, capture_output=True, text=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="Only these.")
    wanted = parser.parse_args().extras or extras()
    if unknown := set(wanted) - set(USES):
        parser.error(f"no such extra: {', '.join(sorted(unknown))}; there are {', '.join(USES)}")
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    base = environment("base")
    pip(base, "wheel", "--no-deps", "-w", str(BUILD), str(ROOT))
    wheel = next(BUILD.glob("*.whl"))
    pip(base, "install", "-c", str(CONSTRAINTS), str(wheel))
    return int(not all_good(wanted, base, wheel))


def all_good(wanted: list[str], base: Path, wheel: Path) -> bool:
    """Use each extra, without it and with it, and say how that went; `base` has the wheel without any, and loses it."""
    (work := BUILD / "work").mkdir()
    write_catalogs(work)
    good = True
    with bucketless() as variables:
        first = Use(f"{_FEW} -o three.parquet --json", '"rows": 3')
        if wrong := try_out(base, first, work, variables):
            print(f"without any extra: {wrong}")
            return False
        for extra in wanted:
            for use in USES[extra]:
                if use.refused and (wrong := try_without(base, extra, use, work, variables)):
                    print(f"{extra}: {wrong}", flush=True)
                    good = False
        pip(base, "uninstall", "--yes", "enrich")
        for extra in wanted:
            started = time.monotonic()
            python = environment(extra, f"{wheel}[{extra}]", upon=base)
            found = [wrong for use in USES[extra] if (wrong := try_out(python, use, work, variables))]
            for wrong in found:
                print(f"{extra}: {wrong}")
            print(f"{extra}: {'failed' if found else 'good'}, {time.monotonic() - started:.0f} s", flush=True)
            good = good and not found
            shutil.rmtree(BUILD / extra)
    return good


if __name__ == "__main__":
    sys.exit(main())
