"""Measure a night on which nothing, or little, has changed, at a million rows; see benchmarks/README.md.

The first night would take days here, so its texts are put together from ready sentences and go through the project's
own keys and writer. Later nights are real, but for the engine, which answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"
OPTIONS = {"max_new_tokens": 64}
SENTENCES_A_TEXT = 5  # of ten words each


def make_catalog(path: Path, rows: int, *, described: bool = False) -> None:
    """Repeat the sample until there are enough rows, each with an id and a title of its own; `described` poorly."""
    home = pl.read_parquet(HOME).with_columns(description=pl.lit(None, pl.String))
    frame = pl.concat([home] * (rows // len(home) + 1)).head(rows)
    frame = frame.with_columns(
        pl.concat_str(pl.lit("P"), pl.int_range(rows).cast(pl.String)).alias("sku"),
        pl.concat_str("title", pl.lit(" no. "), pl.int_range(rows).cast(pl.String)).alias("title"),
    )
    if described:  # 160 characters each, in catalogs of some 320 bytes a row
        told = ["title", "category", "brand", "color", "material", "size"]
        frame = frame.with_columns(
            pl.concat_str(*told, pl.lit("Buy now, best price."), separator="; ", ignore_nulls=True).alias("description")
        )
    write_catalog(frame, path)


def write_catalog(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)


def publish_first_night(catalog: Path) -> None:
    """Publish the catalog with texts that no engine has made."""
    import pyarrow as pa

    from enrich import RunConfig
    from enrich.generation import GENERATED, Generation, Outcome, text_digest
    from enrich.outcomes import outcome_table
    from enrich.stages.publish import publish
    from enrich.stages.setup import open_checkpoint, prepare
    from enrich.stages.survey import survey_catalog

    started = time.monotonic()
    run = prepare(RunConfig(str(catalog), **OPTIONS), lambda: 0)
    checkpoint = open_checkpoint(run)
    survey = survey_catalog(run, checkpoint)
    draw = random.Random(1)
    words = sorted({word for title in pl.read_parquet(HOME)["title"] for word in title.lower().split()})
    sentences = [" ".join(draw.choices(words, k=10)).capitalize() + "." for _ in range(20_000)]

    def outcome(ordinal: int) -> Outcome:
        text = " ".join(draw.choices(sentences, k=SENTENCES_A_TEXT))
        record = Generation(
            GENERATED, survey.wanted.key(ordinal), run.files.name, run.files.revision, 40, 56, "stop", ordinal, 1, 48,
            text_digest(text), run_id=checkpoint.run_id,
        )  # fmt: skip
        return Outcome(ordinal, text, record)

    class MadeUp(type(checkpoint)):  # type: ignore[misc]
        num_listed = survey.rows

        def outcomes(self) -> Iterator[pa.Table]:
            for first in range(0, survey.rows, 8192):
                yield outcome_table([outcome(n) for n in range(first, min(first + 8192, survey.rows))])

    publish(run, survey, MadeUp(checkpoint.directory, checkpoint.run_id, 1, 1.0, {}), 0, started, partial=False)


def run_with_canned_texts(catalog: Path) -> None:
    """Run with the ends of the prompts in place of generated texts."""
    from enrich import RunConfig, run
    from enrich.engine import reference
    from enrich.engine.protocol import Completion, Request

    class CannedEngine(reference.ReferenceEngine):
        def generate(self, requests: Sequence[Request], *_: Any) -> Iterator[tuple[int, Completion]]:
            for index, request in enumerate(requests):
                yield index, Completion(request.prompt_token_ids[-56:], "stop")

    reference.ReferenceEngine = CannedEngine  # type: ignore[misc]
    run(RunConfig(str(catalog), commit_rows=16_384, batch_size=4096, batch_tokens=10**7, **OPTIONS))


class Cost(NamedTuple):
    """What a process took. On a machine that others use too, its time on the processors says more than the clock."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(command: Sequence[str]) -> Cost:
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def report(case: str, command: Sequence[str], repeat: int = 1, beside: Sequence[str] = ()) -> None:
    """Print a command's median cost; with `beside`, run in turn, that one's too, and the ratios of their seconds."""
    runs = [(measure(beside) if beside else None, measure(command)) for _ in range(repeat)]
    result: dict[str, Any] = {"case": case, "runs": repeat, **median(one for _, one in runs)}
    pairs = [(other, one) for other, one in runs if other is not None]
    if pairs:
        result["polars"] = median(other for other, _ in pairs)
        result["times_polars"] = [round(one.seconds / other.seconds, 2) for other, one in pairs]
        result["times_polars_cpu"] = [round(one.cpu_seconds / other.cpu_seconds, 2) for other, one in pairs]
    print(json.dumps(result), flush=True)


def median(costs: Iterable[Cost]) -> dict[str, float]:
    return {
        name: round(statistics.median(values), 2)
        for name, values in zip(Cost._fields, zip(*costs, strict=True), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet", help="of the catalog")
    parser.add_argument("--only", choices=["unchanged", "changed", "reordered"], help="measure this case alone")
    parser.add_argument("--repeat", type=int, default=3, help="runs of the unchanged night, each beside polars")
    parser.add_argument("--directory", type=Path, help="keep the files here, and use those that are here already")
    parser.add_argument("--first-night", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--canned", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_night:
        publish_first_night(arguments.first_night)
    elif arguments.canned:
        run_with_canned_texts(arguments.canned)
    elif arguments.directory:
        nights(arguments, arguments.directory)
    else:
        with tempfile.TemporaryDirectory() as directory:
            nights(arguments, Path(directory))


def nights(arguments: argparse.Namespace, directory: Path) -> None:
    catalog = directory / f"{arguments.format}-{arguments.rows}.{arguments.format}"
    output = catalog.with_suffix(".enriched.parquet")
    reader = "scan_csv" if arguments.format == "csv" else "scan_parquet"
    if not output.exists():
        make_catalog(catalog, arguments.rows)
        report("first night, texts put together", [sys.executable, __file__, "--first-night", str(catalog)])
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    unchanged = [sys.executable, "-m", "enrich", "run", str(catalog), *options, "-q"]
    types = ", infer_schema=False" if arguments.format == "csv" else ""
    read = f"import polars; polars.{reader}({str(catalog)!r}{types}).collect(); polars.read_parquet({str(output)!r})"
    canned = [sys.executable, __file__, "--canned", str(catalog)]
    wanted = {arguments.only} if arguments.only else {"unchanged", "changed", "reordered"}
    if "unchanged" in wanted:
        report("nothing changed", unchanged, arguments.repeat, [sys.executable, "-c", read])
    frame = pl.read_csv(catalog, infer_schema=False) if arguments.format == "csv" else pl.read_parquet(catalog)
    if "changed" in wanted:
        is_changed = pl.int_range(len(frame)) % 100 == 7
        frame = frame.with_columns(color=pl.when(is_changed).then(pl.lit("Puce")).otherwise("color"))
        write_catalog(frame, catalog)
        report("one row in a hundred changed, canned texts", canned)
    if "reordered" in wanted:
        write_catalog(frame.sample(fraction=1.0, shuffle=True, seed=1), catalog)
        report("the same rows in another order", canned)


if __name__ == "__main__":
    main()
