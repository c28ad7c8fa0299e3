"""Every nasty row and file ends in a whole output or in one line that says what to do; never in a traceback."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nasty
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich import RunConfig, checking, job
from enrich.catalog import RoleOptions
from enrich.catalog.formats import open_source
from enrich.engine.tokenizer import Tokenizer
from enrich.errors import EnrichError
from enrich.output import read_facts
from enrich.output.quarantine import quarantine_path, read_quarantine
from enrich.stages import setup

pytestmark = pytest.mark.slow

ROWS = nasty.rows()
FILES = list(nasty.files())
SCHEMA = pa.schema([(role, pa.string()) for role in nasty.ROLES])


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load a tokenizer once for all runs of this file."""
    monkeypatch.setattr(setup, "Tokenizer", _tokenizer)


_TOKENIZERS: dict[Any, Tokenizer] = {}


def _tokenizer(files: Any, chat: bool = False) -> Tokenizer:
    key = (files.directory, chat)
    if key not in _TOKENIZERS:
        _TOKENIZERS[key] = Tokenizer(files, chat)
    return _TOKENIZERS[key]


def test_there_are_a_thousand_and_more() -> None:
    assert len(ROWS) >= 1_000
    assert len(FILES) >= 150
    assert nasty.rows() == ROWS


def assert_whole(output: Path, catalog: Path, **options: Any) -> pa.Table:
    """See that an output has its catalog's rows and columns, in their order and as they were."""
    source = open_source(catalog, **options)
    table = pq.read_table(output)
    batches = list(source.batches())
    expected = pa.Table.from_batches(batches, source.schema)
    for name in source.schema.names:
        if name != "description":
            assert table[name].type == expected[name].type, name
            assert _comparable(table[name]).equals(_comparable(expected[name])), name
    told = job.Summary(**read_facts(output)["summary"])
    statuses = Counter(table["generation"].combine_chunks().field("status").to_pylist() if len(table) else [])
    assert told.rows == len(table) == len(expected) == statuses.total()
    counted = ("generated", "reused", "kept", "quarantined", "skipped", "pending")
    assert {name: getattr(told, name) for name in counted if getattr(told, name)} == statuses
    return table


def _comparable(column: pa.ChunkedArray) -> pa.Array:
    """Return a column that can be compared: not a number is no number, not even itself, but its bits are."""
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
    if pa.types.is_floating(column.type):
        return whole.view({16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[column.type.bit_width])
    return whole


def assert_one_line(error: EnrichError, catalog: Path) -> str:
    """See that an error is one line of bounded length that names the file; return it without the name."""
    message = str(error)
    assert error.exit_code in (2, 3)
    assert len(message) < 800
    assert message.splitlines() == [message]
    assert catalog.stem in message
    return message


@pytest.mark.parametrize("number", range(len(FILES)), ids=lambda number: f"{number}-{FILES[number].name}")
def test_a_nasty_file_is_read_or_refused(enrich, tmp_path: Path, number: int) -> None:
    file = FILES[number]
    catalog = tmp_path / file.name
    catalog.write_bytes(file.content)
    options = dict(file.options)
    try:
        summary = enrich(catalog, max_new_tokens=2, max_quarantined="100%", **options)
    except EnrichError as error:
        message = assert_one_line(error, catalog)
        assert error.exit_code == 2
        assert file.titles is None, message
        assert re.search(file.refusal or "", message)
        with pytest.raises(type(error), match=re.escape(message)):  # a plan refuses what a run refuses
            job.foresee(RunConfig(str(catalog), str(tmp_path / "plan.parquet"), **options))
        left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} - {"models"}
        assert left == {file.name}
        return
    assert file.refusal is None
    table = assert_whole(Path(summary.output), catalog)
    if file.titles is not None:
        name = read_facts(Path(summary.output))["roles"]["title"]
        values = [value.decode() if isinstance(value, bytes) else value for value in table[name].to_pylist()]
        assert values == list(file.titles)


FORMATS = ("parquet", "csv", "jsonl")


