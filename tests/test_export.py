"""The flat form of an output, read by the tools that it is for."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import CatalogError, ConfigError
from enrich.export import export
from enrich.generation import GENERATION_TYPE
from enrich.output import METADATA_KEY, read_facts

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"


@pytest.fixture
def enriched(enrich, tmp_path: Path) -> Path:
    strange = {"title": ['A "quoted" lamp, gray', "Ünïcode\nvase", None], "tags": [["a", "b"], [], None]}
    nested = {"parts": [{"legs": 4}, None, {"legs": None}], "description": [None, "Kept, as it is.", None]}
    enrich(pl.DataFrame(strange | nested))
    return tmp_path / "out.parquet"


def rewrite(path: Path, table: pa.Table, source: Path) -> None:
    """Write a table as if a run had written it."""
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(read_facts(source))}), path)


def flat(row: dict) -> dict:
    generation = row.pop("generation")
    return row | {f"generation_{name}": value for name, value in generation.items()}


def test_every_row_and_value_is_there_in_each_form(enriched: Path, tmp_path: Path) -> None:
    expected = [flat(row) for row in pq.read_table(enriched).to_pylist()]
    for row in expected:
        row["tags"] = None if row["tags"] is None else ", ".join(row["tags"])
        row["parts"] = None if row["parts"] is None else json.dumps(row["parts"])
        row["generation_flags"] = ", ".join(row["generation_flags"])
    for name in ("flat.parquet", "flat.csv", "flat.csv.gz", "flat.jsonl", "flat.jsonl.gz"):
        assert export(enriched, tmp_path / name) == 3
    assert pq.read_table(tmp_path / "flat.parquet").to_pylist() == expected

    for name, opened in (("flat.csv", open), ("flat.csv.gz", gzip.open)):
        with opened(tmp_path / name, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["title"] for row in rows] == ['A "quoted" lamp, gray', "Ünïcode\nvase", ""]
        assert [row["generation_status"] for row in rows] == [row["generation_status"] for row in expected]
        assert list(rows[0]) == list(expected[0])
    lines = (tmp_path / "flat.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["tags"] for line in lines] == ["a, b", "", None]
    assert gzip.decompress((tmp_path / "flat.jsonl.gz").read_bytes()).decode().splitlines() == lines
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_rows_of_some_status_and_the_catalog_s_columns_alone(enriched: Path, tmp_path: Path) -> None:
    assert export(enriched, tmp_path / "kept.csv", statuses=["kept"], generation=False) == 1
    frame = pl.read_csv(tmp_path / "kept.csv")
    assert frame.columns == ["title", "tags", "parts", "description"]
    assert frame["description"].to_list() == ["Kept, as it is."]


def test_a_large_output_is_written_batch_by_batch(enrich, tmp_path: Path) -> None:
    enrich(HOME, limit=5)
    table = pq.read_table(tmp_path / "out.parquet")
    rewrite(tmp_path / "large.parquet", pa.concat_tables([table] * 8_000), tmp_path / "out.parquet")
    assert export(tmp_path / "large.parquet", tmp_path / "large.csv") == 40_000
    assert pl.scan_csv(tmp_path / "large.csv").select(pl.len()).collect().item() == 40_000


def test_what_can_t_be_written(enriched: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.csv, "):
        export(enriched, tmp_path / "flat.xlsx")
    with pytest.raises(ConfigError, match="the enriched file itself"):
        export(enriched, enriched)
    with pytest.raises(CatalogError, match="not written by `enrich run`"):
        export(HOME, tmp_path / "flat.csv")
    table = pq.read_table(enriched)
    both = table.append_column("generation_key", pa.array(["x"] * 3))
    rewrite(tmp_path / "both.parquet", both, enriched)
    with pytest.raises(ConfigError, match="'generation_key' would be there twice"):
        export(tmp_path / "both.parquet", tmp_path / "flat.csv")
    assert export(tmp_path / "both.parquet", tmp_path / "flat.csv", generation=False) == 3


def test_the_record_has_no_nested_field_but_its_flags() -> None:
    nested = [field.name for field in GENERATION_TYPE if pa.types.is_nested(field.type)]
    assert nested == ["flags"]
