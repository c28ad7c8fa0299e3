from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.errors import ReconciliationError
from enrich.output import merge
from enrich.shard import ROW


def shards(directory: Path, *rows: list[int]) -> list[Path]:
    paths = [directory / f"{number}.parquet" for number in range(len(rows))]
    for path, places in zip(paths, rows, strict=True):
        table = pa.table(
            {"sku": pa.array([f"p{place}" for place in places], pa.string()), ROW: pa.array(places, pa.int64())}
        )
        pq.write_table(table, path, row_group_size=2)
    return paths


@pytest.mark.parametrize("window", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    "rows", [([0, 3, 4, 9], [1, 2], [5, 6, 7, 8]), ([*range(10)], []), ([], [], []), ([7, 8, 9], [*range(7)])]
)
def test_rows_come_back_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, rows: tuple[list[int], ...]
) -> None:
    monkeypatch.setattr(merge, "_WINDOW_ROWS", window)
    tables = list(merge.merged(shards(tmp_path, *rows)))
    found = [sku for table in tables for sku in table["sku"].to_pylist()]
    assert found == [f"p{place}" for place in range(sum(map(len, rows)))]
    assert all(ROW not in table.column_names for table in tables)


@pytest.mark.parametrize("window", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    ("rows", "row"),
    [
        (([0, 1, 3], [4, 5, 6]), 3),
        (([0, 1, 2], [2, 3]), 3),
        (([1, 2], [3]), 1),
        (([0, 1, 2], [4, 5]), 4),  # the last of a window of two or four
        (([0, 0], [1]), 1),
    ],
)
def test_a_row_that_is_missing_or_twice_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, rows: tuple[list[int], ...], row: int
) -> None:
    monkeypatch.setattr(merge, "_WINDOW_ROWS", window)
    with pytest.raises(ReconciliationError, match=f"row {row} is missing or there twice"):
        list(merge.merged(shards(tmp_path, *rows)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(owners=st.lists(st.integers(0, 3), max_size=50), window=st.integers(1, 20), data=st.data())
def test_any_split_of_any_catalog_comes_together(
    monkeypatch: pytest.MonkeyPatch, owners: list[int], window: int, data: st.DataObject
) -> None:
    monkeypatch.setattr(merge, "_WINDOW_ROWS", window)
    split = [[row for row, owner in enumerate(owners) if owner == shard] for shard in range(4)]
    with tempfile.TemporaryDirectory() as name:
        found = [sku for table in merge.merged(shards(Path(name), *split)) for sku in table["sku"].to_pylist()]
        assert found == [f"p{row}" for row in range(len(owners))]
        if len(owners) < 2:
            return
        wrong = data.draw(st.integers(0, len(owners) - 2))  # the last one can't be missed from here
        if data.draw(st.booleans()):
            split = [[row for row in rows if row != wrong] for rows in split]
        else:
            other = split[data.draw(st.integers(0, 3))]
            other[:] = sorted([*other, wrong])
        with pytest.raises(ReconciliationError, match="is missing or there twice") as caught:
            list(merge.merged(shards(Path(name), *split)))
        assert f"row {wrong + 1} " in str(caught.value)
