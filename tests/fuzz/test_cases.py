"""What was fed to the fuzzed front ends, and what broke them once, tried again; and some changed at random."""

from __future__ import annotations

import random
from pathlib import Path

import fuzz
import pytest
import targets

CASES = sorted(path for path in fuzz.CASES.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_cases(path: Path) -> None:
    targets.TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", targets.TARGETS)
def test_some_changed_at_random(target: str) -> None:
    draw = random.Random(1)
    cases = [path.read_bytes() for path in CASES if path.parent.name == target]
    words = [word.encode() for word in fuzz._WORDS[target]]
    for _ in range(300):
        targets.TARGETS[target](fuzz.changed(draw.choice(cases), cases, words, draw))


def test_a_finding_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(data: bytes) -> None:
        if b"!" in data:
            raise ZeroDivisionError("of all things")

    watch = fuzz.Watch("csv", fails, tmp_path / "found")
    for data in (b"a", b"b!", b"c!"):
        watch(data)
    assert watch.count == 3
    assert [path.read_bytes() for path in (tmp_path / "found").iterdir()] == [b"b!"]
    assert "ZeroDivisionError" in capsys.readouterr().out
