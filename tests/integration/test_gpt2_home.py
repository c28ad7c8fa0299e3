"""A checkpoint of the shape that the seed project published: GPT-2 small, its tokenizer, raw prompts."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from enrich import RunConfig, run

VOCABULARY = Path(
    os.environ.get("ENRICH_GPT2_TOKENIZER", Path(__file__).resolve().parents[3] / "shared" / "gpt2-tokenizer")
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (VOCABULARY / "vocab.json").is_file():
        pytest.skip("set ENRICH_GPT2_TOKENIZER to a directory with GPT-2's vocab.json and merges.txt")
    directory = tmp_path_factory.mktemp("models") / "gpt2-home"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(directory)
    GPT2Tokenizer.from_pretrained(VOCABULARY).save_pretrained(directory)
    return directory


@pytest.mark.slow
def test_a_gpt2_home_checkpoint_loads_and_runs(checkpoint: Path, tmp_path: Path) -> None:
    titles = ["This bed is very comfortable.", "Queen Anne <|endoftext|> chair", "Lamp 2.5 in. x 3.5 in."]
    pl.DataFrame({"title": titles}).write_csv(tmp_path / "catalog.csv")
    (tmp_path / "raw.j2").write_text("{{ title }}")
    summary = run(
        RunConfig(
            str(tmp_path / "catalog.csv"),
            model=str(checkpoint),
            template=str(tmp_path / "raw.j2"),
            max_new_tokens=8,
            dtype="float32",
            rules=("all=off",),
        )
    )
    assert (summary.rows, summary.generated) == (3, 3)
    generation = pl.read_parquet(summary.output)["generation"].struct.unnest()
    # GPT-2's own counts: 6 words and a full stop; the special token's text is 7 plain tokens, not one.
    assert generation["prompt_tokens"].to_list()[0] == 6
    assert generation["prompt_tokens"].to_list()[1] >= 9
    assert generation["finish_reason"].to_list() == ["length"] * 3
