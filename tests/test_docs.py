from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.generation import GENERATION_TYPE

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "sample_catalogs" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]


def test_the_command_line_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.reference(), "run: python docs/generate_cli.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


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
