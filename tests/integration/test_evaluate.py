"""The figures of a model, on texts whose figures can be counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from commands import enrich

from enrich import evaluate as evaluation
from enrich.engine.loading import load_model
from enrich.evaluate import _distinct, _figures, _longest_copy, _spans, _Written, as_table, evaluate
from enrich.finetune.dataset import Loss
from enrich.product import Attribute, Product
from enrich.stages import setup

pytestmark = pytest.mark.slow

LAMP = Product(0, "1", "Halden Brass Floor Lamp, 66 in", "Home", (Attribute("Color", "Slate Blue"),), "")


def written(text: str, *flags: str, finish_reason: str = "stop") -> _Written:
    return _Written(LAMP, "home", text, finish_reason, flags)


def test_shares_are_of_what_the_texts_name() -> None:
    texts = [
        written("This slate blue lamp is made of brass. It is 66 in tall."),
        written("A red rug of 3 kg, made of oak.", "repeated_sentence", finish_reason="length"),
        written("These lamps shine", "no_sentence_end"),
    ]
    found = _figures("m", "all", texts, [Loss(20.0, 10, 40), Loss(40.0, 20, 80)], None, 100.0)
    assert found.stops_itself == found.ends_on_sentence == found.names_head_noun == pytest.approx(2 / 3, abs=1e-4)
    assert found.own_colors == found.own_materials == found.own_numbers == 0.5
    assert found.says_given_color == pytest.approx(1 / 3, abs=1e-4)
    assert found.says_given_material is None
    assert found.repeats == pytest.approx(1 / 3, abs=1e-4)
    assert found.mean_words == pytest.approx((13 + 9 + 3) / 3, abs=0.05)
    assert (found.measured, found.loss, found.perplexity) == (2, 2.0, 7.39)
    assert found.bits_per_byte == pytest.approx(0.5 / math.log(2), abs=1e-4)
    assert found.perplexity_per_byte == pytest.approx(math.exp(0.5), abs=1e-4)


def test_rows_without_a_text_of_use_are_counted() -> None:
    asked = [written("A lamp."), _Written(LAMP, "home", "", None, ("empty",)), written("A lamp.")]
    found = _figures("m", "all", asked, [], None, None)
    assert (found.texts, found.unusable) == (2, pytest.approx(1 / 3, abs=1e-4))
    assert (found.stops_itself, found.names_head_noun, found.mean_words) == (1.0, 1.0, 2.0)


def test_strays_are_texts_that_name_what_the_row_does_not() -> None:
    texts = [
        written("This slate blue lamp of brass is 66 in tall."),
        written("A red and blue lamp of oak with 3 bulbs."),
        written("Covered in lacquer."),  # has "red" within a word
    ]
    found = _figures("m", "all", texts, [], None, None)
    assert found.strays_color == found.strays_material == found.strays_number == pytest.approx(1 / 3, abs=1e-4)
    assert found.own_colors == pytest.approx(2 / 3, abs=1e-4)
    assert found.says_given == pytest.approx(1 / 3, abs=1e-4)
    covered = Product(0, "1", "Covered Dish", "", (), "")
    found = _figures("m", "all", [_Written(covered, "home", "A red dish.", "stop", ())], [], None, None)
    assert (found.own_colors, found.strays_color) == (0.0, 1.0)
    assert found.says_given is None


def test_models_stand_side_by_side_category_by_category() -> None:
    both = [_figures(model, category, [written("A lamp.")], [], None, None) for model in "mn" for category in "ab"]
    tables = as_table(both).split("\n\n")
    assert [table.split()[:3] for table in tables] == [["a", "m", "n"], ["b", "m", "n"]]
    assert "texts" in tables[0]
    assert "longest_copy" not in tables[0]  # was not asked for


def test_no_texts_have_no_figures() -> None:
    found = _figures("m", "all", [], [], None, None)
    assert found.texts == 0
    assert {getattr(found, name) for name in ("loss", "distinct_1", "own_colors", "mean_words")} == {None}
    assert as_table([found]).split() == ["all", "m", "texts", "0", "measured", "0"]


def test_distinct_counts_different_n_grams_over_all_texts() -> None:
    assert _distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6, abs=1e-4)
    assert _distinct(["a b a b", "a b"], 2) == 0.5
    assert _distinct(["a"], 2) is None


def test_the_longest_copied_run_of_words() -> None:
    spans = _spans(["one two three four five six seven"])
    assert _longest_copy("zero one two three four five six eight", spans) == 6
    assert _longest_copy("one two three four", spans) == 0
    assert _longest_copy("", spans) == 0


def test_each_model_is_loaded_once(tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(*arguments: Any) -> Any:
        loaded.append(arguments)
        return load_model(*arguments)

    for module in (evaluation, setup):
        monkeypatch.setattr(module, "load_model", load)
    (tmp_path / "x.csv").write_text("title,description\nOak table,A table made of oak.\n")
    evaluate([str(tiny_gpt2)], tmp_path / "x.csv", max_new_tokens=8)
    assert len(loaded) == 1


def test_models_side_by_side_by_category(tiny_gpt2: Path, tiny_llama: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "held-out.parquet"
    frame = pl.DataFrame({"title": ["Oak Table", "Acoustic Guitar", "Rug"], "category": ["Home", "Guitars", "Home"]})
    text = "A fine thing, made of oak, for the home."
    frame.with_columns(description=pl.lit(text)).write_parquet(catalog)
    found = evaluate([str(tiny_gpt2), str(tiny_llama)], catalog, training=[catalog], max_new_tokens=24)
    assert found[0].category == "all"
    assert {one.model for one in found} == {str(tiny_gpt2), str(tiny_llama)}
    whole, *parts = (one for one in found if one.model == str(tiny_gpt2))
    assert whole.texts == 3 == sum(part.texts for part in parts)
    # Random weights know nothing: a loss near ln 400 for 400 tokens, more with weights as large as these.
    assert whole.loss > 4
    assert min(part.loss for part in parts) <= whole.loss <= max(part.loss for part in parts)
    assert whole.tokens_per_second > 0
    assert whole.longest_copy is not None
    assert whole.longest_copy_of_all is not None
    assert whole.measured == 3 == sum(part.measured for part in parts)

    done = enrich("evaluate", tiny_gpt2, catalog, "--texts", 2, "--json", "--max-new-tokens", 24)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["texts"] == 2
    assert lines[0]["loss"] == whole.loss
    assert evaluation.Evaluation(**lines[0]).category == "all"
