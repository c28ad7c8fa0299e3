"""What any writer of a format puts into a file comes out of it again, and no cell is too odd to become a product."""

from __future__ import annotations

import csv
import datetime
import io
import json
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.catalog import Catalog, RoleOptions, formats, jsonl
from enrich.catalog.formats import open_source
from enrich.errors import CatalogError

unhurried = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
texts_without_nul = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
longs = st.integers(-(2**63), 2**63 - 1)


def read(name: str, write: Callable[[Path], None], **options: Any) -> pa.Table:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        write(path)
        source = open_source(path, **options)
        table = pa.Table.from_batches(list(source.batches()), source.schema)
        assert table.equals(pa.Table.from_batches(list(source.batches()), source.schema)) or "nan" in str(
            table.to_pydict()
        )
        return table


@pytest.fixture(params=[7, 8192])
def batch_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, jsonl):
        monkeypatch.setattr(module, "BATCH_ROWS", request.param)


def or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


objects = st.fixed_dictionaries(
    {
        "title": or_none(texts),
        "int": or_none(longs),
        "float": or_none(st.floats(allow_nan=False)),
        "bool": or_none(st.booleans()),
        "list": or_none(st.lists(or_none(texts), max_size=3)),
        "object": or_none(st.fixed_dictionaries({"a": or_none(texts), "b": or_none(longs)})),
        "objects": or_none(st.lists(st.fixed_dictionaries({"k": or_none(texts)}), max_size=2)),
    }
)


@unhurried
@given(
    rows=st.lists(objects, min_size=1, max_size=12),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_json_lines(batch_rows: None, rows: list[dict[str, Any]], ascii_only: bool, end: str) -> None:
    content = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    assert read("x.jsonl", lambda path: path.write_bytes(content.encode())).to_pylist() == rows


@unhurried
@given(rows=st.lists(st.lists(texts_without_nul, min_size=3, max_size=3), max_size=8),
       delimiter=st.sampled_from(",;\t|"), end=st.sampled_from(["\n", "\r\n"]),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))  # fmt: skip
def test_csv(batch_rows: None, rows: list[list[str]], delimiter: str, end: str, encoding: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "title", "x"], *rows])
    try:
        table = read("x.csv", lambda path: path.write_bytes(text.getvalue().encode(encoding)), delimiter=delimiter)
    except CatalogError as error:
        assert "look like rows of their own" in str(error)
        return
    assert [list(row.values()) for row in table.to_pylist()] == rows


columns = st.sampled_from(
    [
        (pa.string(), texts), (pa.large_string(), texts), (pa.int8(), st.integers(-128, 127)),
        (pa.int64(), longs), (pa.uint64(), st.integers(0, 2**64 - 1)), (pa.float64(), st.floats(allow_nan=False)),
        (pa.bool_(), st.booleans()), (pa.binary(), st.binary(max_size=9)),
        (pa.date32(), st.dates()), (pa.timestamp("us"), st.datetimes(datetime.datetime(1900, 1, 1))),
        (pa.decimal128(20, 4), st.decimals(-10**10, 10**10, places=4)),
        (pa.list_(pa.string()), st.lists(st.none() | texts, max_size=3)),
        (pa.struct([("a", pa.string()), ("b", pa.list_(pa.int32()))]),
         st.fixed_dictionaries({"a": texts, "b": st.lists(st.integers(-9, 9), max_size=2)})),
        (pa.dictionary(pa.int32(), pa.string()), texts),
    ]
)  # fmt: skip


@unhurried
@given(data=st.data(), rows=st.integers(0, 20), group=st.integers(1, 9))
def test_parquet(batch_rows: None, data: st.DataObject, rows: int, group: int) -> None:
    made = {"title": pa.array([data.draw(or_none(texts)) for _ in range(rows)], pa.string())}
    for number, (kind, values) in enumerate(data.draw(st.lists(columns, max_size=4))):
        made[f"c{number}"] = pa.array([data.draw(or_none(values)) for _ in range(rows)], kind)
    table = pa.table(made)
    options = {
        "compression": data.draw(st.sampled_from(["none", "snappy", "zstd", "gzip"])),
        "data_page_version": data.draw(st.sampled_from(["1.0", "2.0"])),
        "use_dictionary": data.draw(st.booleans()),
    }
    found = read("x.parquet", lambda path: pq.write_table(table, path, row_group_size=group, **options))
    assert found.schema == table.schema
    assert found.to_pylist() == table.to_pylist()


nested = st.recursive(
    st.none() | texts | longs | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
pieces = st.lists(st.sampled_from([*"<>&;\"'[]{}|=:,/\\ a1", "key", "value", "=>", "&lt;", "<b>", "!--"]), max_size=25)
cells = texts | st.builds(json.dumps, nested) | st.builds("".join, pieces)


@unhurried
@given(st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=6))
def test_any_cell_becomes_plain_text(rows: list[tuple[str, ...]]) -> None:
    names = ["id", "title", "category", "features"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.parquet"
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
        [(_, products)] = Catalog(path, RoleOptions()).batches()
        for product in products:
            assert len(product.attributes) <= 24
            said = [product.id, product.title, product.category]
            said += [text for attribute in product.attributes for text in (attribute.name, attribute.value)]
            for text in said:
                assert text == text.strip()
                assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]


@pytest.mark.parametrize("depth", [31, 33, 200, 600, 990, 5_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('{"value":', "}")])
def test_a_cell_nested_without_end_is_no_end_of_the_run(tmp_path: Path, depth: int, begin: str, end: str) -> None:
    cell = begin * depth + '"x"' + end * depth
    pq.write_table(pa.table({"title": ["Lamp"], "features": [f'{{"a": {cell}}}'], "category": [f'["b", {cell}]']}),
                   tmp_path / "x.parquet")  # fmt: skip
    [(_, products)] = Catalog(tmp_path / "x.parquet", RoleOptions()).batches()
    assert products[0].title == "Lamp"
    assert len(products[0].attributes) <= 1
