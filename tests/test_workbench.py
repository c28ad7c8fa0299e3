from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from enrich.demo import _shown
from enrich.engine.protocol import SamplingParams
from enrich.errors import ConfigError
from enrich.quality.highlight import highlight
from enrich.workbench import Draft, Workbench

SHORT = SamplingParams(max_new_tokens=12, temperature=0.8)


@pytest.fixture(scope="module")
def bench(tiny_gpt2: Path) -> Workbench:
    return Workbench(str(tiny_gpt2), device="cpu")


def test_a_product_that_is_typed_gets_the_prompt_of_a_run(bench: Workbench) -> None:
    product = bench.product("Oak Table", "Furniture", "Color: Natural\n\n Size : 18 x 24 in ")
    assert [(one.name, one.value) for one in product.attributes] == [("Color", "Natural"), ("Size", "18 x 24 in")]
    assert "oak table" in bench.prompt(product).lower()
    assert bench.prompt(bench.product("", "", "")) == ""


def test_a_line_that_is_no_attribute_is_told_by_its_number(bench: Workbench) -> None:
    with pytest.raises(ConfigError, match="attribute 2, 'black': write name and value"):
        bench.product("Lamp", "", "Color: Black\nblack")


@pytest.mark.parametrize("seed", [0, 7])
def test_what_is_streamed_is_what_the_engine_writes(bench: Workbench, seed: int) -> None:
    product = bench.product("Oak Table", "Furniture", "Color: Natural")
    prompt = bench.prompt(product)
    *parts, streamed = bench.write(prompt, product, SHORT, seed=seed)
    engine = bench.attempts(prompt, product, SHORT, seed=seed)
    assert isinstance(streamed, Draft)
    assert streamed == engine[0]
    assert len(parts) == streamed.num_tokens
    assert not parts or parts[-1] == streamed.raw
    assert [draft.attempt for draft in engine] == [1, 2, 3]
    assert len({draft.raw for draft in engine}) > 1


def test_a_prompt_without_room_for_the_text_is_refused(bench: Workbench) -> None:
    with pytest.raises(ConfigError, match="there is room for 244"):
        list(bench.write("word " * 400, bench.product("", "", ""), SHORT))
    with pytest.raises(ConfigError, match="no prompt"):
        list(bench.write(" ", bench.product("", "", ""), SHORT))


def test_sampling_is_checked_as_a_run_s_options_are(bench: Workbench) -> None:
    assert bench.sampling(temperature=0.5).temperature == 0.5
    with pytest.raises(ConfigError, match="top_p"):
        bench.sampling(top_p=0.0)


def test_a_small_catalog_comes_back_enriched(bench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("title\nOak table\nBlack lamp\nRug\n")
    summary = bench.enrich(tmp_path / "shop.csv", tmp_path / "out.parquet", SHORT, limit=2)
    assert summary.rows == 2
    assert pl.read_parquet(tmp_path / "out.parquet").columns == ["title", "description", "generation"]


def test_a_draft_is_shown_as_text(bench: Workbench) -> None:
    evil = '<script>alert(1)</script><img src=x onerror="x"> Oak & =1+1'
    pieces = highlight(evil, bench.product("Oak script", "", ""))
    shown = _shown(Draft(1, evil, evil, ("<b>",), ("<i>",), True, "stop", 3, pieces))
    assert {tag.split()[0] for tag in re.findall(r"<(\w[^>]*)>", shown)} <= {"div", "mark", "b", "br"}
    assert "&lt;img" in shown
