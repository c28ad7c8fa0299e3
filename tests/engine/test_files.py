from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from enrich.engine import files, hub
from enrich.engine.files import find_model, wishes_of
from enrich.engine.loading import load_model
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


@pytest.mark.parametrize("text", ['temprature = 1\ntemplate = "x"', "template = 3", "template =", "\xff"])
def test_what_a_model_can_t_wish_for_is_refused(model: Path, text: str) -> None:
    (model / "enrich.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"model .*enrich\.toml"):
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


def test_the_files_say_what_the_model_is(model: Path, tiny_chat: Path) -> None:
    base, chat = find_model(str(model)), find_model(str(tiny_chat))
    assert (base.context, base.vocabulary, base.has_chat_template) == (256, 400, False)
    assert base.weights == (model / "model.safetensors",)
    assert base.wished == {}
    assert (chat.has_chat_template, chat.wished) == (True, {"chat": True})


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_a_chat_template_is_found_in_each_of_its_places(model: Path, file: str) -> None:
    (model / file).write_text(json.dumps({"chat_template": "{{ messages }}"}), encoding="utf-8")
    assert find_model(str(model)).has_chat_template


def test_a_template_of_its_own_says_that_a_model_knows_plain_prompts(tiny_chat: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_chat, tmp_path / "trained"))
    (directory / "enrich.toml").write_text('template = "{{ title }}"')
    assert find_model(str(directory)).wished == {}
    (directory / "enrich.toml").write_text('template = "{{ title }}"\nchat = true')
    assert find_model(str(directory)).wished["chat"] is True


def drop(*names: str):
    return lambda model: [(model / name).unlink() for name in names]


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def sharded(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def adapter(model: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("config.json"), "has no config.json, so it is no model directory"),
        (lambda model: (model / "config.json").write_text("{"), r"config\.json can't be read"),
        (adapter, "holds a LoRA adapter only; merge it"),
        (drop("model.safetensors"), "has no weights in model.safetensors; name a directory that has them"),
        (pickled, "pickled weights are not read, because they can run code: convert them once"),
        (sharded, "lacks 1 of 2 files of weights, such as model-00002-of-00002.safetensors; fetch or copy them"),
        (drop("tokenizer.json", "tokenizer_config.json"), "has no tokenizer .*; copy it from the model"),
    ],
)
def test_what_a_directory_lacks_is_named(model: Path, damage, message: str) -> None:
    damage(model)
    with pytest.raises(ModelError, match=message) as caught:
        find_model(str(model))
    assert str(caught.value).startswith(f"model {model}: ")
    assert "\n" not in str(caught.value)


def test_shards_that_are_all_there_are_the_weights(model: Path) -> None:
    sharded(model)
    shutil.copy(model / "model-00001-of-00002.safetensors", model / "model-00002-of-00002.safetensors")
    assert [path.name for path in find_model(str(model)).weights] == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    ]  # fmt: skip


def test_a_preset_is_a_model_s_name_and_wishes(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    preset = tmp_path / "presets" / "shop.toml"
    preset.parent.mkdir()
    preset.write_text(f'model = "{model}"\ntemplate = "{{{{ title }}}}!"\n[sampling]\ntop_k = 3\n')
    (model / "enrich.toml").write_text('template = "{{ title }}"\n[sampling]\ntop_k = 9\ntop_p = 0.5\n')
    monkeypatch.setattr(files, "_PRESETS", preset.parent)
    found = find_model("shop")
    assert (found.name, found.directory, found.template) == ("shop", model, "{{ title }}!")
    assert found.wished == {"top_k": 3, "top_p": 0.5}  # the preset's, then the directory's
    known = wishes_of("shop")
    assert known and known[1] == found.wished


def test_the_presets_that_come_along_are_well_formed() -> None:
    assert "gpt2-home" in files.presets()
    for name in files.presets():
        assert files.read_preset(name).model


def test_wishes_are_known_without_the_network(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("asked the hub"))
    home = wishes_of("gpt2-home")
    assert home and home[0].continues_prompt and home[1]["temperature"] == 1.0
    assert wishes_of("nobody/has-this") is None
    assert wishes_of("./nowhere") is None
    (model / "enrich.toml").write_text("max_new_token = 3")
    with pytest.raises(ModelError, match="did you mean max_new_tokens"):
        wishes_of(str(model))


def test_weights_that_are_none_are_refused_in_one_line(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_model(find_model(str(model)), "cpu", "float32")
    assert "\n" not in str(caught.value)
