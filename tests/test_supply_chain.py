"""What the project is made of: pinned packages, no pickle, nothing that runs what it reads."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TOPS = ("enrich", "jobs", "benchmarks", "docs", "sample_catalogs")
PROGRAMS = sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "runpy", "pty"}
# Calls by their last two names.
UNSAFE_CALLS = {
    "torch.load", "os.system", "os.popen", "yaml.load", "tempfile.mktemp", "numpy.load", "np.load", "os.chmod",
    "os.umask", "pd.read_pickle", "ctypes.CDLL",
}  # fmt: skip


def called(node: ast.Call) -> str:
    name = node.func
    if isinstance(name, ast.Name):
        return name.id
    if isinstance(name, ast.Attribute):
        return f"{name.value.id}.{name.attr}" if isinstance(name.value, ast.Name) else f".{name.attr}"
    return ""


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_program_runs_or_unpickles_what_it_reads(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {name.split(".")[0] for name in names} & UNSAFE_MODULES
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        assert name not in RUNS_TEXT | UNSAFE_CALLS, f"line {node.lineno}: {name}"
        for keyword in node.keywords:
            on = not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            assert not (keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and on), f"line {node.lineno}"
        if name.endswith(".save") and "torch" in name:
            raise AssertionError(f"line {node.lineno}: torch.save pickles")


@pytest.mark.parametrize(
    "source", ["eval('1')", "import pickle", "torch.load('x')", "run('x', shell=True)", "f(trust_remote_code=yes)"]
)
def test_the_test_above_can_fail(source: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(source)
    with pytest.raises(AssertionError):
        test_no_program_runs_or_unpickles_what_it_reads(tmp_path / "x.py")


def test_no_shipped_file_is_a_pickle() -> None:
    for path in (ROOT / "enrich").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.suffix not in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz"), path
            assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), path


def pins(path: Path) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(one.name): one for one in found}


@pytest.mark.parametrize(
    "file",
    [
        "constraints.txt",
        "constraints-oldest.txt",
        "benchmarks/constraints.txt",
        "jobs/airflow/constraints.txt",
        "tests/integration/s3/constraints.txt",
    ],
)
def test_every_constraint_is_one_version(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    found = pins(ROOT / file)
    assert len(found) == len([line for line in text.splitlines() if line.partition("#")[0].strip()])  # none twice
    for one in found.values():
        assert one.url is None
        assert re.fullmatch(r"==[^*,]+", str(one.specifier)), str(one)


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


@pytest.mark.parametrize("extra", extras())
def test_every_dependency_is_pinned_at_what_is_installed(extra: str) -> None:
    pinned = pins(ROOT / os.environ.get("CONSTRAINTS", "constraints.txt"))  # `make oldest-test` has others
    waiting = [Requirement(line) for line in extras()[extra]]
    for direct in waiting:
        assert canonicalize_name(direct.name) in pinned, f"constraints.txt lacks {direct.name}"
        assert direct.specifier.contains(next(iter(pinned[canonicalize_name(direct.name)].specifier)).version)
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if (name, frozenset(one.extras)) in seen:
            continue
        seen.add((name, frozenset(one.extras)))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here, or of another system
        assert name in pinned, f"constraints.txt lacks {name}=={found.version}"
        assert pinned[name].specifier.contains(found.version, prereleases=True), f"{name} {found.version} is installed"
        for line in found.requires or []:
            required = Requirement(line)
            wanted = [{"extra": ""}, *({"extra": extra} for extra in one.extras)]
            if required.marker is None or any(required.marker.evaluate(environment) for environment in wanted):
                waiting.append(required)


# Bounds that no test holds: torch's, of which pyproject.toml says why, and those of what checks the project itself.
NOT_THE_OLDEST = {"torch", "hypothesis", "mypy", "pytest", "pytest-xdist", "ruff", "duckdb"}


def version(one: Requirement) -> Version:
    return Version(str(one.specifier).lstrip(">="))


def test_the_oldest_versions_are_those_that_the_project_allows() -> None:
    pinned, oldest = pins(ROOT / "constraints.txt"), pins(ROOT / "constraints-oldest.txt")
    stated = [Requirement(line) for lines in extras().values() for line in lines]
    assert set(oldest) <= {canonicalize_name(one.name) for one in stated} - NOT_THE_OLDEST
    for one in stated:
        name = canonicalize_name(one.name)
        if name in oldest:
            assert version(oldest[name]) == version(one), f"{name}: constraints-oldest.txt has another than {one}"
        elif name not in NOT_THE_OLDEST:
            # `make oldest-test` does without: it is tried by `make extras-test` alone, as it is pinned.
            assert version(pinned[name]).release[:2] == version(one).release[:2], f"{one}: raise it to {pinned[name]}"


def test_a_name_is_spelled_alike_in_both_files_of_constraints() -> None:
    first, second = (
        {line.partition("==")[0] for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if "==" in line}
        for file in ("constraints-oldest.txt", "constraints.txt")
    )
    assert first <= second  # make takes away from the one, by name, what the other has


def test_the_index_is_asked_for_pinned_packages_only() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in makefile.splitlines():
        if " install " in line and "pip" in line.lower():
            assert "-c constraints.txt" in line or "-c $<" in line, line


def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "tests" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KNOWN = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
SOUND = {"name": "b", "version": "1", "vulns": []}
UNKNOWN = {"name": "c", "skip_reason": "could not be found"}


@pytest.mark.parametrize(
    ("printed", "code", "told"),
    [
        ([SOUND], 0, "1 of 1 packages audited, 0 vulnerabilities known"),
        ([SOUND, KNOWN], 1, "a 1: CVE-1, mended in 2"),
        ([SOUND, KNOWN, UNKNOWN], 1, "NOT AUDITED, unknown to the advisory service: c"),
        ([SOUND, UNKNOWN], 75, "NOT AUDITED, unknown to the advisory service: c"),
        ([], 75, "0 of 0 packages audited"),
        (None, 75, "NOT AUDITED, the advisory service can't be asked: no route"),
    ],
)
def test_an_audit_that_was_not_made_is_none(printed: list[Any] | None, code: int, told: str) -> None:
    out = "" if printed is None else json.dumps({"dependencies": printed})
    found, text = audit().judged(Path("constraints.txt"), 1, out, "Traceback\nno route\n")
    assert found == code
    assert told in text
