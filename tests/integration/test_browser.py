"""Report and demo in a real browser: `make browser-test`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("playwright", reason="`make browser-test` installs it")
pytest.importorskip("gradio", reason="`make browser-test` installs it")

from browser import chromium, demo, page
from hostile import MARKUP, hostile_catalog

from enrich.report import write_report
from enrich.report.compare import compare
from enrich.report.opening import open_output
from enrich.report.page import render_comparison, write

pytestmark = pytest.mark.browser
SAMPLES = Path(__file__).parent.parent.parent / "sample_catalogs"
LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def report(enrich: Callable[..., Any], tmp_path: Path) -> str:
    enrich(pl.concat([hostile_catalog(), _home()], how="diagonal"), max_quarantined="100%", rules="all=flag")
    write_report(tmp_path / "out.parquet", tmp_path / "report.html")
    return (tmp_path / "report.html").as_uri()


def _home() -> pl.DataFrame:
    return pl.read_parquet(SAMPLES / "home.parquet").head(60).select("sku", "title", "category", "color")


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_report_is_drawn_in_every_look(browser: Any, report: str, width: int, scheme: str) -> None:
    with page(browser, report, width=width, scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        charts = shown.locator("figure svg")
        assert charts.count() >= 6
        for number in range(charts.count()):
            box = charts.nth(number).bounding_box()
            assert box["width"] > 100
            assert box["height"] > 20
            assert box["x"] + box["width"] <= width
        # A bar of the text lengths is as tall as its rows ask for, and has a colour of the style sheet.
        bars = shown.locator("figure", has_text="Text length").locator("path:has(title)")
        heights = [bars.nth(number).bounding_box()["height"] for number in range(bars.count())]
        assert max(heights) > 40
        ground, ink = (
            shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
        )
        light = sum(map(int, ground[4:-1].split(","))) > sum(map(int, ink[4:-1].split(",")))
        assert light == (scheme == "light")


def test_hostile_cells_are_plain_text_in_a_report(browser: Any, report: str) -> None:
    with page(browser, report) as shown:
        shown.on("dialog", lambda _: pytest.fail("a script of the catalog ran"))
        text = shown.locator("body").inner_text()
        assert MARKUP[2] in text
        assert "شمعدان زجاجي 🕯️ أسود" in text
        assert "{{ 7 * 7 }}" in text
        assert shown.locator("img, iframe, main svg[onload], script").count() == 1
        assert shown.locator("article", has_text="<script>alert('kept')</script>").count() >= 1


def test_search_and_filter_leave_what_fits(browser: Any, report: str) -> None:
    with page(browser, report) as shown:
        rows = shown.locator("#sample-rows > .row")
        everything = rows.count()
        assert shown.locator("#sample-rows > .row:visible").count() == min(20, everything)
        shown.locator("#more").click()
        assert shown.locator("#sample-rows > .row:visible").count() == min(40, everything)
        shown.locator("#search").fill("=cmd|' RUG")
        visible = shown.locator("#sample-rows > .row:visible")
        assert visible.count() >= 1
        assert all("=cmd|" in visible.nth(number).inner_text() for number in range(visible.count()))
        shown.locator("#search").fill("no product has these words")
        assert visible.count() == 0
        assert shown.locator("#found").inner_text().startswith("0 of ")
        shown.locator("#search").fill("")
        shown.locator("#status").select_option("kept")
        assert visible.count() >= 1
        assert all("kept" in visible.nth(number).inner_text() for number in range(visible.count()))


def test_a_report_is_printed_without_what_needs_a_screen(browser: Any, report: str) -> None:
    with page(browser, report) as shown:
        shown.emulate_media(media="print")
        assert shown.locator("#search").is_hidden()
        assert shown.locator("figure svg").first.is_visible()
        assert shown.pdf()[:4] == b"%PDF"


def test_two_outputs_are_compared(browser: Any, enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(_home(), name="a.parquet")
    enrich(_home(), name="b.parquet", seed=2)
    found = compare(open_output(tmp_path / "a.parquet"), open_output(tmp_path / "b.parquet"))
    write(render_comparison(found), tmp_path / "both.html")
    for width in (1280, 390):
        with page(browser, (tmp_path / "both.html").as_uri(), width=width) as shown:
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            shown.locator("#status").select_option("other")
            assert shown.locator("#sample-rows > .row:visible").count() > 5


# Python reads it when it starts: whoever is called, other than this machine itself, is noted.
NOTE_CALLS = """
import os, socket
def noted(name):
    original = getattr(socket.socket, name)
    def call(self, address):
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost", "0.0.0.0")):
            with open(os.environ["CALLS"], "a") as file:
                print(address, file=file)
        return original(self, address)
    setattr(socket.socket, name, call)
