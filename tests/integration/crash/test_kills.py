"""The short form of `make crash-test`: a run killed at some points of each kind, and what holds at all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Night, Nights, Server, seed_of_tests
from kills import Kills, short_form

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nights(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    server = Server()
    try:
        yield Nights(server, tiny_gpt2, tmp_path_factory.mktemp("nights"), rows=60, commit_rows=8)
    finally:
        server.close()


def test_a_run_killed_anywhere_loses_nothing(nights: Nights) -> None:
    kills = Kills(nights, seed_of_tests())
    short_form(kills, nights.changed, 5)
    assert kills.total["kills"] >= 7


def test_a_merge_killed_anywhere_loses_nothing(nights: Nights) -> None:
    kills = Kills(nights, seed_of_tests())
    short_form(kills, nights.merged, 6)
    assert kills.total["kills"] >= 8


def the_point(night: Night, operation: str, name: str) -> int:
    return next(
        point["point"] for point in night.points if point["operation"] == operation and re.search(name, point["name"])
    )


def test_a_run_killed_after_it_published_leaves_its_changes_to_be_read(nights: Nights) -> None:
    kills = Kills(nights, 0)
    kills.at_point(nights.changed, the_point(nights.changed, "unlink", r"manifest\.jsonl"))


@pytest.mark.parametrize("shard", [1, 2])
def test_a_merge_killed_while_it_removes_the_shards_ends_at_the_next_try(nights: Nights, shard: int) -> None:
    kills = Kills(nights, 0)
    kills.at_point(nights.merged, the_point(nights.merged, "unlink", rf"^out\.shard-{shard}-of-2\.parquet$"))


def test_what_gets_a_name_was_synced_before_and_its_name_after(nights: Nights) -> None:
    night = nights.changed
    points = [point for point in night.points if "progress" not in point["name"]]
    named = 0
    for place, point in enumerate(points):
        if point["operation"] != "replace" or point["name"] in ("report.html", "progress.json"):
            continue
        named += 1
        directory = str(Path(point["name"]).parent)
        before, after = points[place - 1], points[place + 1]
        assert before["operation"] == "fsync" and Path(before["name"]).parent == Path(directory), point
        assert (after["operation"], after["name"]) == ("fsync", directory), point
    assert named >= 4  # manifest, parts, changes, quarantine, output
