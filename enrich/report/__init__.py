"""The report on an output: what its run did and what its texts are like, as data and as a page.

`opening` opens the file, `counting` and `showing` read it, `gather` makes of that the parts that `data` has, and
`charts` and `page` draw them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enrich.report.data import Report
    from enrich.report.opening import Output


def write_report(
    output: Path,
    page: Path,
    *,
    before: Output | None = None,
    sample: int = 300,
    seed: int = 0,
    called: str | None = None,
) -> Report:
    """Write the report on an output as one HTML file, and return its data.

    `before` is the output of the night before, if it was opened in time; `called` the output's name for the reader, if
    that is not its path. Raises CatalogError if the output can't be read, ConfigError if the package that draws the
    charts is not installed.
    """
    from enrich.report.charts import check_available
    from enrich.report.gather import gather
    from enrich.report.opening import open_output
    from enrich.report.page import render, write

    check_available()
    report = gather(open_output(output), before=before, sample=sample, seed=seed)
    report = replace(report, output=called or report.output)
    write(render(report), page)
    return report


def report_path(output: Path | str) -> Path | str:
    """Return where the report on an output goes if nobody says otherwise; beside a URL, if that is one."""
    if isinstance(output, str):
        return f"{output.removesuffix(Path(output).suffix)}.report.html"
    return output.with_name(f"{output.stem}.report.html")
