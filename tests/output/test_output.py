from __future__ import annotations

import errno
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import CatalogError, ReconciliationError
from enrich.generation import GENERATION_TYPE, Generation
from enrich.output import OutputWriter, is_intact, output_schema, read_facts, read_texts

BATCH = pa.record_batch({"sku": ["a", "b"], "description": [None, "old"], "tags": [["x"], []]})
DONE = Generation("generated", key="k", seed=5, flags=("cut_to_sentence",), generated_at=datetime.now(UTC))


def columns(texts: list[str | None], generations: list[Generation]) -> tuple[pa.Array, pa.StructArray]:
    return pa.array(texts), pa.array([asdict(generation) for generation in generations], GENERATION_TYPE)


TWO = columns(["a", "b"], [DONE, DONE])


def test_a_present_text_column_keeps_its_place_and_a_new_one_comes_last() -> None:
    assert output_schema(BATCH.schema, "description").names == ["sku", "description", "tags", "generation"]
    assert output_schema(BATCH.schema, "text").names == ["sku", "description", "tags", "text", "generation"]


@pytest.mark.parametrize("kind", [pa.null(), pa.int64(), pa.dictionary(pa.int32(), pa.string())])
def test_the_text_column_is_text_whatever_it_was(kind: pa.DataType) -> None:
    assert output_schema(pa.schema([("description", kind)]), "description").field("description").type == pa.string()


def test_what_an_earlier_run_said_of_itself_is_not_taken_over_from_a_catalog(tmp_path: Path) -> None:
    source = BATCH.replace_schema_metadata({"owner": "shop", "enrich.run": '{"summary": {"rows": 99}}'})
    with OutputWriter(tmp_path / "out.parquet", source.schema, "description") as writer:
        writer.write(source, *TWO)
        writer.finish(2, {"summary": {"rows": 2}})
        writer.publish()
    assert read_facts(tmp_path / "out.parquet")["summary"] == {"rows": 2}
    assert pq.read_schema(tmp_path / "out.parquet").metadata[b"owner"] == b"shop"


@pytest.mark.parametrize("wide", [False, True])
def test_wide_rows_make_a_row_group_before_they_fill_memory(tmp_path: Path, monkeypatch, wide: bool) -> None:
    monkeypatch.setattr("enrich.output._ROW_GROUP_BYTES", 1_000 if wide else 1 << 30)
    with OutputWriter(tmp_path / "out.parquet", BATCH.schema, "description") as writer:
        for _ in range(50):
            writer.write(BATCH, *TWO)
        writer.finish(100, {})
        writer.publish()
    assert (pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 5) is wide


def test_source_columns_metadata_texts_and_facts_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    source = BATCH.replace_schema_metadata({"owner": "shop"})
    with OutputWriter(path, source.schema, "description") as writer:
        writer.write(source, *columns(["new", "old"], [DONE, Generation("kept")]))
        writer.finish(2, {"rows": 2})
        writer.publish()
    table = pq.read_table(path)
    assert table.drop_columns(["description", "generation"]).equals(
        pa.Table.from_batches([BATCH]).drop_columns("description")
    )
    assert table["description"].to_pylist() == ["new", "old"]
    assert table.schema.field("generation").type == GENERATION_TYPE
    assert table["generation"][0].as_py()["flags"] == ["cut_to_sentence"]
    assert table["generation"][1].as_py()["status"] == "kept"
    assert table.schema.metadata[b"owner"] == b"shop"
    facts = read_facts(path)
    assert facts["rows"] == 2
    assert is_intact(path, facts, "description")
    assert not is_intact(path, facts | {"texts": "0"}, "description")
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert [found.name for found in tmp_path.iterdir()] == ["out.parquet"]


def test_a_wrong_count_publishes_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"last night")
    with (
        pytest.raises(ReconciliationError, match="3 rows in, 2 written"),
        OutputWriter(path, BATCH.schema, "description") as writer,
    ):
        writer.write(BATCH, *TWO)
        writer.finish(3, {})
        writer.publish()
    assert path.read_bytes() == b"last night"
    assert [found.name for found in tmp_path.iterdir()] == ["out.parquet"]


def test_an_error_in_between_publishes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with pytest.raises(RuntimeError), OutputWriter(path, BATCH.schema, "description") as writer:
        writer.write(BATCH, *TWO)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    writer = OutputWriter(path, BATCH.schema, "description")
    writer.write(BATCH, *TWO)  # and no more: killed
    with OutputWriter(path, BATCH.schema, "description") as writer:
        writer.finish(0, {})
        writer.publish()
    assert [found.name for found in tmp_path.iterdir()] == ["out.parquet"]


def test_no_rows_make_a_file_with_the_same_schema(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with OutputWriter(path, BATCH.schema, "description") as writer:
        writer.finish(0, {})
        writer.publish()
    assert pq.read_table(path).num_rows == 0
    assert pq.read_schema(path).names == ["sku", "description", "tags", "generation"]


def test_texts_are_refused_from_a_file_of_another_make(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.Table.from_batches([BATCH]), path)
    with pytest.raises(CatalogError, match="not written by"):
        read_texts(path, 3)


def test_a_disk_too_full_to_close_the_file_is_not_filled_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: pq.ParquetWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "close", full)
    with (
        pytest.raises(OSError, match="No space"),
        OutputWriter(tmp_path / "out.parquet", BATCH.schema, "description") as writer,
    ):
        writer.finish(0, {})
    assert list(tmp_path.iterdir()) == []
