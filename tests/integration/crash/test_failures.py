"""The short form of `make fault-test`: each failure once, on a small catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from failures import CASES, Bench, Case
from harness import Nights, Server, seed_of_tests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    server = Server()
    try:
        nights = Nights(server, tiny_gpt2, tmp_path_factory.mktemp("failures"), rows=60, commit_rows=8)
        yield Bench(nights, seed_of_tests())
    finally:
        server.close()


@pytest.mark.parametrize("case", [case for case in CASES if case.is_short], ids=lambda case: case.name)
def test_what_fails_ends_as_told_and_loses_nothing(bench: Bench, case: Case) -> None:
    case.run(bench)
