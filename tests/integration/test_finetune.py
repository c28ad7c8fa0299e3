"""Training in miniature: the loss falls, the end of a text is learned, and `enrich run` takes the result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from enrich import RunConfig, run
from enrich.engine.loading import find_model

OPTIONS = ["--from-scratch", "test", "--steps", "240", "--evaluate-every", "60", "--batch-size", "32"]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(3)
    things, colors = ["table", "lamp", "chair", "shelf", "rug"], ["red", "green", "white", "black"]
    rows = []
    for number in range(600):
        thing, color = rng.choice(things), rng.choice(colors)
        text = f"This {color} {thing} fits every home. A {thing} to enjoy."
        rows.append({"id": number // 2, "title": f"{color.title()} {thing}", "color": color, "description": text})
    path = tmp_path_factory.mktemp("training") / "catalog.jsonl"
    pl.DataFrame(rows).write_ndjson(path)
    return path


TEMPLATE = "<{{ title | lower }}>"


def start(catalog: Path, output: Path) -> subprocess.Popen[str]:
    template = output.with_name("prompt.j2")
    template.write_text(TEMPLATE, encoding="utf-8")
    command = [sys.executable, "-m", "enrich", "finetune", str(catalog), "-o", str(output), *OPTIONS]
    command += ["--template", str(template)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_its_model_is_used(catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    scratch = tmp_path / "model.training"
    process = start(catalog, output)
    deadline = time.monotonic() + 120
    while not (scratch / "checkpoint-60" / "trainer_state.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()

    process = start(catalog, output)
    out, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    metrics = json.loads(out.splitlines()[-1])
    history = json.loads((output / "metrics.json").read_text())
    losses = [entry["eval_loss"] for entry in history["log"] if "eval_loss" in entry]
    assert [entry["step"] for entry in history["log"] if "eval_loss" in entry] == [60, 120, 180, 240]
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["loss"] < 0.5
    assert {path.name for path in output.iterdir()} >= {"model.safetensors", "tokenizer.json", "config.json"}
    assert not list(output.glob("*.bin"))
    assert find_model(str(output)).template == TEMPLATE

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


def test_a_catalog_without_descriptions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("title\nOak table\n")
    process = start(tmp_path / "bare.csv", tmp_path / "model")
    _, log = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no row has a title and a description" in log
    assert "Traceback" not in log
