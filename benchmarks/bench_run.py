"""Measure `enrich run` beside the pipeline of transformers on the same prompts; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"
NEW_TOKENS = 96


def bench_enrich(rows: int) -> dict[str, Any]:
    from enrich import RunConfig, run

    with tempfile.TemporaryDirectory() as directory:
        output = str(Path(directory) / "out.parquet")
        summary = run(RunConfig(str(HOME), output, limit=rows, overwrite=True, max_new_tokens=NEW_TOKENS))
    return {
        "rows": summary.rows,
        "tokens": summary.generated_tokens,
        "tokens_per_second": summary.tokens_per_second,
        "rows_per_second": round(summary.rows / summary.seconds, 2),
        "padding_waste": summary.padding_waste,
    }


def bench_pipeline(rows: int, batch_size: int) -> dict[str, Any]:
    import torch
    from transformers import pipeline

    from enrich.catalog import Catalog, RoleOptions
    from enrich.categories import Categories
    from enrich.engine.files import EMBEDDED
    from enrich.prompts import compile_template, render

    categories = Categories()
    prompts = []
    for _, products in Catalog(HOME, RoleOptions(), limit=rows).batches():
        for product in products:
            category = categories.of(product)
            prompts.append(render(compile_template(category.template, category.name), category.arrange(product)))
    generator = pipeline("text-generation", str(EMBEDDED / "home-mini"), dtype=torch.float32, device="cpu")
    generator.tokenizer.padding_side = "left"
    generator.tokenizer.pad_token = generator.tokenizer.eos_token
    started = time.monotonic()
    texts = generator(
        sorted(prompts, key=len), batch_size=batch_size, max_new_tokens=NEW_TOKENS, do_sample=True, temperature=0.7,
        top_k=50, top_p=0.95, return_full_text=False,
    )  # fmt: skip
    seconds = time.monotonic() - started
    tokens = sum(len(generator.tokenizer(text[0]["generated_text"])["input_ids"]) for text in texts)
    return {"rows": rows, "tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}


CASES = {
    "enrich": lambda rows: bench_enrich(rows),
    "pipeline-64": lambda rows: bench_pipeline(rows, 64),
    "pipeline-1": lambda rows: bench_pipeline(min(rows, 40), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--case", choices=CASES)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(CASES[arguments.case](arguments.rows)))
        return
    for case in CASES:  # a process each, so that each has its own memory and load time
        started = time.monotonic()
        command = [sys.executable, __file__, "--case", case, "--rows", str(arguments.rows)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            out = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{case} failed with exit code {process.returncode}")
        figures = {"seconds": round(time.monotonic() - started, 1), "peak_mib": round(usage.ru_maxrss / 1024)}
        print(json.dumps({"case": case, **json.loads(out.splitlines()[-1]), **figures}), flush=True)


if __name__ == "__main__":
    main()
