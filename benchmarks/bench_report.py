"""Measure `enrich report` on a large output: python benchmarks/bench_report.py OUTPUT [--rows 1000000].

The output's rows are repeated, each with words of its own, until there are enough. Prints seconds, peak memory and the
page's size.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import polars as pl
import pyarrow.parquet as pq

from enrich.output import METADATA_KEY, read_facts


def make(output: Path, rows: int, target: Path) -> None:
    """Write an output of so many rows made of a small one's, no two texts the same."""
    facts = read_facts(output)
    column, id_column = facts["config"]["output_column"], facts["roles"]["id"]
    frame = pl.read_parquet(output)
    names = {"generated": int((frame["generation"].struct.field("status") == "generated").sum())}
    times = -(-rows // len(frame))
    facts["summary"] |= {"rows": rows, "kept": 0} | {name: min(count * times, rows) for name, count in names.items()}
    writer = None
    for start in range(0, times, 100):
        many = pl.concat([frame] * min(100, times - start)).with_row_index("_n", start * len(frame))
        letters = [(digit, chr(97 + int(digit))) for digit in "0123456789"]
        word = pl.col("_n").cast(pl.String)
        for digit, letter in letters:
            word = word.str.replace_all(digit, letter)
        many = many.with_columns(
            pl.concat_str(pl.col(column), pl.lit(" Model "), word, pl.lit(".")).alias(column),
            pl.concat_str(pl.col(id_column), pl.lit("-"), pl.col("_n").cast(pl.String)).alias(id_column),
        ).drop("_n")
        many = many.head(rows - start * len(frame))
        table = many.to_arrow().cast(pq.read_schema(output).remove_metadata())
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=65_536)
    assert writer is not None
    writer.add_key_value_metadata({METADATA_KEY: json.dumps(facts)})
    writer.close()


@click.command()
@click.argument("output", type=click.Path(exists=True, path_type=Path))
@click.option("--rows", default=1_000_000, show_default=True)
def main(output: Path, rows: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        large, page = Path(directory) / "large.parquet", Path(directory) / "report.html"
        make(output, rows, large)
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "enrich", "report", large, "-o", page], check=True)
        seconds = time.monotonic() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = used.ru_maxrss / 1024
        click.echo(
            f"{rows:,} rows, {large.stat().st_size / 2**20:.0f} MiB: {seconds:.1f} s,"
            f" {used.ru_utime + used.ru_stime:.1f} s on the processors, {peak:.0f} MiB,"
            f" page {page.stat().st_size / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
