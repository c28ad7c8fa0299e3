"""Measure a night on which nothing, or little, has changed, at a million rows; see benchmarks/README.md.

The first night would take days here, so its texts are made by an engine that answers at once. Everything else is real.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"
OPTIONS = ["--max-new-tokens", "64", "-q"]


def make_catalog(path: Path, rows: int) -> None:
    home = pl.read_parquet(HOME).with_columns(description=pl.lit(None, pl.String))
    frame = pl.concat([home] * (rows // len(home) + 1)).head(rows)
    frame.with_columns(
        pl.concat_str(pl.lit("P"), pl.int_range(rows).cast(pl.String)).alias("sku"),
        pl.concat_str("title", pl.lit(" no. "), pl.int_range(rows).cast(pl.String)).alias("title"),
    ).write_parquet(path)


def instant_run(catalog: Path) -> None:
    """Run with canned texts of some 50 words in place of generated ones."""
    from enrich import RunConfig, run
    from enrich.engine import reference
    from enrich.engine.protocol import Completion, Request

    class CannedEngine(reference.ReferenceEngine):
        def generate(self, requests: Sequence[Request], *_: Any) -> Iterator[tuple[int, Completion]]:
            for index, request in enumerate(requests):
                yield index, Completion(request.prompt_token_ids[-56:], "stop")

    reference.ReferenceEngine = CannedEngine  # type: ignore[misc]
    run(RunConfig(str(catalog), max_new_tokens=64, commit_rows=16_384, batch_size=4096, batch_tokens=10**7))


def measure(command: list[str]) -> dict[str, Any]:
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return {"seconds": round(time.monotonic() - started, 2), "peak_mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--instant", type=Path)
    arguments = parser.parse_args()
    if arguments.instant:
        instant_run(arguments.instant)
        return
    with tempfile.TemporaryDirectory() as directory:
        catalog, output = Path(directory) / "catalog.parquet", Path(directory) / "catalog.enriched.parquet"
        make_catalog(catalog, arguments.rows)
        instant = [sys.executable, __file__, "--instant", str(catalog)]
        unchanged = [sys.executable, "-m", "enrich", "run", str(catalog), *OPTIONS]
        read = f"import polars; [polars.read_parquet(path) for path in ({str(catalog)!r}, {str(output)!r})]"
        report("first night, canned texts", measure(instant))
        for _ in range(3):
            report("polars reads both files", measure([sys.executable, "-c", read]))
            report("unchanged", measure(unchanged))
        frame = pl.read_parquet(catalog)
        changed = frame.with_columns(
            color=pl.when(pl.int_range(len(frame)) % 100 == 7).then(pl.lit("Puce")).otherwise("color")
        )
        changed.write_parquet(catalog)
        report("one row in a hundred changed, canned texts", measure(instant))
        changed.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(catalog)
        report("the same rows in another order", measure(instant))


def report(case: str, figures: dict[str, Any]) -> None:
    print(json.dumps({"case": case, **figures}), flush=True)


if __name__ == "__main__":
    main()
