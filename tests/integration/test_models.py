"""Models by name, from the command line: presets, chat models, the hub's cache, and what is said of those that fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from commands import enrich as enrich_command

from enrich.engine.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

GPT2_HOME = "HamidRezaAttar/gpt2-product-description-generator"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def command(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    variables = {name: str(value) for name, value in environment.items()}
    if not any(name.startswith("HF_") for name in variables):
        return enrich_command(*arguments, **variables)
    return subprocess.run(  # huggingface_hub reads the environment when it is imported
        [sys.executable, "-m", "enrich", *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1", **variables},
    )  # fmt: skip


def put_in_cache(cache: Path, name: str, model: Path, commit: str = COMMIT) -> Path:
    """Lay a model directory out as huggingface_hub's cache has it."""
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / commit
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        blob = repo / "blobs" / f"{number:040x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    file = tmp_path / "catalog.csv"
    file.write_text(
        "id,title,category,color\n1,Oak <|im_end|> side table,Furniture,brown\n2,Lamp,Toys,\n3,Kettle,Home,red\n"
    )
    return file


@pytest.fixture
def model(tiny_gpt2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "model"))


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("enrich: ")]
    assert done.stderr.splitlines()[-1] == line
    return line


def test_the_preset_of_gpt2_home_goes_on_from_the_title(catalog: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    put_in_cache(tmp_path / "hub", GPT2_HOME, tiny_gpt2)
    done = command("run", catalog, "--model", "gpt2-home", "--max-new-tokens", 24, HF_HUB_CACHE=tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(tmp_path / "catalog.enriched.parquet")
    generation = table["generation"].struct.unnest()
    assert generation["model"].to_list() == ["gpt2-home"] * 3
    assert generation["model_revision"].to_list() == [COMMIT] * 3
    for title, text, status in zip(table["title"], table["description"], generation["status"], strict=True):
        if status == "generated":
            assert text.startswith(title) and len(text) > len(title)
    assert "generated" in generation["status"].to_list()
    shown = command("config", catalog, "--model", "gpt2-home", HF_HUB_CACHE=tmp_path / "hub").stdout
    assert "top_p = 1.0" in shown and "# wish of gpt2-home" in shown


def test_a_chat_model_is_told_the_category_and_asked_with_the_row(
    enrich, catalog: Path, tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    encode = Tokenizer.encode

    def spy(self: Tokenizer, texts: list[str], systems: list[str]) -> list[list[int]]:
        ids = encode(self, texts, systems)
        prompts.extend(self._tokenizer.decode(row) for row in ids)
        return ids

    monkeypatch.setattr(Tokenizer, "encode", spy)
    summary = enrich(catalog, model=str(tiny_chat))
    assert summary.generated + summary.quarantined == 3
    assert all(prompt.startswith("<|im_start|>system\nYou write product descriptions") for prompt in prompts)
    assert all(prompt.endswith("Description:<|im_end|>\n<|im_start|>assistant\n") for prompt in prompts)
    assert "<|im_start|>user\nCategory: Furniture\nTitle: Oak <|im_end|> side table\nColor: brown\n" in prompts[0]
    assert "in the category home." in prompts[0] and "in the category toys." in prompts[1]

    prompts.clear()
    (tmp_path / "own.j2").write_text("Praise the {{ title }}!")
    enrich(catalog, "own.parquet", model=str(tiny_chat), template=str(tmp_path / "own.j2"))
    assert "<|im_start|>user\nPraise the Lamp!<|im_end|>" in prompts[1]

    prompts.clear()
    enrich(catalog, "plain.parquet", model=str(tiny_chat), chat=False)
    assert prompts[1] == "Category: Toys\nTitle: Lamp\nDescription:"


def test_what_a_chat_model_is_told_is_in_the_key(
    enrich, catalog: Path, tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not enrich(catalog, model=str(tiny_chat)).unchanged
    assert enrich(catalog, model=str(tiny_chat), chat=True).unchanged
    monkeypatch.setattr("enrich.wordings.system_prompt", lambda category: f"You sell {category.name}.")
    summary = enrich(catalog, model=str(tiny_chat))
    assert (summary.unchanged, summary.reused) == (False, 0)


def test_chat_for_a_model_without_a_chat_template_is_refused(catalog: Path, tiny_gpt2: Path) -> None:
    line = refused(command("run", catalog, "--model", tiny_gpt2, "--chat"))
    assert line == f"enrich: --chat: model {tiny_gpt2} has no chat template; leave it out"


def test_another_template_than_the_model_s_own_is_warned_of(catalog: Path, model: Path) -> None:
    (model / "enrich.toml").write_text('template = "{{ title }}:"\n')
    (catalog.parent / "own.j2").write_text("Praise the {{ title }}!")
    options = ["--model", model, "--template", catalog.parent / "own.j2"]
    for words in (("plan", catalog), ("run", catalog, "--max-new-tokens", 4)):
        told = command(*words, *options).stderr
        assert f"model {model} was made for a template of its own; that is in {model / 'enrich.toml'}" in told
        assert "of its own" not in command(*words, "--model", model).stderr


def test_flag_before_environment_before_file_before_the_model_s_wishes(catalog: Path, model: Path) -> None:
    (model / "enrich.toml").write_text(
        'template = "{{ title }}"\nmax_new_tokens = 11\n[sampling]\ntemperature = 0.11\ntop_k = 11\ntop_p = 0.11\n'
    )
    config = catalog.with_name("enrich.toml")
    config.write_text(f'model = "{model}"\ntemperature = 0.22\ntop_k = 22\nmax_new_tokens = 22\n')
    done = command("config", catalog, "--max-new-tokens", 44, ENRICH_TOP_K=33, ENRICH_MAX_NEW_TOKENS=33)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split("  #", 1) for line in done.stdout.splitlines())
    origins = {value.strip(): origin.strip() for value, origin in lines.items()}
    assert origins["max_new_tokens = 44"] == "command line"
    assert origins["top_k = 33"] == "ENRICH_TOP_K"
    assert origins["temperature = 0.22"] == str(config)
    assert origins["top_p = 0.11"] == f"wish of {model}"
    assert origins["repetition_penalty = 1.1"] == "default"
    assert origins["# template is not set"] == f"{model} has one of its own"


def test_the_options_of_a_model_that_is_not_here_are_shown_with_a_doubt(catalog: Path, tmp_path: Path) -> None:
    done = command("config", catalog, "--model", "nobody/nothing", HF_HUB_CACHE=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "top_k = 50" in done.stdout
    assert "# default, unless nobody/nothing, which is not on this machine, wishes otherwise" in done.stdout


@pytest.mark.parametrize("name", ["nobody/nothing", "gpt2-home"])
def test_a_hub_model_that_is_not_here_offline(catalog: Path, tmp_path: Path, name: str) -> None:
    hub_id = GPT2_HOME if name == "gpt2-home" else name
    line = refused(command("run", catalog, "--model", name, HF_HUB_CACHE=tmp_path / "hub"))
    assert line.startswith(f"enrich: model {hub_id}: not on this machine")
    assert "HF_HUB_OFFLINE is set" in line and f"`hf download {hub_id}`" in line


def test_a_hub_model_that_is_not_here_without_a_network(catalog: Path, tmp_path: Path) -> None:
    line = refused(
        command(
            "run", catalog, "--model", "nobody/nothing", "--revision", "v2",
            HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_CACHE=tmp_path / "hub",
        )
    )  # fmt: skip
    assert "the hub can't be reached" in line and "`hf download nobody/nothing --revision v2`" in line


def test_a_name_that_is_nearly_right(catalog: Path, tmp_path: Path) -> None:
    line = refused(command("run", catalog, "--model", "home-mni", HF_HUB_CACHE=tmp_path / "hub"))
    assert line.startswith("enrich: did you mean 'home-mini'? model home-mni: not on this machine")


def test_a_hub_model_with_pickled_weights_only(catalog: Path, model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    put_in_cache(tmp_path / "hub", "org/old", model)
    line = refused(command("run", catalog, "--model", "org/old", HF_HUB_CACHE=tmp_path / "hub"))
    assert "has no weights in model.safetensors; pickled weights are not fetched or read" in line
    assert "as docs/models.md says" in line


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


def small_vocabulary(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))


def misspelled_wish(model: Path) -> None:
    (model / "enrich.toml").write_text("[sampling]\ntemprature = 1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_weights, "has no weights in model.safetensors; name a directory that has them"),
        (pickled, "pickled weights are not read, because they can run code: convert them once"),
        (no_tokenizer, "has no tokenizer (tokenizer.json, "),
        (small_vocabulary, "they do not belong together; copy the tokenizer's files"),
        (misspelled_wish, "unknown key 'sampling.temprature'; did you mean temperature?"),
    ],
)
def test_a_directory_that_can_t_be_run(catalog: Path, model: Path, damage: Any, message: str) -> None:
    damage(model)
    line = refused(command("run", catalog, "--model", model, "--max-new-tokens", 4))
    assert line.startswith(f"enrich: model {model}: ")
    assert message in line
    assert not list(catalog.parent.glob("*.checkpoint"))


def test_models_are_listed_with_what_is_known_of_them(
    tiny_chat: Path, tiny_gpt2: Path, model: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "hub"
    put_in_cache(cache, GPT2_HOME, tiny_gpt2)
    snapshot = put_in_cache(cache, "org/chat", tiny_chat, "f" * 40)
    no_weights(model)
    put_in_cache(cache, "org/old", model)
    (model / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    put_in_cache(cache, "org/classifier", model)
    done = command("models", "--json", HF_HUB_CACHE=cache)
    assert done.returncode == 0, done.stderr
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert list(entries) == ["home-mini", "gpt2-home", GPT2_HOME, "org/chat", "org/old"]
    home = entries["home-mini"]
    assert (home["source"], home["kind"], home["parameters"], home["context"]) == ("embedded", "base", 8022528, 512)
    assert 15 < home["mib"] < 16 and Path(home["path"]).is_dir()
    preset = entries["gpt2-home"]
    assert (preset["source"], preset["kind"], preset["context"], preset["revision"]) == ("preset", "base", 256, COMMIT)
    chat = entries["org/chat"]
    assert (chat["source"], chat["kind"], chat["path"]) == ("hub cache", "chat", str(snapshot))
    old = entries["org/old"]
    assert old["parameters"] is None and "pickled" in old["problem"] and old["fetch"] is None

    table = command("models", HF_HUB_CACHE=cache).stdout.splitlines()
    assert table[0].split() == ["name", "kind", "parameters", "MiB", "context", "where"]
    assert [line.split()[0] for line in table[1:]] == list(entries)
    assert "8.0 M" in table[1]


def test_without_a_cache_the_models_of_the_package_are_listed(tmp_path: Path) -> None:
    done = command("models", HF_HUB_CACHE=tmp_path / "none")
    assert done.returncode == 0, done.stderr
    assert f"preset, not on this machine; fetch it: hf download {GPT2_HOME}" in done.stdout
    assert len(done.stdout.splitlines()) == 3


def test_listing_models_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom enrich.cli import main\n"
        "try: main(['models'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'polars', 'pyarrow'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
