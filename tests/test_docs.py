from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from enrich.cli import main
from enrich.generation import GENERATION_TYPE

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "sample_catalogs" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
# Other pages that tell what to type.
MORE_PAGES = [*(ROOT / "jobs").rglob("*.md"), *(ROOT / "enrich").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


def test_the_command_line_reference_is_current() -> None:
    # In a process of its own: click remembers how a command was first asked for help.
    program = "import generate_cli; assert generate_cli.TARGET.read_text(encoding='utf-8') == generate_cli.reference()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "docs", capture_output=True, check=False)
    assert done.returncode == 0, "run: python docs/generate_cli.py"


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *MORE_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            found = page.parent / target if target else page
            assert found.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors_of(found), f"{page.name}: {link}"


def test_the_map_of_the_rooms_is_whole_and_every_place_in_it_exists() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    rooms, _, changes = page.partition("## The way of a row")
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", rooms)
    package = ROOT / "enrich"
    there = {path.name + "/" * path.is_dir() for path in package.iterdir() if not path.name.startswith("_")}
    assert set(named) == there - {"py.typed"}
    for place in re.findall(r"`([a-z_/]+\.py)`", changes):
        assert (package / place).is_file() or (ROOT / place).is_file(), place


def test_every_field_of_the_generation_column_is_described() -> None:
    page = (ROOT / "docs" / "output.md").read_text(encoding="utf-8")
    for field in GENERATION_TYPE:
        assert f"`{field.name}`" in page


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), re.S)
    environment = {name: value for name, value in os.environ.items() if name != "ENRICH_RULES"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def run(block: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = [run(block) for block in blocks]
    assert re.search(r"4  to generate\n +1  keep their description\n +1  unusable: no_title", said[1])
    assert "6 rows: 4 generated, 0 reused, 1 kept, 1 quarantined" in said[2]
    assert (tmp_path / "catalog.enriched.parquet.quarantine.jsonl").read_text().count("\n") == 1
    assert "6 rows: 4 generated, 0 reused, 1 kept, 1 quarantined" in said[3]
    assert "unchanged" in said[4] or "nothing" in said[4].lower()
    assert "7 rows: 1 generated, 4 reused, 1 kept, 1 quarantined" in said[5]
    assert said[6].startswith("5 rows written to upload.csv\n")


@pytest.mark.slow
def test_the_python_session_says_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "api.md"
    results = doctest.testfile(str(page), module_relative=False, encoding="utf-8", verbose=False)
    assert results.failed == 0
    assert results.attempted > 15
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    assert all(block.startswith(">>> ") for block in blocks)


def commands_in(page: str) -> list[list[str]]:
    """The words of every `enrich …` that stands in a page's blocks of code or between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.S | re.M)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", page, flags=re.S | re.M)
    lines += [" ".join(span.split()) for span in re.findall(r"`(enrich\s[^`]+)`", prose)]
    found = []
    for line in lines:
        if line.startswith("enrich "):
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            found.append(list(takewhile(lambda word: not set(word) <= set("|&;<>()"), words)))
    return found


def wrong_in(words: list[str]) -> str | None:
    """What the command line doesn't know of a command in the docs."""
    if words[1].startswith("-"):
        command, options = main, words[1:]
    else:
        command, options = main.commands.get(words[1]), words[2:]
    if command is None:
        return f"there is no command {words[1]}"
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}
    for word in options:
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known:
            return f"{command.name} has no {word}"
    return None


@pytest.mark.parametrize("page", [*PAGES, *MORE_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_in_the_docs_exist(page: Path) -> None:
    found = commands_in(page.read_text(encoding="utf-8"))
    assert [(" ".join(words), wrong) for words in found if (wrong := wrong_in(words))] == []


def test_the_test_above_can_fail_and_looks_everywhere() -> None:
    page = "Do `enrich\nrun` first.\n\n```sh\nenrich plan a.csv --shards 3 | head -n 2\nenrich \\\n  shou -n 2\n```\n"
    found = commands_in(page)
    assert found == [["enrich", "plan", "a.csv", "--shards", "3"], ["enrich", "shou", "-n", "2"], ["enrich", "run"]]
    assert wrong_in(found[0]) is None
    assert wrong_in(found[1]) == "there is no command shou"
    assert wrong_in(["enrich", "run", "a.csv", "--batch=3"]) == "run has no --batch=3"
    assert wrong_in(["enrich", "--version"]) is None
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(commands_in(readme)) > 10
