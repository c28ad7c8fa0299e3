"""Training in miniature: the loss falls, the end of a text is learned, and `enrich run` takes the result."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoTokenizer

from enrich import RunConfig, run
from enrich.cli import main
from enrich.engine.files import find_model
from enrich.errors import CheckpointMismatch, ConfigError, Interrupted, ModelError, TryAgain
from enrich.finetune import SIZES, Recipe, finetune
from enrich.finetune.pairs import Pair
from enrich.finetune.training import train
from enrich.storage.lock import only_run

pytestmark = pytest.mark.slow

OPTIONS = ["--from-scratch", "test", "--steps", "120", "--evaluate-every", "40", "--batch-size", "32"]
OPTIONS += ["--learning-rate", "4e-3", "--license", "apache-2.0", "--data-license", "Our own", "--validation"]
TEMPLATE = "<{{ title | lower }}>"
COLORS, THINGS = ["red", "green", "white", "black", "blue", "grey"], ["table", "lamp", "chair", "shelf", "rug", "bench"]
MATERIALS, ROOMS = ["oak", "steel", "wool", "glass", "pine", "brass"], ["hall", "kitchen", "study", "bedroom", "den"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More than one thread is slower for models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(count: int, seed: int = 3) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        color, material, thing, room = map(rng.choice, (COLORS, MATERIALS, THINGS, ROOMS))
        text = f"This {color} {thing} of {material} fits the {room}. A {thing} to enjoy."
        found.append(
            {"id": number // 2, "title": f"{color} {material} {thing}".title(), "color": color, "description": text}
        )
    return found


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "catalog.jsonl"
    bad = [{"id": -1, "title": "Rug", "description": "<br>"}, {"id": -2, "title": "Rug", "description": "Rug"}]
    pl.DataFrame(rows(600) + bad, infer_schema_length=None).write_ndjson(path)
    pl.DataFrame(rows(80, seed=4)).write_ndjson(path.with_name("validation.jsonl"))
    return path


def start(catalog: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    template = output.with_name("prompt.j2")
    template.write_text(TEMPLATE, encoding="utf-8")
    command = [sys.executable, "-m", "enrich", "finetune", str(catalog), "-o", str(output), *OPTIONS]
    command += [str(catalog.with_name("validation.jsonl")), "--template", str(template), *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_its_model_is_used(catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    scratch = tmp_path / "model.training"
    process = start(catalog, output)
    deadline = time.monotonic() + 120
    while not (scratch / "checkpoint-40" / "trainer_state.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    (scratch / "checkpoint-80").mkdir(exist_ok=True)  # a checkpoint in pieces
    (scratch / "checkpoint-80" / "trainer_state.json").write_text('{"global_step": ')

    process = start(catalog, output)
    out, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert "going on from step 40" in log
    assert "1 dropped: only HTML" in log
    assert "1 dropped: the title only" in log
    assert "step 80 of 120: held-out loss" in log
    assert "\r" not in log
    metrics = json.loads(out.splitlines()[-1])
    history = json.loads((output / "metrics.json").read_text())
    losses = [entry["eval_loss"] for entry in history["log"] if "eval_loss" in entry]
    assert [entry["step"] for entry in history["log"] if "eval_loss" in entry] == [40, 80, 120]
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["loss"] == history["held_out"]["loss"] < 0.5
    assert history["data"]["rows"] == 602
    assert history["data"]["dropped"]["only HTML"] == 1
    written = {path.name for path in output.iterdir()}
    assert written >= {"model.safetensors", "tokenizer.json", "config.json", "README.md", "loss.svg", "enrich.toml"}
    assert not [name for name in written if name.endswith((".bin", ".pt", ".pth"))]
    assert not scratch.exists()
    assert "</svg>" in (output / "loss.svg").read_text()
    assert find_model(str(output)).template == TEMPLATE
    card = ModelCard.load(output / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.eval_results[0].metric_value == round(metrics["perplexity"], 4)
    for fact in ("catalog.jsonl", "validation.jsonl", "Our own", "| learning rate | 0.004 |", TEMPLATE, "only HTML"):
        assert fact in card.text
    assert str(tmp_path) not in card.content

    summary = run(
        RunConfig(
            str(catalog),
            str(tmp_path / "o.parquet"),
            model=str(output),
            overwrite=True,
            limit=40,
            max_new_tokens=40,
            rules=("all=off",),
        )
    )
    frame = pl.read_parquet(summary.output)
    reasons = frame["generation"].struct.field("finish_reason").to_list()
    assert reasons.count("stop") >= 36  # it has learned to stop
    named = [color in text for color, text in zip(frame["color"], frame["description"], strict=True)]
    assert sum(named) >= 30  # and to read its prompt, rendered as it was in training


def as_2014(row: dict[str, Any]) -> str:
    return repr(
        {
            "asin": f"B{row['id']:09}", "title": row["title"], "price": 9.99, "brand": "", "imUrl": "http://x/1.jpg",
            "salesRank": {"Home": 5}, "related": {"also_bought": ["B1"]}, "categories": [["Home & Kitchen", "Decor"]],
            "description": row["description"],
        }
    )  # fmt: skip


def as_2018(row: dict[str, Any]) -> str:
    return json.dumps(
        {
            "asin": f"B{row['id']:09}", "title": row["title"], "price": "$9.99", "brand": "", "tech1": "", "fit": "",
            "category": ["Home & Kitchen"], "feature": ["Fine"], "main_cat": "Amazon Home", "also_buy": [], "rank": [],
            "description": [row["description"]] if row["id"] % 2 else row["description"], "details": {},
        }
    )  # fmt: skip


def as_2023(row: dict[str, Any]) -> str:
    return json.dumps(
        {
            "parent_asin": f"B{row['id']:09}", "title": row["title"], "price": None, "store": "X", "images": [],
            "main_category": "Amazon Home", "categories": [], "features": ["Fine"], "average_rating": 4.5,
            "description": row["description"].partition(" A ")[::2], "details": {"Color": row["color"]},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "form", "lora"),
    [("meta_Home.json.gz", as_2014, None), ("meta.json", as_2018, 4), ("meta.jsonl.gz", as_2023, None)],
)
def test_amazon_metadata_trains_and_enriches(name: str, form: Any, lora: Any, tiny_gpt2: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    some = rows(40)
    data = "".join(form(row) + "\n" for row in [*some, some[0] | {"id": 99, "description": ""}]).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    settings = {"steps": 4, "lora": lora, "learning_rate": 1e-3, "batch_size": 8}
    metrics = finetune([path], tmp_path / "model", base=str(tiny_gpt2), settings=settings)
    assert metrics["training_pairs"] + metrics["held_out_pairs"] >= 20
    assert (metrics["trained_parameters"] < metrics["parameters"]) == bool(lora)
    learned, base = (load_file(directory / "model.safetensors") for directory in (tmp_path / "model", tiny_gpt2))
    assert learned.keys() == base.keys()  # adapters are merged
    name = "transformer.h.0.attn.c_attn.weight"
    assert not torch.equal(learned[name].float(), base[name].bfloat16().float())
    options = {"max_new_tokens": 8, "rules": "all=off"}
    summary = run(RunConfig(str(path), str(tmp_path / "o.parquet"), model=str(tmp_path / "model"), **options))
    assert (summary.rows, summary.generated, summary.kept) == (41, 1, 40)


def pairs(count: int) -> list[Pair]:
    return [Pair(str(row["id"]), row["title"], row["description"]) for row in rows(count)]


def test_training_stops_early_and_keeps_the_best_weights(tiny_gpt2: Path, tmp_path: Path) -> None:
    recipe = Recipe(steps=200, batch_size=4, evaluate_every=2, patience=2, learning_rate=0.5, warmup_steps=20)
    training = train(pairs(60), tmp_path / "model", base=find_model(str(tiny_gpt2)), recipe=recipe)
    losses = {entry["step"]: entry["eval_loss"] for entry in training.log if "eval_loss" in entry}
    assert training.metrics["steps"] < 200
    assert training.metrics["steps"] == training.metrics["best_step"] + 4
    assert losses[training.metrics["best_step"]] == min(losses.values())
    assert training.metrics["loss"] == pytest.approx(min(losses.values()), rel=0.05)  # by token, not by batch
    to_the_end = Recipe(steps=6, batch_size=4, evaluate_every=2, patience=0, learning_rate=0.5)
    training = train(pairs(60), tmp_path / "other", base=find_model(str(tiny_gpt2)), recipe=to_the_end)
    assert training.metrics["steps"] == training.metrics["best_step"] == 6


def test_a_stopped_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    recipe = Recipe(steps=8, batch_size=8, evaluate_every=3, seed=5)
    whole = train(pairs(60), tmp_path / "whole", size=SIZES["test"], recipe=recipe)
    asked = 0

    def after_five() -> int:
        nonlocal asked
        asked += 1
        return signal.SIGTERM if asked >= 5 else 0

    with pytest.raises(Interrupted, match="after step 5") as caught:
        train(pairs(60), tmp_path / "parts", size=SIZES["test"], recipe=recipe, should_stop=after_five)
    assert caught.value.exit_code == 143
    parts = train(pairs(60), tmp_path / "parts", size=SIZES["test"], recipe=recipe)
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-6)

    other = Recipe(steps=8, batch_size=8, evaluate_every=3, seed=6)
    with pytest.raises(CheckpointMismatch, match=r"other seed; .*--restart"):
        train(pairs(60), tmp_path / "parts", size=SIZES["test"], recipe=other)
    with pytest.raises(Interrupted):
        train(pairs(60), tmp_path / "parts", size=SIZES["test"], recipe=other, restart=True, should_stop=lambda: 2)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(steps=8, batch_size=8, evaluate_every=4, patience=0),
        Recipe(steps=8, batch_size=8, evaluate_every=4),
        Recipe(steps=80, batch_size=4, evaluate_every=2, patience=2, learning_rate=0.5, warmup_steps=8),
    ],
    ids=["to the end", "best weights", "stopped early"],
)
def test_a_training_killed_after_its_last_step_makes_no_more(
    recipe: Recipe, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = find_model(str(tiny_gpt2))
    whole = train(pairs(60), tmp_path / "whole", base=base, recipe=recipe)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("enrich.finetune.training.measure", killed)
        train(pairs(60), tmp_path / "parts", base=base, recipe=recipe)
    parts = train(pairs(60), tmp_path / "parts", base=base, recipe=recipe)
    assert {name: parts.metrics[name] for name in ("steps", "best_step")} == {
        name: whole.metrics[name] for name in ("steps", "best_step")
    }
    # Where training is in bfloat16, a model that has been trained is measured in it, one that was loaded in float32.
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=5e-3)
    weights = [load_file(tmp_path / f"{name}.training" / "model" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert [entry["step"] for entry in parts.log] == [entry["step"] for entry in whole.log if "train_loss" not in entry]


def test_epochs_schedule_and_wishes(catalog: Path, tmp_path: Path) -> None:
    settings = {"epochs": 0.5, "batch_size": 16, "schedule": "one-cycle", "accumulate": 2}
    wishes = {"max_new_tokens": 48, "top_k": 20, "temperature": 0.7, "top_p": None}
    output = tmp_path / "model"
    metrics = finetune([catalog], output, size="test", settings=settings, wishes=wishes, limit=200)
    recipe = json.loads((output / "metrics.json").read_text())["recipe"]
    assert recipe["steps"] == metrics["steps"] == round(0.5 * metrics["training_pairs"] / 32)
    assert recipe["warmup_steps"] == round(0.3 * recipe["steps"])
    found = tomllib.loads((output / "enrich.toml").read_text())
    assert found == {"max_new_tokens": 48, "sampling": {"temperature": 0.7, "top_k": 20}}
    finetune([catalog], output, size="test", settings=settings, limit=100)  # takes the place of the first
    assert not (output / "enrich.toml").exists()


def test_a_chat_model_trained_on_plain_prompts_is_asked_in_plain_prompts(
    catalog: Path, tiny_chat: Path, tmp_path: Path
) -> None:
    settings = {"steps": 2, "batch_size": 4, "max_tokens": 64}
    finetune([catalog], tmp_path / "model", base=str(tiny_chat), settings=settings, limit=60)
    assert tomllib.loads((tmp_path / "model" / "enrich.toml").read_text()) == {"chat": False}
    assert find_model(str(tmp_path / "model")).wished == {"chat": False}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--from-scratch", "test"], "no row has a title and a description"),
        (["--from-scratch", "test", "--base", "x"], "either --base MODEL or --from-scratch SIZE"),
        (["--from-scratch", "test", "--steps", "1", "--epochs", "1"], "either --steps or --epochs"),
        (["--base", "./nowhere"], "model ./nowhere: no such directory"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, options: list[str], fault: str) -> None:
    (tmp_path / "bare.csv").write_text("title\nOak table\n")
    done = CliRunner().invoke(main, ["finetune", str(tmp_path / "bare.csv"), "-o", str(tmp_path / "model"), *options])
    assert done.exit_code == 2
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"size": "huge"}, "the sizes are mini, small, gpt2"),
        ({"size": "test", "settings": {"lora": 4}}, "lora needs a base model"),
        ({"size": "test", "settings": {"max_tokens": 200}}, "context has 128 tokens"),
        ({"size": "test", "settings": {"max_tokens": 9}}, "short enough for 9 tokens"),
        ({"size": "test", "settings": {"min_words": 50}}, "0 texts are too few"),
        ({"base": "here", "size": "test"}, "either a base model or the size"),
    ],
)
def test_what_can_not_be_trained_is_refused(catalog: Path, tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        finetune([catalog], tmp_path / "model", **{"settings": {}, **options})


def test_a_directory_that_is_no_model_is_left_alone(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no model directory"):
        finetune([catalog], tmp_path, size="test", settings={})


def test_a_command_that_failed_stands_in_no_ones_way(catalog: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="short enough"):
        finetune([catalog], tmp_path / "model", size="test", settings={"max_tokens": 9, "steps": 1})
    metrics = finetune([catalog], tmp_path / "model", size="test", settings={"steps": 1}, limit=60)
    assert metrics["steps"] == 1


def test_two_trainings_of_one_model_do_not_meet(catalog: Path, tmp_path: Path) -> None:
    with only_run(tmp_path / "model"), pytest.raises(TryAgain, match="being written by process"):
        finetune([catalog], tmp_path / "model", size="test", settings={"steps": 1})


def test_a_base_without_end_of_text_is_refused(catalog: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in tiny_gpt2.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(base)
    with pytest.raises(ModelError, match="no end-of-text token"):
        finetune([catalog], tmp_path / "model", base=str(base), settings={"steps": 1})
