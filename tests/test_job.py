from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich import RunConfig, job
from enrich.engine.continuous import ContinuousEngine
from enrich.engine.files import find_model
from enrich.engine.loading import load_model
from enrich.errors import (
    CatalogError,
    CheckpointMismatch,
    ConfigError,
    EnrichError,
    Interrupted,
    ModelError,
    ReconciliationError,
    TryAgain,
)
from enrich.keys import key_of_run
from enrich.output import read_facts
from enrich.stages import setup, surveyor, windows

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"


def texts(path: Path) -> list[str | None]:
    return pl.read_parquet(path)["description"].to_list()


def statuses(path: Path) -> list[str]:
    return pl.read_parquet(path)["generation"].struct.field("status").to_list()


def test_every_row_comes_out_once_in_order_with_its_columns(enrich, tmp_path: Path) -> None:
    summary = enrich(HOME, limit=60)
    source, out = pq.read_table(HOME).slice(0, 60), pq.read_table(tmp_path / "out.parquet")
    assert out.schema.names == [*source.schema.names, "generation"]
    untouched = [name for name in source.schema.names if name != "description"]
    assert out.select(untouched).equals(source.select(untouched))
    had = [bool(text) for text in source["description"].to_pylist()]
    assert summary.rows == 60 == summary.generated + summary.kept + summary.quarantined
    assert summary.kept == sum(had)
    for old, new, generation in zip(
        source["description"].to_pylist(), out["description"].to_pylist(), out["generation"].to_pylist(), strict=True
    ):
        assert new == old if old else new
        assert generation["status"] == ("kept" if old else "generated")
        assert generation["run_id"] == summary.run_id
        assert (generation["key"] is None) == bool(old)
    generated = [g for g in out["generation"].to_pylist() if g["status"] == "generated"]
    assert len({g["key"] for g in generated}) == len(generated)
    assert all(g["prompt_tokens"] <= g["bucket"] for g in generated)
    assert sum(g["generated_tokens"] for g in generated) == summary.generated_tokens
    assert sum(g["prompt_tokens"] for g in generated) == summary.prompt_tokens


