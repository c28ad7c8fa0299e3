from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hostile import MARKUP, hostile_catalog

from enrich import report as reports
from enrich.report import page
from enrich.report.data import Category, Count
from enrich.report.gather import gather
from enrich.report.opening import open_output

OUTSIDE = {"src", "href", "action", "srcset", "data", "poster", "xlink:href"}


class Reader(HTMLParser):
    """Collects what a browser would run, load or show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts = 0
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.shown = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append(name)
            if name in OUTSIDE:
                self.addresses.append(value or "")

    def handle_data(self, data: str) -> None:
        self.shown += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


@pytest.fixture
def hostile(enrich: Callable[..., Any], tmp_path: Path) -> str:
    enrich(hostile_catalog())
    return page.render(gather(open_output(tmp_path / "out.parquet")))


def test_no_text_of_the_catalog_is_markup(hostile: str) -> None:
    found = read(hostile)
    assert found.scripts == 1
    assert found.handlers == []
    assert not {"img", "i", "u", "iframe"} & set(found.tags)
    assert found.tags.count("style") == 1
    for title in MARKUP[2:5]:
        assert title in found.shown
    assert "7 * 7" in found.shown
    assert "<script>alert('kept')</script> A person's words: =1+1, עברית 🎉." in found.shown


def test_category_names_in_charts_are_text(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(hostile_catalog())
    report = gather(open_output(tmp_path / "out.parquet"))
    name = "<script>alert(1)</script>"
    html = page.render(replace(report, categories=(Category(name, 9, 9, 1, 0, 4.0),), finish_reasons=(Count(name, 9),)))
    assert name not in html
    assert read(html).scripts == 1


def test_nothing_is_loaded_from_elsewhere(hostile: str) -> None:
    assert all(address.startswith(("#", "data:")) for address in read(hostile).addresses)
    assert "@import" not in hostile
    assert not re.search(r"url\((?!#)", hostile)
    assert set(re.findall(r"https?://[^\s\"'<)]+", hostile)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in hostile


def test_charts_are_drawn_with_what_to_show_when_pointed_at(hostile: str) -> None:
    assert hostile.count("<svg") >= 6
    assert "var(--first)" in hostile
    assert re.search(r"<title>\d+ to \d+ words: \d+ rows</title>", hostile)


def test_a_page_stays_small_whatever_the_texts(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(hostile_catalog())
    report = gather(open_output(tmp_path / "out.parquet"))
    long = replace(report.sample[0], before="<" * 2_000, text="x" * 2_000)
    html = page.render(replace(report, sample=(long,) * 2_000))
    assert len(html.encode()) < page.LARGEST


def test_a_page_takes_its_place_in_one_step(enrich: Callable[..., Any], tmp_path: Path) -> None:
    enrich(hostile_catalog())
    target = reports.report_path(tmp_path / "out.parquet")
    reports.write_report(tmp_path / "out.parquet", target)
    assert target.name == "out.report.html"
    assert not list(tmp_path.glob(".*.tmp"))
