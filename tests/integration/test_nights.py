"""Night after night: what has not changed is carried over, people's words stay, and the scheduler learns the truth."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import enrich as command

from enrich import RunConfig, job, reuse
from enrich.engine import continuous
from enrich.engine.protocol import Completion
from enrich.errors import CatalogError, ConfigError, ReconciliationError, TooManyQuarantined, TooMuchDrift, TryAgain
from enrich.output.quarantine import quarantine_path, read_quarantine
from enrich.stages import setup
from enrich.status import read_status as status_of
from enrich.storage import lock

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).parents[2] / "sample_catalogs"


@pytest.fixture
def frame() -> pl.DataFrame:
    return pl.read_parquet(SAMPLES / "home.parquet").with_columns(description=pl.lit(None, pl.String)).head(40)


def read(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path)


def status(frame: pl.DataFrame) -> dict[str, str]:
    return dict(zip(frame["sku"], frame["generation"].struct.field("status"), strict=True))


def by_id(frame: pl.DataFrame) -> dict[str, str]:
    return dict(zip(frame["sku"], frame["description"], strict=True))


def edit_text(path: Path, sku: str, text: str) -> None:
    """Change a text in a published file as a person with a notebook would: all else stays."""
    table = pq.read_table(path)
    rows = zip(table["sku"].to_pylist(), table["description"].to_pylist(), strict=True)
    texts = [text if row == sku else old for row, old in rows]
    index = table.schema.get_field_index("description")
    table = table.set_column(index, table.schema.field(index), pa.array(texts, table.schema.field(index).type))
    facts = pq.ParquetFile(path).metadata.metadata[b"enrich.run"]
    pq.write_table(table.replace_schema_metadata({"enrich.run": facts}), path)


def next_night(frame: pl.DataFrame) -> tuple[pl.DataFrame, set[str], str]:
    """Edit 3 rows, insert 2 at the top, remove 1, reorder the rest."""
    removed = frame["sku"][20]
    edited = set(frame["sku"][[3, 17, 30]])
    changed = frame.filter(pl.col("sku") != removed).with_columns(
        color=pl.when(pl.col("sku").is_in(list(edited))).then(pl.lit("Ultramarine")).otherwise("color")
    )
    shuffled = changed[random.Random(5).sample(range(len(changed)), len(changed))]
    new = frame.head(2).with_columns(sku=pl.Series(["NEW-1", "NEW-2"]))
    return pl.concat([new, shuffled]), edited, removed


@pytest.mark.parametrize("partition_rows", [65_536, 7])
def test_only_what_changed_is_generated(
    enrich, frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition_rows: int
) -> None:
    monkeypatch.setattr(reuse, "_BATCH_ROWS", partition_rows)
    enrich(frame)
    before = read(tmp_path / "out.parquet")
    catalog, edited, removed = next_night(frame)
    summary = enrich(catalog, changes=str(tmp_path / "changes.parquet"))
    after = read(tmp_path / "out.parquet")
    assert (summary.generated, summary.reused, summary.rows) == (5, len(frame) - 4, len(frame) + 1)
    assert after["sku"].to_list() == catalog["sku"].to_list()
    made = {sku for sku, state in status(after).items() if state == "generated"}
    assert made == edited | {"NEW-1", "NEW-2"}
    old, new = by_id(before), by_id(after)
    assert all(new[sku] == old[sku] for sku in new if sku not in made)
    kept = before.filter(~pl.col("sku").is_in([*edited, removed])).sort("sku")["generation"].struct.unnest()
    again = after.filter(~pl.col("sku").is_in(list(made))).sort("sku")["generation"].struct.unnest()
    assert kept.drop("status").equals(again.drop("status"))

    changes = read(tmp_path / "changes.parquet")
    found = dict(zip(changes["sku"], changes["change"], strict=True))
    differ = {sku for sku in edited if new[sku] != old[sku]}
    assert found == dict.fromkeys(differ, "changed") | {"NEW-1": "added", "NEW-2": "added", removed: "removed"}
    assert all(row["description"] == new[row["sku"]] for row in changes.iter_rows(named=True) if row["sku"] != removed)
    enrich(catalog, "fresh.parquet")
    assert by_id(read(tmp_path / "fresh.parquet")) == new
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [
        "catalog.parquet", "changes.parquet", "fresh.parquet", "out.parquet",
    ]  # fmt: skip


def test_an_unchanged_catalog_is_left_alone(
    enrich, frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = enrich(frame)
    stat = (tmp_path / "out.parquet").stat()
    monkeypatch.setattr(setup, "load_model", None)
    monkeypatch.setattr(setup, "Tokenizer", None)
    summary = enrich(frame, changes=str(tmp_path / "changes.parquet"))
    assert summary.unchanged
    assert (summary.generated, summary.reused, summary.rows) == (0, first.generated, first.rows)
    assert (tmp_path / "out.parquet").stat().st_mtime_ns == stat.st_mtime_ns
    assert read(tmp_path / "changes.parquet").is_empty()
    monkeypatch.undo()

    frame.write_csv(tmp_path / "same.csv")  # other bytes, other types: published anew, though no text is
    again = enrich(tmp_path / "same.csv")
    assert (again.unchanged, again.generated, again.reused) == (False, 0, first.generated)
    enrich(frame)
    frame.write_parquet(tmp_path / "same.parquet", compression="gzip")  # other bytes, the same rows
    stat = (tmp_path / "out.parquet").stat()
    assert enrich(tmp_path / "same.parquet").unchanged
    assert (tmp_path / "out.parquet").stat().st_mtime_ns == stat.st_mtime_ns


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_missing_is_told_though_nothing_has_changed(enrich, frame: pl.DataFrame) -> None:
    enrich(frame.head(3))
    with pytest.raises(ConfigError, match="device cuda"):
        enrich(frame.head(3), device="cuda")


def test_other_options_are_not_unchanged(enrich, frame: pl.DataFrame) -> None:
    enrich(frame.head(8))
    assert enrich(frame.head(8), seed=1).generated == 8
    assert enrich(frame.head(8), seed=1).unchanged
    assert enrich(frame.head(8), seed=1, fresh=True).generated == 8


@pytest.mark.parametrize("is_row_changed", [False, True])
def test_a_text_that_a_person_edited_is_kept(enrich, frame: pl.DataFrame, tmp_path: Path, is_row_changed: bool) -> None:
    enrich(frame)
    sku = frame["sku"][5]
    edit_text(tmp_path / "out.parquet", sku, "Words of a person.")
    if is_row_changed:
        frame = frame.with_columns(color=pl.when(pl.col("sku") == sku).then(pl.lit("Puce")).otherwise("color"))
    for _ in range(2):
        summary = enrich(frame)
        out = read(tmp_path / "out.parquet")
        assert by_id(out)[sku] == "Words of a person."
        assert status(out)[sku] == "kept"
        assert summary.unchanged or (summary.edited, summary.kept, summary.generated) == (1, 1, 0)
    enrich(frame[::-1], overwrite=True)
    assert by_id(read(tmp_path / "out.parquet"))[sku] == "Words of a person."
    enrich(frame, fresh=True)
    assert by_id(read(tmp_path / "out.parquet"))[sku] != "Words of a person."


def test_words_put_where_the_model_had_none_are_kept(
    enrich, frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mute(continuous.ContinuousEngine):
        def generate(self, requests: Any, *_: Any):
            yield from ((index, Completion((), "stop")) for index, _ in enumerate(requests))

    monkeypatch.setattr(continuous, "ContinuousEngine", Mute)
    assert enrich(frame.head(3), max_quarantined="100%").quarantined == 3
    edit_text(tmp_path / "out.parquet", frame["sku"][1], "Words of a person.")
    summary = enrich(frame.head(3), max_quarantined="100%")
    assert (summary.kept, summary.edited, summary.quarantined) == (1, 1, 2)
    assert read(tmp_path / "out.parquet")["description"].to_list() == [None, "Words of a person.", None]


def test_an_edited_text_goes_to_its_own_row_among_those_that_share_an_id(
    enrich, frame: pl.DataFrame, tmp_path: Path
) -> None:
    shared = frame.head(4).with_columns(sku=pl.lit("SAME"))
    enrich(shared)
    out = pq.read_table(tmp_path / "out.parquet")
    before = out["description"].to_pylist()
    texts = [*before[:2], "Words of a person.", before[3]]
    facts = pq.ParquetFile(tmp_path / "out.parquet").metadata.metadata[b"enrich.run"]
    out = out.set_column(out.schema.get_field_index("description"), "description", pa.array(texts))
    pq.write_table(out.replace_schema_metadata({"enrich.run": facts}), tmp_path / "out.parquet")
    assert enrich(shared).edited == 1
    assert read(tmp_path / "out.parquet")["description"].to_list() == texts


def rewritten(path: Path, change: Callable[[pa.Table, dict[str, Any]], pa.Table]) -> None:
    table, facts = pq.read_table(path), json.loads(pq.ParquetFile(path).metadata.metadata[b"enrich.run"])
    table = change(table, facts)
    pq.write_table(table.replace_schema_metadata({"enrich.run": json.dumps(facts)} if facts else None), path)


def of_another_version(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    facts["versions"]["enrich"] = facts["fingerprint"]["enrich version"] = "0.0.9"
    return table


def without_generation(table: pa.Table, _: dict[str, Any]) -> pa.Table:
    return table.drop_columns(["generation"])


def with_a_strange_one(table: pa.Table, _: dict[str, Any]) -> pa.Table:
    return table.drop_columns(["generation"]).append_column("generation", pa.array(["?"] * len(table)))


def without_facts(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    facts.clear()
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_another_version, "has the texts of version 0.0.9: they are generated anew by"),
        (without_generation, "no column 'generation'"),
        (with_a_strange_one, "no column 'generation'"),
        (without_facts, "was not written by `enrich run`"),
        (None, "can't be read"),
    ],
)
def test_a_file_that_can_t_be_trusted_is_not_reused(
    enrich, frame: pl.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture, change, message: str
) -> None:
    enrich(frame.head(6))
    path = tmp_path / "out.parquet"
    if change:
        rewritten(path, change)
    else:
        path.write_bytes(path.read_bytes()[:-100])
    assert enrich(frame.head(6)).generated == 6
    assert message in caplog.text


def test_previous_names_another_file(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    enrich(frame, "a.parquet")
    assert enrich(frame.head(30), "b.parquet", previous=str(tmp_path / "a.parquet")).reused == 30
    with pytest.raises(Exception, match="no such file"):
        enrich(frame, "c.parquet", previous=str(tmp_path / "gone.parquet"))


def test_changes_need_ids(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--id-column"):
        enrich(frame.drop("sku"), changes=str(tmp_path / "c.parquet"))


class SlowEngine(continuous.ContinuousEngine):
    def generate(self, *arguments: Any):
        for numbered in super().generate(*arguments):
            time.sleep(0.15)
            yield numbered


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "ContinuousEngine", SlowEngine)


def test_when_time_is_up_the_rest_waits_for_the_next_run(enrich, frame: pl.DataFrame, tmp_path: Path, slow) -> None:
    started = time.monotonic()
    with pytest.raises(TryAgain, match=r"time is up: .* rows are done and committed"):
        enrich(frame, max_time="3s", batch_size=4)
    assert time.monotonic() - started < 20
    assert not (tmp_path / "out.parquet").exists()
    summary = enrich(frame)
    assert 0 < summary.resumed_rows < len(frame)
    enrich(frame, "whole.parquet")
    assert by_id(read(tmp_path / "out.parquet")) == by_id(read(tmp_path / "whole.parquet"))


def test_what_is_there_can_be_published(enrich, frame: pl.DataFrame, tmp_path: Path, slow) -> None:
    with pytest.raises(TryAgain, match="rows pending"):
        enrich(frame, max_time="3s", batch_size=4, publish_partial=True)
    part = read(tmp_path / "out.parquet")
    states = list(status(part).values())
    assert 0 < states.count("pending") < len(frame)
    assert [text is None for text in part["description"]] == [state == "pending" for state in states]
    changed = frame.with_columns(price=pl.col("price"))[::-1]  # the next night's catalog is another
    summary = enrich(changed)
    assert summary.reused == states.count("generated")
    assert summary.generated == states.count("pending")


def test_too_many_rows_without_a_text_are_not_published(enrich, tmp_path: Path) -> None:
    frame = pl.DataFrame({"title": ["Oak table", "Lamp", "Rug", ""]})
    withheld = tmp_path / "out.parquet.checkpoint" / "withheld.parquet"
    message = rf"1 of 4 rows have no usable text \(no_title 1\), more than --max-quarantined 20%; .* {withheld}`"
    with pytest.raises(TooManyQuarantined, match=message):
        enrich(frame, max_quarantined="20%")
    assert not (tmp_path / "out.parquet").exists()
    # What was withheld can be looked at, without a second run.
    assert read(withheld)["generation"].struct.field("status").to_list() == ["generated"] * 3 + ["quarantined"]
    (line,) = read_quarantine(quarantine_path(withheld))
    assert (line["row"], line["reasons"]) == (4, ["no_title"])
    assert enrich(frame, max_quarantined="1").resumed_rows == 4
    assert not withheld.parent.exists()


def test_texts_unlike_last_night_s_are_not_published(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    enrich(frame, max_new_tokens=24)
    before = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(TooMuchDrift, match=r"mean_words was .*, more than --max-drift 0\.3"):
        enrich(frame, max_new_tokens=8, max_drift=0.3)
    assert (tmp_path / "out.parquet").read_bytes() == before
    withheld = read(tmp_path / "out.parquet.checkpoint" / "withheld.parquet")
    assert max(one["generated_tokens"] for one in withheld["generation"]) == 8
    summary = enrich(frame, max_new_tokens=8)
    assert withheld["description"].equals(read(tmp_path / "out.parquet")["description"])
    assert summary.drift > 0.3
    assert summary.resumed_rows == len(frame)
    assert enrich(next_night(frame)[0], max_new_tokens=8, max_drift=0.3).drift < 0.3


def test_rows_of_variants_are_skipped(enrich, tmp_path: Path) -> None:
    frame = pl.DataFrame({"handle": ["a", "a", "b", "c"], "title": ["Oak table", None, None, "Rug"]})
    summary = enrich(frame, id_column="handle")
    assert (summary.generated, summary.skipped, summary.quarantined) == (2, 1, 1)


def test_rows_of_variants_with_a_sku_of_their_own_are_skipped_in_every_shard(enrich, tmp_path: Path) -> None:
    handles = [f"h{n // 4}" for n in range(48)]
    titles = [f"Oak table {n // 4}" if n % 4 == 0 else None for n in range(48)]
    frame = pl.DataFrame({"Handle": [*handles, "x"], "Title": [*titles, None], "Variant SKU": range(49)})
    summary = enrich(frame, "whole.parquet")
    assert (summary.generated, summary.skipped, summary.quarantined) == (12, 36, 1)
    assert read(tmp_path / "whole.parquet")["generation"].struct.field("flags")[1].to_list() == ["variant"]
    for shard in ("1/3", "2/3", "3/3"):
        enrich(tmp_path / "catalog.parquet", shard=shard)
    merged = job.merge(tmp_path / "out.parquet")
    assert (merged.generated, merged.skipped, merged.quarantined) == (12, 36, 1)
    assert read(tmp_path / "out.parquet")["description"].equals(read(tmp_path / "whole.parquet")["description"])


def test_shards_make_the_same_file_as_one_run(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    frame = pl.concat([frame, frame.head(3), frame.tail(2).with_columns(title=pl.lit(""), sku=pl.lit(""))])
    enrich(frame, "whole.parquet")
    output = tmp_path / "out.parquet"
    catalog = tmp_path / "catalog.parquet"
    assert job.plan(RunConfig(str(catalog), str(output)), 3) == ["1/3", "2/3", "3/3"]
    for shard in ("1/3", "3/3"):
        enrich(catalog, shard=shard)
    with pytest.raises(ReconciliationError, match=r"out\.shard-2-of-3\.parquet missing"):
        job.merge(output)
    enrich(catalog, shard="2/3")
    summary = job.merge(output)
    whole, joined = read(tmp_path / "whole.parquet"), read(output)
    alike = ["status", "key", "text_digest", "bucket"]
    assert joined.drop("generation").equals(whole.drop("generation"))
    assert joined["generation"].struct.unnest().select(alike).equals(whole["generation"].struct.unnest().select(alike))
    assert (summary.rows, summary.quarantined) == (45, 2)
    assert {path.name for path in tmp_path.iterdir() if "shard" in path.name} == set()
    assert enrich(catalog).unchanged
    same = RunConfig(str(catalog), str(output), model=_model_of(output), max_new_tokens=12, rules=("all=off",))
    assert job.plan(same, 3) is None

    catalog2, _, _ = next_night(frame.head(40))
    catalog2.write_parquet(catalog)
    parts = [enrich(catalog, shard=f"{n}/2") for n in (1, 2)]
    assert sum(part.generated for part in parts) == 5
    assert job.merge(output, tmp_path / "changes.parquet").generated == 5
    assert set(read(tmp_path / "changes.parquet")["change"]) >= {"added", "removed"}


def test_a_shard_that_is_being_written_is_not_merged(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        enrich(frame, shard=shard)
    with lock.only_run(tmp_path / "out.shard-2-of-2.parquet"), pytest.raises(TryAgain, match="shard-2-of-2"):
        job.merge(tmp_path / "out.parquet")
    assert job.merge(tmp_path / "out.parquet").rows == len(frame)


def test_a_run_that_dies_before_it_generates_leaves_nothing(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    enrich(frame)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("sku,title\n1,Lamp\n2,Rug,Wool\n")
    with pytest.raises(CatalogError, match="3 fields"):
        enrich(ragged)
    assert status_of(tmp_path / "out.parquet").state == "published"
    assert not list(tmp_path.glob("*.checkpoint*"))


def _model_of(output: Path) -> str:
    facts = json.loads(pq.ParquetFile(output).metadata.metadata[b"enrich.run"])
    return str(facts["config"]["model"])


def test_shards_of_two_catalogs_are_not_merged(enrich, frame: pl.DataFrame, tmp_path: Path) -> None:
    enrich(frame, shard="1/2")
    enrich(frame.head(30), shard="2/2")
    with pytest.raises(ReconciliationError, match="differ in catalog content"):
        job.merge(tmp_path / "out.parquet")
    enrich(frame, shard="2/3")
    with pytest.raises(ReconciliationError, match="shards of 2 and of 3"):
        job.merge(tmp_path / "out.parquet")


# As a scheduler sees it: real processes, exit codes, standard output.


def test_exit_codes_of_a_night(frame: pl.DataFrame, tiny_gpt2: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.csv"
    frame.head(12).write_csv(catalog)
    options = ["--model", str(tiny_gpt2), "--max-new-tokens", "12", "--json"]
    metrics = ["--metrics-file", str(tmp_path / "enrich.prom"), "--exit-code-unchanged", "99"]
    first = command("run", str(catalog), *options, *metrics, "--log-format", "json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout.splitlines()[-1])["generated"] == 12
    assert all({"time", "level", "message"} <= json.loads(line).keys() for line in first.stderr.splitlines())
    assert 'enrich_rows{status="generated"} 12.0' in (tmp_path / "enrich.prom").read_text()

    second = command("run", *options, *metrics, ENRICH_CATALOG=str(catalog))
    assert second.returncode == 99, second.stderr
    assert json.loads(second.stdout)["unchanged"] is True
    assert 'enrich_rows{status="reused"} 12.0' in (tmp_path / "enrich.prom").read_text()
    assert "enrich_exit_code 99.0" in (tmp_path / "enrich.prom").read_text()
    planned = command("plan", str(catalog), "--shards", "2", *options[:-1], "--exit-code-unchanged", "99")
    assert (planned.returncode, json.loads(planned.stdout)) == (99, [])

    state = command("status", str(tmp_path / "catalog.enriched.parquet"), "--json")
    assert json.loads(state.stdout)["state"] == "published"
    assert command("status", str(tmp_path / "nothing.parquet")).returncode == 2
    bad = command("run", str(catalog), "--max-time", "soon")
    assert (bad.returncode, bad.stderr) == (2, "enrich: max_time: 'soon' is no duration such as 2h, 90m or 1h30m\n")

    def alerts() -> list[str]:
        lines = (tmp_path / "enrich.prom").read_text().splitlines()
        return [
            line for line in lines if line.startswith(("enrich_exit_code", "enrich_success", "enrich_last_success"))
        ]

    success = alerts()[-1]
    assert command("run", str(catalog), *metrics, "--max-time", "soon").returncode == 2
    assert alerts() == ["enrich_exit_code 2.0", "enrich_success 0.0", success]
    frame.head(12).with_columns(title=pl.lit("")).write_csv(catalog)
    withheld = command("run", str(catalog), *options, *metrics)
    assert withheld.returncode == 3, withheld.stderr
    assert alerts() == ["enrich_exit_code 3.0", "enrich_success 0.0", success]
    with lock.only_run(tmp_path / "catalog.enriched.parquet"):
        assert command("run", str(catalog), *options, *metrics).returncode == 75
    assert alerts() == ["enrich_exit_code 75.0", "enrich_success 0.0", success]
    assert 'enrich_rows{status="reused"} 12.0' in (tmp_path / "enrich.prom").read_text()


def test_config_says_where_each_value_comes_from(frame: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "enrich.toml").write_text('seed = 7\ntop-k = 5\nattributes = ["Color"]\n')
    shown = command("config", str(tmp_path / "c.csv"), "--top-k", "9", ENRICH_TEMPERATURE="0.7")
    assert shown.returncode == 0, shown.stderr
    lines = {line.split(" = ")[0]: line.split("#")[-1].strip() for line in shown.stdout.splitlines() if " = " in line}
    assert lines["seed"] == lines["attributes"] == str(tmp_path / "enrich.toml")
    assert lines["top_k"] == "command line"
    assert lines["temperature"] == "ENRICH_TEMPERATURE"
    assert lines["batch_size"] == "default"
    (tmp_path / "again.toml").write_text(shown.stdout)
    again = command("config", str(tmp_path / "c.csv"), "--config", str(tmp_path / "again.toml"))
    strip = [line.split("#")[0] for line in shown.stdout.splitlines()]
    assert [line.split("#")[0] for line in again.stdout.splitlines()] == strip