def test_windows_grow_from_a_small_one_and_texts_are_the_same(
    enrich, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrich(HOME, limit=60)
    expected, generate, sizes = texts(tmp_path / "out.parquet"), job.generate, []

    def noted(run: setup.Run, window: windows.Window, *rest: Any) -> bool:
        sizes.append(len(window))
        return generate(run, window, *rest)

    monkeypatch.setattr(job, "generate", noted)
    monkeypatch.setattr(windows, "_FIRST_WINDOW_ROWS", 3)
    monkeypatch.setattr(windows, "_WINDOW_ROWS", 20)
    summary = enrich(HOME, limit=60, fresh=True)
    waiting = summary.rows - summary.kept
    assert sizes[:3] == [3, 12, 20]
    assert sum(sizes) == waiting > 40
    assert all(size == 20 for size in sizes[3:-1]) and sizes[-1] <= 20
    assert texts(tmp_path / "out.parquet") == expected


def test_the_metadata_tells_the_run(enrich, tmp_path: Path, tiny_gpt2: Path) -> None:
    summary = enrich(HOME, limit=20)
    facts = read_facts(tmp_path / "out.parquet")
    assert facts["summary"]["rows"] == summary.rows
    assert facts["config"]["model"] == str(tiny_gpt2)
    assert facts["versions"]["torch"]
    assert facts["device"] == "cpu"
    assert 0 <= facts["summary"]["padding_waste"] < 1


def test_nothing_is_left_behind_but_the_output(enrich, tmp_path: Path) -> None:
    enrich(HOME, limit=5)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["out.parquet"]


@pytest.mark.slow
def test_the_same_run_gives_the_same_texts_whatever_the_batch_size(enrich, tmp_path: Path) -> None:
    for name, size in (("a", 1), ("b", 7), ("c", 64)):
        enrich(HOME, f"{name}.parquet", limit=40, batch_size=size, dtype="float32")
    a, b, c = (texts(tmp_path / f"{name}.parquet") for name in "abc")
    assert a == b == c


def test_a_text_ends_before_a_stop_string(enrich, tmp_path: Path) -> None:
    enrich(HOME, limit=40, max_new_tokens=40, temperature=1.0)
    whole = texts(tmp_path / "out.parquet")
    enrich(HOME, "cut.parquet", limit=40, max_new_tokens=40, temperature=1.0, stop=("a", r"\n"))
    cut = pl.read_parquet(tmp_path / "cut.parquet")
    written = cut.filter(pl.col("generation").struct.field("status") == "generated")["description"].to_list()
    assert written and not [text for text in written if "a" in text]
    assert "stop" in cut["generation"].struct.field("finish_reason").to_list()
    assert any("a" in text for text in whole if text)


def test_keys_know_nothing_of_ways_of_drawing_that_are_off(enrich, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[set[str]] = []

    def spy(model: str, sampling: Any, seed: int) -> str:
        told.append(set(sampling))
        return key_of_run(model, sampling, seed)

    monkeypatch.setattr(surveyor, "key_of_run", spy)
    enrich(HOME, limit=3)
    enrich(HOME, limit=3, min_p=0.1, fresh=True)
    # Or texts of the version before would all be generated anew.
    assert {"max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty"} <= told[0]
    assert not {"min_p", "no_repeat_ngram", "stop"} & told[0]
    assert told[1] == told[0] | {"min_p"}


def test_another_seed_gives_other_texts(enrich, tmp_path: Path) -> None:
    enrich(HOME, "a.parquet", limit=10)
    enrich(HOME, "b.parquet", limit=10, seed=1)
    a, b = texts(tmp_path / "a.parquet"), texts(tmp_path / "b.parquet")
    assert sum(x != y for x, y in zip(a, b, strict=True)) >= 8


def test_inserting_and_sorting_products_changes_no_other_text(enrich, tmp_path: Path) -> None:
    frame = pl.read_parquet(HOME).head(30).with_columns(description=None)
    enrich(frame, "a.parquet")
    extra = frame.head(2).with_columns(sku=pl.concat_str(pl.lit("NEW-"), "sku"))
    order = random.Random(1).sample(range(32), 32)
    enrich(pl.concat([extra, frame])[order], "b.parquet")
    a = pl.read_parquet(tmp_path / "a.parquet").select("sku", "description")
    b = pl.read_parquet(tmp_path / "b.parquet").select("sku", other="description")
    joined = a.join(b, on="sku")
    assert len(joined) == 30
    assert joined["description"].equals(joined["other"])


def test_equal_rows_get_texts_of_their_own(enrich, tmp_path: Path) -> None:
    enrich(pl.DataFrame({"title": ["Oak table"] * 4}))
    assert len(set(texts(tmp_path / "out.parquet"))) == 4


def test_rows_without_a_title_are_quarantined_and_the_rest_goes_on(enrich, tmp_path: Path) -> None:
    titles = ["Oak table", None, "  ", "<p></p>", "Lamp"]
    summary = enrich(pl.DataFrame({"title": titles, "description": [None, None, "Has one.", None, "N/A"]}))
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert statuses(tmp_path / "out.parquet") == ["generated", "quarantined", "kept", "quarantined", "generated"]
    assert out["description"].is_null().to_list() == [False, True, False, True, False]
    assert out["generation"].struct.field("flags").to_list()[1] == ["no_title"]
    assert (summary.generated, summary.kept, summary.quarantined) == (2, 1, 2)


def test_a_title_longer_than_the_context_is_quarantined(enrich, tmp_path: Path) -> None:
    enrich(pl.DataFrame({"title": ["Lamp", "Lamp of glass " * 300]}))
    assert statuses(tmp_path / "out.parquet") == ["generated", "quarantined"]
    assert pl.read_parquet(tmp_path / "out.parquet")["generation"].struct.field("flags")[1].to_list() == [
        "prompt_too_long"
    ]


def test_attributes_are_dropped_until_the_prompt_fits(enrich, tmp_path: Path) -> None:
    enrich(pl.DataFrame({"title": ["Lamp"], "color": ["red"], "material": ["brass and glass " * 80]}))
    row = pl.read_parquet(tmp_path / "out.parquet")["generation"][0]
    assert row["status"] == "generated"
    assert "attributes_dropped" in row["flags"]
    assert row["prompt_tokens"] <= 256 - 12


def test_overwrite_replaces_descriptions_and_keeps_them_where_no_text_came(enrich, tmp_path: Path) -> None:
    frame = pl.DataFrame({"title": ["Lamp", None], "description": ["Old lamp.", "Old thing."]})
    enrich(frame, overwrite=True)
    new = texts(tmp_path / "out.parquet")
    assert new[0] not in (None, "Old lamp.")
    assert new[1] == "Old thing."
    assert statuses(tmp_path / "out.parquet") == ["generated", "quarantined"]


def test_texts_go_into_the_column_named(enrich, tmp_path: Path) -> None:
    enrich(pl.DataFrame({"name": ["Lamp", "Bed"], "body_html": ["", "<p>A bed.</p>"]}), output_column="copy")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.columns == ["name", "body_html", "copy", "generation"]
    assert out["body_html"].to_list() == ["", "<p>A bed.</p>"]
    assert out["copy"][1] == "<p>A bed.</p>"
    assert out["copy"][0]


def test_a_text_column_that_is_not_the_descriptions_is_not_written_over(enrich) -> None:
    frame = pl.DataFrame({"title": ["Lamp"], "description": ["Internal."], "copy": ["Bright."]})
    with pytest.raises(CatalogError, match="--output-column"):
        enrich(frame, description_column="copy")


def test_an_enriched_file_as_the_catalog_is_refused(enrich, tmp_path: Path) -> None:
    enrich(HOME, limit=3)
    with pytest.raises(CatalogError, match="generation"):
        enrich(tmp_path / "out.parquet", "again.parquet")


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "jsonl.zst", "parquet"])
def test_formats_give_the_same_texts(enrich, tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame({"title": ["Oak table", "Lamp, tall", 'A "big" bed'], "color": ["brown", "", "white"]})
    enrich(frame, "expected.parquet")
    path = tmp_path / f"shop.{suffix}"
    plain = tmp_path / "plain"
    if "csv" in suffix:
        frame.write_csv(plain)
    elif "jsonl" in suffix:
        frame.write_ndjson(plain)
    else:
        frame.write_parquet(plain)
    compression = {"gz": "gzip", "zst": "zstd"}.get(suffix.split(".")[-1])
    with pa.output_stream(str(path), compression=compression) as stream:
        stream.write(plain.read_bytes())
    enrich(path)
    assert texts(tmp_path / "out.parquet") == texts(tmp_path / "expected.parquet")


def stop_after(calls: int, signal_number: int = 15) -> Callable[[], int]:
    asked = 0

    def should_stop() -> int:
        nonlocal asked
        asked += 1
        return signal_number if asked > calls else 0

    return should_stop


def test_a_run_broken_off_anywhere_goes_on_to_the_same_texts(enrich, tmp_path: Path) -> None:
    enrich(HOME, "whole.parquet", limit=50, batch_size=16)
    for calls in (1, 10, 20, 12):
        with pytest.raises(Interrupted, match=r"goes on|nothing was generated") as caught:
            enrich(HOME, limit=50, batch_size=16, should_stop=stop_after(calls))
        assert caught.value.exit_code == 143
        assert not (tmp_path / "out.parquet").exists()
    summary = enrich(HOME, limit=50, batch_size=16)
    assert summary.resumed_rows > 0
    assert texts(tmp_path / "out.parquet") == texts(tmp_path / "whole.parquet")
    assert statuses(tmp_path / "out.parquet") == statuses(tmp_path / "whole.parquet")


def break_off(enrich: Callable[..., job.Summary], catalog: Path | pl.DataFrame, **options: Any) -> None:
    with pytest.raises(Interrupted):
        enrich(catalog, should_stop=stop_after(25), **({"batch_size": 16} | options))


def test_a_changed_option_is_refused_until_restarted(enrich) -> None:
    frame = pl.read_parquet(HOME).head(50)
    break_off(enrich, frame)
    with pytest.raises(CheckpointMismatch, match=r"temperature was 0\.4, is 0\.5"):
        enrich(frame, temperature=0.5)
    with pytest.raises(CheckpointMismatch, match=r"temperature was 0\.4, is 0\.5; limit was null, is 49"):
        enrich(frame, temperature=0.5, limit=49)
    summary = enrich(frame, temperature=0.5, restart=True)
    assert (summary.resumed_rows, summary.reused) == (0, 0)


def test_a_changed_catalog_keeps_the_texts_of_a_run_that_was_broken_off(enrich, tmp_path: Path) -> None:
    frame = pl.read_parquet(HOME).head(50).with_columns(description=None)
    break_off(enrich, frame)
    changed = pl.concat([frame.tail(2).with_columns(sku=pl.lit("NEW")), frame.head(49)])
    break_off(enrich, changed, batch_size=4)
    summary = enrich(changed.head(40))
    assert summary.reused >= 16
    assert summary.reused + summary.generated == 40
    enrich(changed.head(40), "fresh.parquet")
    assert texts(tmp_path / "out.parquet") == texts(tmp_path / "fresh.parquet")
    assert not list(tmp_path.glob("*.old"))


def test_batch_size_may_change_on_resuming(enrich) -> None:
    frame = pl.read_parquet(HOME).head(50)
    break_off(enrich, frame)
    assert enrich(frame, batch_size=3).resumed_rows > 0


def test_an_engine_that_throws_loses_no_finished_row(enrich, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, left = ContinuousEngine.generate, iter(range(5))

    def failing(self: ContinuousEngine, *args: Any) -> Any:
        for found in generate(self, *args):
            if next(left, None) is None:
                raise RuntimeError("device lost")
            yield found

    monkeypatch.setattr(ContinuousEngine, "generate", failing)
    with pytest.raises(RuntimeError, match="device lost"):
        enrich(HOME, limit=40)
    monkeypatch.setattr(ContinuousEngine, "generate", generate)
    assert enrich(HOME, limit=40).resumed_rows == 5


def test_an_engine_that_loses_a_row_publishes_nothing(enrich, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = ContinuousEngine.generate
    monkeypatch.setattr(ContinuousEngine, "generate", lambda self, *args: list(generate(self, *args))[1:])
    with pytest.raises(ReconciliationError, match="has no outcome"):
        enrich(HOME, limit=20)
    assert not (tmp_path / "out.parquet").exists()


def test_a_second_run_on_the_same_output_is_sent_away(enrich) -> None:
    def should_stop() -> int:
        with pytest.raises(TryAgain, match=r"is being written by process \d+ on "):
            enrich(HOME, limit=3)
        return 2

    with pytest.raises(Interrupted):
        enrich(HOME, limit=3, should_stop=should_stop)


def test_the_old_output_stays_until_the_new_one_is_whole(enrich, tmp_path: Path) -> None:
    enrich(HOME, limit=8)
    before = (tmp_path / "out.parquet").read_bytes()
    break_off(enrich, HOME, limit=50)
    assert (tmp_path / "out.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "no/such-model"}, ModelError, "hf download no/such-model"),
        ({"model": "./nowhere"}, ModelError, "no such directory"),
        ({"device": "cuda"}, ConfigError, "--device auto"),
        ({"title_column": "Titel"}, CatalogError, "did you mean"),
        ({"max_new_tokens": 256}, ConfigError, "max_new_tokens"),
        ({"template": "missing.j2"}, ConfigError, "missing.j2"),
        ({"name": "no/such/dir/out.parquet"}, CatalogError, "there is no directory"),
    ],
)
def test_what_can_t_be_run_is_refused_in_one_line(enrich, options, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        enrich(HOME, limit=3, **options)
    assert isinstance(caught.value, EnrichError)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_template_of_one_s_own_is_what_the_model_reads(enrich, tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    from enrich.engine.tokenizer import Tokenizer

    encode = Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, batch, systems: seen.extend(batch) or encode(self, batch, systems)
    )
    (tmp_path / "own.j2").write_text("{{ title }} in {{ category }}:")
    enrich(
        pl.DataFrame({"title": ["{{ 7*7 }} <b>Lamp</b> <|endoftext|>"], "category": ["A > B"]}),
        template=str(tmp_path / "own.j2"),
    )
    assert seen == ["{{ 7*7 }} Lamp <|endoftext|> in A > B:"]


def test_llama_style_models_run(enrich, tiny_llama: Path) -> None:
    assert enrich(HOME, limit=10, model=str(tiny_llama)).generated == 10


def test_a_run_lets_go_of_what_it_has_loaded_and_not_of_what_it_was_lent(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def noted(*told: Any) -> Any:
        loaded.append(load_model(*told))
        return loaded[-1]

    monkeypatch.setattr(setup, "load_model", noted)
    lent = load_model(find_model(str(tiny_gpt2)), "cpu", "float32")
    for name, model in (("own", None), ("lent", lent)):
        output = str(tmp_path / f"{name}.parquet")
        config = RunConfig(str(HOME), output, model=str(tiny_gpt2), dtype="float32", limit=5, rules=("all=off",))
        job.run(config, model=model)
    held = [one.transformer.h[0].mlp.c_fc.weight.untyped_storage().nbytes() for one in (*loaded, lent)]
    assert len(held) == 2
    assert held[0] == 4 < held[1]


def test_the_summary_is_json(enrich) -> None:
    import dataclasses

    assert json.loads(json.dumps(dataclasses.asdict(enrich(HOME, limit=3))))["rows"] == 3


def test_a_catalog_without_rows_replaces_nothing(enrich, tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("title,color\nOak table,oak\n")
    enrich(tmp_path / "shop.csv")
    before = (tmp_path / "out.parquet").read_bytes()
    (tmp_path / "shop.csv").write_text("title,color\n")  # an export that went wrong
    with pytest.raises(CatalogError, match=r"shop\.csv: has no rows"):
        enrich(tmp_path / "shop.csv")
    assert (tmp_path / "out.parquet").read_bytes() == before


def test_a_catalog_with_nothing_to_do_loads_no_model(enrich, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "load_model", None)
    summary = enrich(pl.DataFrame({"title": ["Bed"], "description": ["A bed of oak."]}))
    assert (summary.kept, summary.generated) == (1, 0)


def test_deterministic_texts_are_float32_whatever_the_machine_likes_best(
    enrich, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.stages.setup.pick_dtype", lambda wanted, _: "bfloat16" if wanted == "auto" else wanted)
    enrich(HOME, "auto.parquet", limit=20, dtype="auto")
    enrich(HOME, limit=20, dtype="auto", deterministic=True)
    enrich(HOME, "plain.parquet", limit=20, batch_size=3)
    assert read_facts(tmp_path / "auto.parquet")["dtype"] == "bfloat16"
    assert read_facts(tmp_path / "out.parquet")["dtype"] == "float32"
    assert texts(tmp_path / "out.parquet") == texts(tmp_path / "plain.parquet")
