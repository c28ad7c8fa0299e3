"""The rules of the layout: imports go down only, nouns do not know each other, torch stays in its rooms."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "enrich"
NOUNS = {
    "catalog",
    "categories",
    "prompts",
    "keys",
    "buckets",
    "checkpoint",
    "output",
    "engine",
    "quality",
    "reuse",
}
SHARED = {
    "ahead",
    "config",
    "wishes",
    "errors",
    "product",
    "generation",
    "hints",
    "outcomes",
    "batch_size",
    "shard",
    "storage",
    "summary",
    "timing",
    "names",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    known = {room(other) for other in MODULES}
    parts = (name.split(".") for name in imports(path) if name.startswith("enrich."))
    return {part[1] for part in parts if part[1] in known} - {room(path)}


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in NOUNS], ids=str)
def test_nouns_import_shared_values_only(path: Path) -> None:
    assert rooms_used(path) <= SHARED


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in SHARED], ids=str)
def test_shared_values_import_each_other_only(path: Path) -> None:
    assert rooms_used(path) <= SHARED


COMMAND_LINE = [path for path in MODULES if room(path) in {"cli", "commands"}]


@pytest.mark.parametrize("path", COMMAND_LINE, ids=str)
def test_the_command_line_reaches_the_rest_inside_its_commands_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    rooms = {".".join(name.split(".")[:2]) for name in top if name.startswith("enrich.")}
    assert rooms <= {"enrich.commands", "enrich.config", "enrich.errors"}


def test_commands_are_known_to_the_command_line_alone() -> None:
    assert {room(path) for path in MODULES if "commands" in rooms_used(path)} == {"cli"}
    assert {room(path) for path in MODULES if "cli" in rooms_used(path)} == {"__main__"}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room(path) not in {"engine", "finetune", "evaluate"}], ids=str
)
def test_torch_is_imported_by_the_engine_and_training_only(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers", "tokenizers"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_nothing_is_pickled_and_no_remote_code_is_run(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "trust_remote_code=True" not in source
    assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "cloudpickle", "joblib", "dill"}
    assert "torch.load(" not in source


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "stages"], ids=str)
def test_stages_are_told_by_the_job_alone(path: Path) -> None:
    assert rooms_used(path).isdisjoint({"job", "cli", "finetune", "status"})
    users = {room(other) for other in MODULES if "stages" in rooms_used(other)}
    assert users == {"job"}
