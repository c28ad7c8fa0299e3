from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from enrich.engine.loading import find_model
from enrich.errors import ConfigError, ModelError


@pytest.fixture
def model(tiny_gpt2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "model"))


def test_a_model_brings_the_template_that_it_was_trained_on(model: Path) -> None:
    assert find_model(str(model)).template is None
    plain = find_model(str(model)).revision
    (model / "enrich.toml").write_text('template = "{{ title | lower }}:"\n', encoding="utf-8")
    assert find_model(str(model)).template == "{{ title | lower }}:"
    assert find_model(str(model)).revision != plain


@pytest.mark.parametrize("text", ['temprature = 1\ntemplate = "x"', "template = 3", "template =", "", "\xff"])
def test_what_a_model_can_t_wish_for_is_refused(model: Path, text: str) -> None:
    (model / "enrich.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"enrich\.toml"):
        find_model(str(model))


def test_the_template_of_a_model_is_used_and_checked(enrich, model: Path) -> None:
    frame = pl.DataFrame({"title": ["Oak Table"]})
    (model / "enrich.toml").write_text('template = "{{ titel }}"', encoding="utf-8")
    with pytest.raises(ConfigError, match="template of model"):
        enrich(frame, model=str(model))
    (model / "enrich.toml").write_text('template = "{{ title | lower }}"', encoding="utf-8")
    short = enrich(frame, model=str(model)).prompt_tokens
    (model / "enrich.toml").write_text('template = "{{ title }} {{ title }}"', encoding="utf-8")
    assert enrich(frame, "b.parquet", model=str(model)).prompt_tokens > short
