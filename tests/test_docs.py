from __future__ import annotations

import importlib.util
import re
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
