"""The output in others' hands: DuckDB, pandas, polars, pyarrow's datasets, and what Spark's reader asks of a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from enrich.export import export

PAGE = Path(__file__).parents[2] / "docs" / "output.md"
CATALOG = pl.DataFrame(
    {
        "sku": ["A1", "A2", "A3"],
        "title": ['Oak "Halden" table, 2 drawers', "Ünïcode\nvase", None],
        "price": [19.5, None, 3.0],
        "description": [None, "Kept, as it is.", None],
    }
)
Rows = list[tuple[str | None, ...]]
FLAT = ["sku", "title", "description", "generation_status", "generation_seed"]


@pytest.fixture
def output(enrich, tmp_path: Path) -> Path:
    enrich(CATALOG, seo=True, channels=("amazon", "google", "shopify"))
    return tmp_path / "out.parquet"


@pytest.fixture
def expected(output: Path) -> Rows:
    rows = pq.read_table(output).to_pylist()
    statuses = [row["generation"]["status"] for row in rows]
    assert statuses == ["generated", "kept", "quarantined"]
    return [(row["sku"], row["title"], row["description"], row["generation"]["status"]) for row in rows]


def in_duckdb(path: Path) -> Rows:
    return duckdb.sql(f"SELECT sku, title, description, generation.status FROM '{path}'").fetchall()


def in_polars(path: Path) -> Rows:
    status = pl.col("generation").struct.field("status")
    return pl.scan_parquet(path).select("sku", "title", "description", status).collect().rows()


def in_pandas(path: Path) -> Rows:
    frame = pd.read_parquet(path)
    frame["status"] = frame["generation"].map(lambda record: record["status"])
    return plain(frame[["sku", "title", "description", "status"]])


def in_dataset(path: Path) -> Rows:
    columns = {name: ds.field(name) for name in ("sku", "title", "description")}
    table = ds.dataset(path).to_table(columns | {"status": ds.field("generation", "status")})
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("read", [in_duckdb, in_polars, in_pandas, in_dataset])
def test_each_reads_texts_and_the_record_s_fields(read: Callable[[Path], Rows], output: Path, expected: Rows) -> None:
    assert read(output) == expected


TYPES = {
    "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(),
    "timestamp, µs, UTC": pa.timestamp("us", "UTC"), "list of strings": pa.list_(pa.string()),
    "list": pa.list_(pa.string()),
}  # fmt: skip


def types_told() -> dict[str, pa.DataType]:
    """Every column and field in the tables of docs/output.md that has a type of TYPES."""
    told = {}
    for names, cell in re.findall(r"^\| (`.*?) \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.M):
        columns, kind = re.findall(r"`(\w+)`", names), cell.removesuffix(", never null")
        kinds = [kind] * len(columns) if kind in TYPES else kind.split(", ")
        if set(kinds) <= set(TYPES):
            told.update(zip(columns, map(TYPES.__getitem__, kinds), strict=True))
    return told


def test_the_types_are_those_that_the_docs_name(output: Path) -> None:
    schema = pq.read_schema(output)
    record = list(schema.field("generation").type)
    added = [field for field in schema if field.name not in {*CATALOG.columns, "generation"}]
    found = {field.name: field.type for field in [schema.field("description"), *record, *added]}
    told = types_told()
    assert len(found) == 29
    # The catalog's own text column may be one of large strings, which are the same in a file.
    assert {name: pa.string() if kind == pa.large_string() else kind for name, kind in found.items()} == told


def test_sql_knows_the_types(output: Path) -> None:
    types = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE FROM '{output}')").fetchall())
    assert types["description"] == "VARCHAR"
    record = types["generation"].replace('"', "")  # words of SQL are quoted, which they are depends on the version
    assert record.startswith("STRUCT(status VARCHAR, key VARCHAR, model VARCHAR")
    assert "flags VARCHAR[], generated_at TIMESTAMP WITH TIME ZONE" in record
    counted = duckdb.sql(
        f"SELECT generation.status, count(*) FROM '{output}' WHERE generation.seed IS NOT NULL GROUP BY 1"
    ).fetchall()
    assert counted == [("generated", 1)]


def plain(frame: pd.DataFrame) -> Rows:
    return [tuple(None if pd.isna(value) else value for value in row) for row in frame.itertuples(index=False)]


def arrow_rows(table: pa.Table) -> Rows:
    return [tuple(row.values()) for row in table.select(FLAT).to_pylist()]


def csv_dataset(path: Path) -> ds.Dataset:
    options = csv.ParseOptions(newlines_in_values=True)
    convert = csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=True)
    return ds.dataset(path, format=ds.CsvFileFormat(options, convert_options=convert))


FLAT_READERS: dict[tuple[str, str], Callable[[Path], Rows]] = {
    ("duckdb", "csv"): lambda path: duckdb.sql(f"SELECT {', '.join(FLAT)} FROM read_csv('{path}')").fetchall(),
    ("duckdb", "jsonl"): lambda path: duckdb.sql(f"SELECT {', '.join(FLAT)} FROM read_json('{path}')").fetchall(),
    ("duckdb", "parquet"): lambda path: duckdb.sql(f"SELECT {', '.join(FLAT)} FROM '{path}'").fetchall(),
    ("polars", "csv"): lambda path: pl.read_csv(path).select(FLAT).rows(),
    ("polars", "jsonl"): lambda path: pl.read_ndjson(path).select(FLAT).rows(),
    ("polars", "parquet"): lambda path: pl.read_parquet(path).select(FLAT).rows(),
    ("pandas", "csv"): lambda path: plain(pd.read_csv(path, dtype_backend="pyarrow")[FLAT]),
    # Its own reader rounds whole numbers beside nulls to floats.
    ("pandas", "jsonl"): lambda path: plain(
        pd.read_json(path, lines=True, engine="pyarrow", dtype_backend="pyarrow")[FLAT]
    ),
    ("pandas", "parquet"): lambda path: plain(pd.read_parquet(path, dtype_backend="pyarrow")[FLAT]),
    ("pyarrow", "csv"): lambda path: arrow_rows(csv_dataset(path).to_table()),
    ("pyarrow", "jsonl"): lambda path: arrow_rows(ds.dataset(path, format="json").to_table()),
    ("pyarrow", "parquet"): lambda path: arrow_rows(ds.dataset(path).to_table()),
}


def test_the_flat_form_has_the_same_rows_in_each(output: Path, expected: Rows, tmp_path: Path) -> None:
    seeds = [row["generation"]["seed"] for row in pq.read_table(output).to_pylist()]
    wanted = [(*row, seed) for row, seed in zip(expected, seeds, strict=True)]
    for kind in ("csv", "jsonl", "parquet"):
        export(output, tmp_path / f"flat.{kind}")
    found = {who: read(tmp_path / f"flat.{who[1]}") for who, read in FLAT_READERS.items()}
    assert found == dict.fromkeys(FLAT_READERS, wanted)


# Spark's Parquet reader: no timestamps in nanoseconds, no time of day, no unsigned 64-bit numbers but as decimals,
# no column without a type,
# and, before Spark 3.3, no name with one of these.
REFUSED_IN_NAMES = re.compile(r"[ ,;{}()\n\t=]")


def columns_that_spark_refuses(path: Path) -> list[str]:
    schema = pq.ParquetFile(path).schema
    refused = []
    for column in (schema.column(place) for place in range(len(schema))):
        kind = str(column.logical_type)
        wrong = "nanoseconds" in kind or "isSigned=false" in kind or kind.startswith(("Time(", "Float16", "Null"))
        if wrong or REFUSED_IN_NAMES.search(column.path) or column.physical_type == "INT96":
            refused.append(column.path)
    return refused


def test_spark_can_read_what_a_run_adds(output: Path, tmp_path: Path) -> None:
    assert columns_that_spark_refuses(output) == []
    export(output, tmp_path / "flat.parquet")
    assert columns_that_spark_refuses(tmp_path / "flat.parquet") == []
    names = [name.lower() for name in pq.read_schema(output).names]
    assert len(set(names)) == len(names)  # Spark, as all SQL, knows two for one that differ in capitals alone


def test_what_spark_refuses_is_seen(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "nano": pa.array([1], pa.timestamp("ns")), "unsigned": pa.array([1], pa.uint64()), "good": pa.array(["a"]),
        "of day": pa.array([1], pa.int32()), "micro": pa.array([1], pa.timestamp("us", "UTC")),
        "nothing": pa.nulls(1),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert columns_that_spark_refuses(tmp_path / "x.parquet") == ["nano", "unsigned", "of day", "nothing"]


def test_a_column_of_descriptions_is_filled_whatever_its_capitals(enrich, tmp_path: Path) -> None:
    enrich(CATALOG.rename({"title": "Title", "description": "Description"}))
    path = tmp_path / "out.parquet"
    assert pq.read_schema(path).names == ["sku", "Title", "price", "Description", "generation"]
    texts = [text for (text,) in duckdb.sql(f"SELECT description FROM '{path}'").fetchall()]
    assert texts[0]
    assert texts[1:] == ["Kept, as it is.", None]
    again = enrich(CATALOG.rename({"title": "Title", "description": "Description"}))
    assert again.unchanged


def test_columns_that_sql_can_t_tell_apart_are_told(enrich, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    enrich(CATALOG.with_columns(pl.lit("third").alias("Generation")))
    assert "columns that differ in capitals alone are one to SQL: Generation, generation" in caplog.text
