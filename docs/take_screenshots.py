"""Take the docs' screenshots of report and demo from a real run: `make screenshots`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from browser import chromium, demo, page  # noqa: E402

TARGET = ROOT / "docs" / "screenshots"
CATALOG = ROOT / "sample_catalogs" / "home.parquet"
LOOKS = ((1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark"))


@click.command()
@click.option("--output", type=click.Path(exists=True, path_type=Path), help="Enriched file to report on, if not anew.")
def main(output: Path | None) -> None:
    """Write docs/screenshots/*.png."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        if output is None:
            output = Path(directory) / "home.enriched.parquet"
            _enrich("run", CATALOG, "-o", output)
        report = Path(directory) / "report.html"
        _enrich("report", output.name, "-o", report, cwd=output.parent)
        for width, height, scheme in LOOKS:
            with page(browser, report.as_uri(), width=width, height=height, scheme=scheme) as shown:
                shown.screenshot(path=TARGET / f"report-{scheme}-{width}.png")
                if (width, scheme) == (1280, "light"):
                    shown.locator("#sample").scroll_into_view_if_needed()
                    shown.evaluate("document.getElementById('sample').scrollIntoView()")
                    shown.screenshot(path=TARGET / f"report-texts-{scheme}-{width}.png")
        with demo("home-mini", environment=os.environ | {"HF_HUB_OFFLINE": "1"}) as address:
            for width, height, scheme in LOOKS:
                with page(browser, address, width=width, height=height, scheme=scheme) as shown:
                    shown.locator("#write").click()
                    shown.locator("#cleaned .verdict").wait_for(timeout=60_000)
                    shown.locator("#three").click()
                    shown.locator("#attempt-3 .verdict").wait_for(timeout=60_000)
                    shown.screenshot(path=TARGET / f"demo-{scheme}-{width}.png")
    for path in sorted(TARGET.glob("*.png")):
        _make_small(path)
        click.echo(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def _enrich(*arguments: object, cwd: Path | None = None) -> None:
    subprocess.run([sys.executable, "-m", "enrich", *map(str, arguments)], check=True, cwd=cwd)


def _make_small(path: Path) -> None:
    """Save a picture with 128 colours, which is a third of the bytes and looks the same."""
    from PIL import Image

    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