@pytest.fixture(scope="module", params=FORMATS)
def nasty_rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nasty rows as one catalog."""
    path = tmp_path_factory.mktemp("rows") / f"rows.{request.param}"
    table = pa.Table.from_pylist(ROWS, SCHEMA)
    if request.param == "parquet":
        pq.write_table(table, path)
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    else:  # a NUL is refused in a CSV, which no cell here has but random ones may
        clean = [{name: (text or "").replace("\0", "") for name, text in row.items()} for row in ROWS]
        pl.DataFrame(clean, schema=dict.fromkeys(nasty.ROLES, pl.String)).write_csv(path, quote_style="always")
    return path


def test_nasty_rows_come_out_as_they_went_in(enrich, nasty_rows: Path, tmp_path: Path, monkeypatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = Tokenizer.encode

    def encode(self: Tokenizer, texts: Any, systems: Any = None) -> list[list[int]]:
        ids = real(self, texts, systems)
        seen.extend(map(tuple, ids))
        return ids

    monkeypatch.setattr(Tokenizer, "encode", encode)
    summary = enrich(nasty_rows, max_new_tokens=2, commit_rows=500, max_quarantined="100%")
    table = assert_whole(Path(summary.output), nasty_rows)
    assert summary.rows == len(ROWS)
    assert summary.generated > 800
    assert summary.kept > 100
    # Special tokens are text: no prompt has a token that plain text does not make. Id 0 is the only special one.
    assert len(seen) > 800
    assert not [ids for ids in seen if 0 in ids]
    old = [row["description"] for row in ROWS]
    generation = table["generation"].combine_chunks()
    for before, after, status in zip(
        old, table["description"].to_pylist(), generation.field("status").to_pylist(), strict=True
    ):
        if status == "kept":
            assert after == ((before or "") if nasty_rows.suffix != ".csv" else (before or "").replace("\0", ""))
    for line in read_quarantine(quarantine_path(Path(summary.output))):
        assert line["reasons"][0] in ("no_title", "prompt_too_long", "empty")
    if nasty_rows.suffix == ".parquet":
        again = enrich(nasty_rows, max_new_tokens=2, commit_rows=500, max_quarantined="100%")
        assert again.unchanged


@pytest.mark.parametrize("nasty_rows", ["jsonl"], indirect=True)
def test_nasty_descriptions_are_checked(nasty_rows: Path) -> None:
    report = checking.check(nasty_rows, RoleOptions(), examples=1000)
    assert report.texts > 100
    assert report.failing > 50
    json.dumps([example.reason for broken in report.rules for example in broken.examples], ensure_ascii=False).encode()


@pytest.mark.parametrize("nasty_rows", ["csv"], indirect=True)
def test_nasty_rows_are_planned(nasty_rows: Path, tmp_path: Path, tiny_gpt2: Path) -> None:
    config = RunConfig(str(nasty_rows), str(tmp_path / "out.parquet"), model=str(tiny_gpt2), max_new_tokens=2)
    plan = job.foresee(config)
    assert plan.rows == len(ROWS)
    assert plan.pending + plan.kept + plan.skipped + sum(plan.unusable.values()) == plan.rows
    assert {path.name for path in tmp_path.iterdir()} <= {".out.parquet.lock"}


@pytest.mark.parametrize(
    "options", [{"seo": True, "channels": ("amazon", "google", "shopify")}, {"strict_facts": True}]
)
def test_nasty_rows_with_all_that_can_be_asked_for(enrich, tmp_path: Path, options: dict[str, Any]) -> None:
    # With the rules on; texts of random weights break them, so nearly all end in quarantine.
    catalog = tmp_path / "catalog.parquet"
    some = [row for row in ROWS if max((len(text or "") for text in row.values()), default=0) < 5_000]
    pq.write_table(pa.Table.from_pylist(some[::3] + ROWS[-40:], SCHEMA), catalog)
    summary = enrich(catalog, max_new_tokens=4, rules=None, max_attempts=1, max_quarantined="100%", **options)
    assert_whole(Path(summary.output), catalog)


def test_a_report_on_nasty_rows_can_be_written(enrich, tmp_path: Path) -> None:
    from enrich.report import gather, opening

    catalog = tmp_path / "catalog.parquet"
    pq.write_table(pa.Table.from_pylist([*ROWS[::5], *ROWS[-30:]], SCHEMA), catalog)
    summary = enrich(catalog, max_new_tokens=2, commit_rows=500, max_quarantined="100%")
    found = gather.gather(opening.open_output(Path(summary.output)), sample=400)
    assert found.reconciles
    pages = pytest.importorskip("enrich.report.page")
    page = pages.render(found)
    assert "<script>alert(1)" not in page
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", page)


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make blocks small, so that nasty rows lie across them."""
    from enrich.catalog import formats, jsonl

    monkeypatch.setattr(formats, "CHUNK", 4096)
    for module in (formats, jsonl):
        monkeypatch.setattr(module, "BATCH_ROWS", 7)
    yield


@pytest.mark.usefixtures("cut_short")
def test_nasty_rows_across_blocks_are_the_same(nasty_rows: Path) -> None:
    source = open_source(nasty_rows)
    table = pa.Table.from_batches(list(source.batches()), source.schema)
    expected = [row["title"] for row in ROWS]
    if nasty_rows.suffix == ".csv":
        expected = [(title or "").replace("\0", "") for title in expected]
    assert table["title"].to_pylist() == expected
