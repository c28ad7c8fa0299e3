from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import CatalogError
from enrich.report import counting, histograms, showing
from enrich.report.gather import gather
from enrich.report.opening import open_output
from enrich.report.pace import Pace

SAMPLES = Path(__file__).parent.parent.parent / "sample_catalogs"


def catalog(rows: int = 24) -> pl.DataFrame:
    return pl.read_parquet(SAMPLES / "home.parquet").head(rows)


def _read_in_batches_of(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (counting, showing):
        monkeypatch.setattr(module, "BATCH_ROWS", rows)


def test_what_is_counted_is_what_the_file_holds(enrich: Callable[..., Any], tmp_path: Path) -> None:
    rows = catalog().with_columns(description=pl.Series(["A person's words."] * 4 + [None] * 20))
    rows[5, "title"] = None
    summary = enrich(rows)
    report = gather(open_output(tmp_path / "out.parquet"))
    frame = pl.read_parquet(tmp_path / "out.parquet").unnest("generation")
    made = frame.filter(pl.col("status") == "generated")
    assert {count.name: count.rows for count in report.statuses} == {
        "generated": summary.generated, "kept": 4, "quarantined": summary.quarantined,
    }  # fmt: skip
    assert report.reconciles
    assert report.prompt_tokens.total == report.generated_tokens.total == report.words.total == summary.generated
    assert report.generated_tokens.mean == pytest.approx(made["generated_tokens"].mean(), abs=0.05)
    assert report.words.largest == made["description"].str.split(" ").list.len().max()
    assert {use.edge: use.rows for use in report.buckets} == dict(made.group_by("bucket").len().iter_rows())
    assert {count.name: count.rows for count in report.finish_reasons} == dict(
        made.group_by("finish_reason").len().iter_rows()
    )
    assert sum(moment.rows for moment in report.throughput.moments) == summary.generated
    assert report.quarantine.rows == summary.quarantined
    assert "no_title" in {count.name for count in report.quarantine.reasons}
    flags = dict(made.explode("flags").drop_nulls("flags").group_by("flags").len().iter_rows())
    assert {flag.name: flag.rows for flag in report.flags} == {name: n for name, n in flags.items() if name}


def test_buckets_tell_what_the_engine_spent(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(catalog())
    output = open_output(tmp_path / "out.parquet")
    spent = {one["edge"]: one for one in output.facts["buckets"]}
    for use in gather(output).buckets:
        computed = spent[use.edge]["prefill_positions"]
        assert computed < 1.5 * use.prompt_tokens  # on a CPU no prompt is padded, a few filler rows are all there is
        assert use.padding_waste == pytest.approx(1 - spent[use.edge]["prompt_tokens"] / computed, abs=1e-4)
        assert use.slot_use is not None
        assert 0 < use.slot_use <= 1
        assert use.tokens_per_second is not None
        assert use.tokens_per_second > 0
    assert sum(one["generated_tokens"] for one in spent.values()) == output.facts["summary"]["generated_tokens"]


def test_the_sample_follows_from_the_seed_alone(
    enrich: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrich(catalog())

    def drawn(seed: int) -> list[int]:
        return [row.row for row in gather(open_output(tmp_path / "out.parquet"), sample=6, seed=seed).sample]

    first = drawn(0)
    assert len(first) == 6
    assert first != drawn(1)
    _read_in_batches_of(5, monkeypatch)
    assert drawn(0) == first


def test_a_row_is_shown_with_its_own_text_whatever_its_row_group(
    enrich: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrich(catalog())
    whole = pq.read_table(tmp_path / "out.parquet")
    facts = pq.ParquetFile(tmp_path / "out.parquet").metadata.metadata
    pq.write_table(whole.replace_schema_metadata(facts), tmp_path / "groups.parquet", row_group_size=7)
    _read_in_batches_of(3, monkeypatch)
    report = gather(open_output(tmp_path / "groups.parquet"))
    assert len(report.sample) > 10
    for row in report.sample:
        there = whole.slice(row.row - 1, 1).to_pylist()[0]
        assert (row.id, row.title, row.text) == (there["sku"], there["title"], there["description"])
        assert "".join(piece.text for piece in row.pieces) == row.text


def test_the_night_before_stands_beside(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(catalog(), name="before.parquet")
    enrich(catalog(), name="out.parquet", seed=5)
    before = open_output(tmp_path / "before.parquet")
    report = gather(open_output(tmp_path / "out.parquet"), before=before)
    texts = dict(pl.read_parquet(tmp_path / "before.parquet").select("sku", "description").iter_rows())
    assert report.drift is not None
    assert report.drift.words is not None
    assert report.drift.words.total == before.facts["summary"]["generated"]
    assert all(row.before == (texts[row.id] or "") for row in report.sample)


def test_a_run_over_its_own_output_says_how_far_the_texts_have_moved(
    enrich: Callable[..., Any], tmp_path: Path
) -> None:
    first = enrich(catalog())
    enrich(catalog(), seed=5)
    report = gather(open_output(tmp_path / "out.parquet"))
    assert report.drift is not None
    assert report.drift.before_run_id == first.run_id
    assert report.drift.drift == report.summary["drift"]


def test_texts_that_stand_twice_are_found(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(catalog())
    table = pq.read_table(tmp_path / "out.parquet")
    facts = pq.ParquetFile(tmp_path / "out.parquet").metadata.metadata
    statuses = [one["status"] for one in table["generation"].to_pylist()]
    texts = [f"A lamp, {n} inches tall!" if n % 2 else f"Text {chr(97 + n)}" for n in range(len(table))]
    index = table.schema.get_field_index("description")
    table = table.set_column(index, table.schema.field(index), pa.array(texts, table.schema.field(index).type))
    pq.write_table(table.replace_schema_metadata(facts), tmp_path / "twice.parquet")
    found = gather(open_output(tmp_path / "twice.parquet")).duplicates
    assert found.near_texts == found.texts
    same = sum(status == "generated" and n % 2 for n, status in enumerate(statuses))
    assert (found.num_groups, found.rows) == (1, same)
    assert found.groups[0].rows == same


def test_the_data_are_json(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(catalog())
    report = gather(open_output(tmp_path / "out.parquet"))
    assert json.loads(json.dumps(dataclasses.asdict(report)))["rows"] == 24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "no such file"),
        (lambda path: path.write_text("no parquet"), "can't be read as Parquet"),
        (lambda path: pl.DataFrame({"a": [1]}).write_parquet(path), "not written by `enrich run`"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    make(tmp_path / "x.parquet")
    with pytest.raises(CatalogError, match=message):
        open_output(tmp_path / "x.parquet")


def test_a_histogram_loses_no_row_and_keeps_to_few_bins() -> None:
    counts = np.zeros(5_000, np.int64)
    counts[[3, 40, 41, 4_999]] = 5, 9_000, 1_000, 1
    found = histograms.of(counts)
    assert found.total == 10_006
    assert len(found.rows) <= 26
    assert (found.median, found.largest) == (40, 4_999)
    assert histograms.of(np.zeros(0, np.int64)).total == 0


def test_the_pace_of_a_long_run_has_few_stretches_and_its_pauses() -> None:
    pace = Pace()
    micro = [0, 10_000_000, 7_200_000_000]
    pace.add(pa.array(micro, pa.timestamp("us", tz="UTC")), pa.array([100, 50, 30], pa.int32()))
    found = pace.throughput()
    assert len(found.moments) <= 30
    assert sum(moment.rows for moment in found.moments) == 3
    assert found.moments[5].rows == 0


def test_texts_that_are_nearly_the_same_are_found(enrich: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    enrich(catalog())
    table = pq.read_table(tmp_path / "out.parquet")
    facts = pq.ParquetFile(tmp_path / "out.parquet").metadata.metadata
    long = "This sturdy table brings warmth to any room and holds books, lamps and keepsakes on a shelf below the top"
    texts = [f"{long}, made for the {word}." for word in ("hall", "den")]
    texts += [f"{chr(97 + n) * 3} {chr(98 + n) * 4} {chr(99 + n) * 5}" for n in range(len(table) - 2)]
    index = table.schema.get_field_index("description")
    table = table.set_column(index, table.schema.field(index), pa.array(texts, table.schema.field(index).type))
    pq.write_table(table.replace_schema_metadata(facts), tmp_path / "near.parquet")
    found = gather(open_output(tmp_path / "near.parquet")).duplicates
    assert [(group.rows, len(group.titles)) for group in found.near] == [(2, 2)]


HALF = {"rows": 1, "run_id": "x", "unchanged": False}
FORGERIES: list[Any] = [
    [], 7, "x", {"summary": 1, "roles": 2, "config": 3}, {"summary": {}, "roles": {}, "config": {}},
    {"summary": HALF, "roles": {"title": "gone"}, "config": {"output_column": "b"}},
    {"summary": HALF, "roles": {"shell": "sh"}, "config": {"output_column": "b"}},
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGERIES)
def test_a_file_that_only_says_it_is_an_output_is_refused_in_one_line(tmp_path: Path, forged: Any) -> None:
    table = pa.table({"title": ["Lamp"], "description": ["x"], "generation": ["generated"]})
    pq.write_table(table.replace_schema_metadata({"enrich.run": json.dumps(forged)}), tmp_path / "out.parquet")
    with pytest.raises(CatalogError, match=r"out\.parquet: (not written by|its metadata)") as caught:
        gather(open_output(tmp_path / "out.parquet"))
    assert len(str(caught.value).splitlines()) == 1
