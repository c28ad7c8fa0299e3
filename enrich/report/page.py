"""The page: a report's data in one HTML file that needs nothing else, neither a network nor a server."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import jinja2

from enrich.report import charts
from enrich.report.charts import Chart
from enrich.report.compare import Comparison
from enrich.report.data import Report
from enrich.storage import durable

LARGEST = 2_000_000  # bytes of a page
_HERE = Path(__file__).parent


def render(report: Report) -> str:
    """Return a report as HTML. The sample is cut until the page is under LARGEST bytes."""
    drawn = _charts(report)
    while True:
        page = _template("report.html.j2").render(report=report, charts=drawn, **_assets())
        if len(page.encode()) < LARGEST or not report.sample:
            return page
        report = replace(report, sample=report.sample[: len(report.sample) // 2])


def render_comparison(found: Comparison) -> str:
    """Return a comparison as HTML. The pairs are cut until the page is under LARGEST bytes."""
    texts = "Bars: A, the line: B, drawn to the same scale."
    drawn = [Chart("Text length", texts, charts.histogram(found.first.words, "words", before=found.second.words))]
    while True:
        page = _template("compare.html.j2").render(found=found, charts=drawn, **_assets())
        if len(page.encode()) < LARGEST or not found.pairs:
            return page
        found = replace(found, pairs=found.pairs[: len(found.pairs) // 2])


def write(page: str, path: Path) -> None:
    """Write a page in one atomic step."""
    with durable.aside(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _assets() -> dict[str, str]:
    """Return style and script, and the hash by which the page allows this script and no other."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "script_hash": script_hash}


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda share: "–" if share is None else f"{share:.1%}"
    return environment.get_template(name)


def _charts(report: Report) -> list[Chart]:
    """Draw what the report has figures for."""
    texts = report.words.total
    drawn = []
    if len(report.throughput.moments) > 1:
        note = "Tokens of the texts that were finished in each stretch of the run; a text counts when it is done."
        drawn.append(Chart("Throughput", note, charts.throughput(report.throughput)))
    if report.buckets:
        note = "What was computed for nothing: padding of the prompts, and slots that held no text any more."
        drawn.append(Chart("Waste by bucket", note, charts.buckets(report.buckets)))
    if texts:
        before = report.drift.words if report.drift else None
        note = f"Mean {report.words.mean:,}, median {report.words.median:,}, longest {report.words.largest:,} words."
        note += " The line is the night before, drawn to the same scale." if before else ""
        drawn.append(Chart("Text length", note, charts.histogram(report.words, "words", before=before)))
        one = report.prompt_tokens
        note = f"Mean {one.mean:,}, median {one.median:,}, longest {one.largest:,} tokens."
        drawn.append(Chart("Prompt length", note, charts.histogram(one, "prompt tokens")))
        one = report.generated_tokens
        note = f"Mean {one.mean:,}, median {one.median:,}, longest {one.largest:,} tokens."
        drawn.append(Chart("Generated tokens", note, charts.histogram(one, "new tokens")))
        drawn.append(
            Chart(
                "Why texts ended", "stop: by themselves; length: cut off.", charts.counts(report.finish_reasons, texts)
            )
        )
        note = "The attempt whose text was published."
        drawn.append(Chart("Attempts", note, charts.counts(report.attempts, texts)))
    if report.categories:
        drawn.append(
            Chart("Categories", "Rows that were to have a text of a model.", charts.categories(report.categories))
        )
    return drawn