noted("connect"), noted("connect_ex")
original = socket.getaddrinfo
def asked(host, *others, **named):
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with open(os.environ["CALLS"], "a") as file:
            print(host, file=file)
    return original(host, *others, **named)
socket.getaddrinfo = asked
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("site")
    calls = directory / "calls"
    (directory / "sitecustomize.py").write_text(NOTE_CALLS)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(directory), "CALLS": str(calls)}
    with demo("home-mini", environment=environment) as served:
        yield served
    assert not calls.exists(), calls.read_text()


def test_a_call_to_another_machine_would_be_noted(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTE_CALLS)
    code = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect_ex(('192.0.2.1', 9))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CALLS": str(tmp_path / "calls")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert "192.0.2.1" in (tmp_path / "calls").read_text()


def test_the_demo_listens_on_this_machine_alone(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{address}/config") as answer:
        assert json.load(answer)["analytics_enabled"] is False
    with pytest.raises(OSError), socket.create_connection((_own_address(), int(address.rpartition(":")[2])), 2):
        pass


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # sends nothing; tells by which address this machine would go out
        return str(asked.getsockname()[0])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_demo_writes_from_a_product_and_from_a_typed_prompt(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    with page(browser, address, width=width, scheme=scheme) as shown:
        shown.locator("#title textarea, #title input").first.fill("<b>Oak</b> Side Table")
        prompt = shown.locator("#prompt textarea")
        shown.wait_for_function("document.querySelector('#prompt textarea').value.includes('oak')")
        shown.locator("#write").click()
        shown.locator("#cleaned .verdict").wait_for(timeout=60_000)
        written = shown.locator("#raw textarea").input_value()
        assert len(written.split()) > 5
        assert shown.locator("#cleaned mark").count() >= 1
        prompt.fill("title: black metal lantern\ndescription:")
        shown.locator("#three").click()
        shown.locator("#attempt-3 .verdict").wait_for(timeout=60_000)
        texts = {shown.locator(f"#attempt-{number} .draft").inner_text() for number in (1, 2, 3)}
        assert len(texts) > 1
        assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_the_demo_says_what_is_wrong_with_an_attribute(browser: Any, address: str) -> None:
    with page(browser, address) as shown:
        shown.locator("#attributes textarea").fill("<img src=x onerror=alert(1)>")
        shown.get_by_text("write name and value", exact=False).first.wait_for(timeout=60_000)
        assert shown.locator("img[src=x]").count() == 0


def test_a_catalog_that_is_uploaded_comes_back_enriched(browser: Any, address: str, tmp_path: Path) -> None:
    hostile_catalog().with_columns(description=pl.lit(None, pl.String)).write_csv(tmp_path / "shop.csv")
    with page(browser, address) as shown:
        shown.on("dialog", lambda _: pytest.fail("a script of the catalog ran"))
        shown.get_by_role("tab", name="A catalog").click()
        shown.locator("#upload input[type=file]").set_input_files(tmp_path / "shop.csv")
        shown.get_by_text("shop.csv").first.wait_for(timeout=60_000)
        shown.locator("#run").click()
        shown.get_by_text("8 rows").first.wait_for(timeout=180_000)
        with shown.expect_download() as coming:
            shown.locator("#download a[download]").first.click()
        coming.value.save_as(tmp_path / "back.parquet")
    back = pl.read_parquet(tmp_path / "back.parquet")
    assert back["title"].to_list() == MARKUP
    assert "generation" in back.columns
