"""Reuse: whatever rows stay, go, come or change their places, each gets the text of its own key, once."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich import reuse
from enrich.generation import EDITED, GENERATED, GENERATION_TYPE, KEPT, QUARANTINED, REUSED, Generation, text_digest
from enrich.outcomes import read_outcomes
from enrich.reuse import Earlier, WantedRows

unhurried = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
FACTS = {"versions": {"enrich": "1"}, "roles": {"id": "id"}}


def key(number: int) -> str:
    return f"{number:02x}" * 16


def publish(path: Path, rows: list[tuple[int, str]]) -> None:
    """Write an output of so many rows: the number of its key, and what became of it since."""
    records, texts = [], []
    for number, fate in rows:
        text: str | None = f"text {number}"
        status = QUARANTINED if fate == "quarantined" else REUSED if fate == "reused" else GENERATED
        digest = text_digest(f"text {number}") if fate != "quarantined" else None
        if fate == "edited":
            text = f"a person's {number}"
        if fate in ("emptied", "quarantined"):
            text = None
        texts.append(text)
        records.append(asdict(Generation(status, key=key(number), text_digest=digest)))
    columns = {
        "id": pa.array([f"p{number}" for number, _ in rows], pa.string()),
        "description": pa.array(texts, pa.string()),
        "generation": pa.array(records, GENERATION_TYPE),
    }
    pq.write_table(pa.table(columns), path, row_group_size=5)


numbers = st.lists(st.integers(0, 60), unique=True, max_size=40)
fates = st.sampled_from(["generated", "reused", "edited", "emptied", "quarantined"])


@unhurried
@given(numbers, numbers, st.data())
@pytest.mark.parametrize("rows_of_a_file", [4, 65_536])
def test_each_row_gets_the_text_of_its_key(
    monkeypatch: pytest.MonkeyPatch, rows_of_a_file: int, before: list[int], now: list[int], data: st.DataObject
) -> None:
    monkeypatch.setattr(reuse, "_BATCH_ROWS", rows_of_a_file)
    fate = {number: data.draw(fates) for number in before}
    gaps = [data.draw(st.integers(1, 4)) for _ in now]
    ordinals = np.cumsum(np.array([0, *gaps[1:]], np.int64))[: len(now)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "out.parquet"
        publish(path, [(number, fate[number]) for number in before])
        earlier = Earlier()
        earlier.add_published(path, FACTS, "1", "description")
        assert earlier.notes == []
        assert earlier.num_edited == sum(one == "edited" for one in fate.values())
        wanted = WantedRows(ordinals, b"".join(bytes.fromhex(key(number)) for number in now))
        edited = {
            int(ordinal): position
            for ordinal, number in zip(ordinals, now, strict=True)
            if (position := earlier.edited_position(f"p{number}")) is not None
        }
        carried = earlier.match(wanted, edited)
        found = [row for table in carried.outcomes(Path(name) / "scratch") for row in read_outcomes(table)]
        assert not (Path(name) / "scratch").exists()
    expected = {
        int(ordinal): number
        for ordinal, number in zip(ordinals, now, strict=True)
        if number in fate and fate[number] != "emptied"
    }
    assert sorted(row.ordinal for row in found) == sorted(expected) == carried.ordinals.tolist()
    for row in found:
        number = expected[row.ordinal]
        assert row.generation.key == key(number)
        if fate[number] == "edited":
            assert (row.text, row.generation.status) == (f"a person's {number}", KEPT)
            assert EDITED in row.generation.flags
        elif fate[number] == "quarantined":
            assert (row.text, row.generation.status) == (None, QUARANTINED)
        else:
            assert (row.text, row.generation.status) == (f"text {number}", REUSED)


@unhurried
@given(numbers, st.data())
def test_leaving_rows_out_leaves_the_others_as_they_are(before: list[int], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "out.parquet"
        publish(path, [(number, "generated") for number in before])
        earlier = Earlier()
        earlier.add_published(path, FACTS, "1", "description")
        order = data.draw(st.permutations(before))
        wanted = WantedRows(np.arange(len(order)), b"".join(bytes.fromhex(key(number)) for number in order))
        carried = earlier.match(wanted, {})
        done = np.array([data.draw(st.booleans()) for _ in order], bool)
        left = carried.without(done)
        found = {
            row.ordinal: row.text for table in left.outcomes(Path(name) / "scratch") for row in read_outcomes(table)
        }
    assert found == {place: f"text {number}" for place, number in enumerate(order) if not done[place]}


def test_of_a_file_of_another_version_only_what_a_person_wrote_is_taken(tmp_path: Path) -> None:
    publish(tmp_path / "out.parquet", [(1, "generated"), (2, "edited"), (3, "reused"), (4, "edited")])
    wanted = WantedRows(np.arange(4), b"".join(bytes.fromhex(key(number)) for number in (1, 2, 3, 9)))
    taken = {}
    for version in ("1", "2"):
        earlier = Earlier()
        earlier.add_published(tmp_path / "out.parquet", FACTS, version, "description")
        position = earlier.edited_position("p4")  # its product has another key by now
        assert position is not None
        carried = earlier.match(wanted, {3: position})
        found = [row for table in carried.outcomes(tmp_path / "scratch") for row in read_outcomes(table)]
        taken[version] = ([(row.ordinal, row.text) for row in found], earlier.notes)
    edited = [(1, "a person's 2"), (3, "a person's 4")]
    assert taken["1"] == (sorted([(0, "text 1"), (2, "text 3"), *edited]), [])
    path = tmp_path / "out.parquet"
    told = f"{path} has the texts of version 1: 2 edited texts stay, the others are generated anew by 2"
    assert taken["2"] == (edited, [told])
