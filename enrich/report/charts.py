"""Charts: Vega-Lite drawn to SVG by vl-convert, offline, in colours that the page's style sheet decides.

Colours are CSS variables, so that one drawing serves light, dark and paper; each mark tells its figures when pointed at
and to a screen reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from enrich.errors import ConfigError
from enrich.report.data import BucketUse, Category, Count, Histogram, Throughput

_SVG = "{http://www.w3.org/2000/svg}"
_WIDTH, _HEIGHT = 300, 170
_INK, _FAINT = "currentColor", "var(--rule)"
_LEVEL = {"labelAngle": 0, "labelOverlap": True}
_BARE = {"domain": False, "ticks": False}
FIRST, SECOND, THIRD = "var(--first)", "var(--second)", "var(--third)"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its heading; `svg` is safe to stand in a page as it is."""

    title: str
    note: str
    svg: str


def check_available() -> None:
    """Raise ConfigError if vl-convert is not installed."""
    try:
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ConfigError("a report's page needs vl-convert: pip install 'enrich[report]'; --json does not") from error


def histogram(one: Histogram, unit: str, *, before: Histogram | None = None) -> str:
    """Draw how many texts fall into each bin; `before`, the night before, as a line over it, in shares of its own."""
    values = [
        {"low": low, "high": high, "rows": rows, "tip": f"{low:,} to {high - 1:,} {unit}: {rows:,} rows"}
        for low, high, rows in zip(one.edges, one.edges[1:], one.rows, strict=False)
    ]
    bars: dict[str, Any] = {
        "data": {"values": values},
        "mark": {"type": "bar", "color": FIRST, "binSpacing": 1},
        "encoding": {
            "x": {"field": "low", "type": "quantitative", "bin": "binned", "title": unit},
            "x2": {"field": "high"},
            "y": {"field": "rows", "type": "quantitative", "title": "rows"},
            "description": {"field": "tip"},
        },
    }
    layers = [bars]
    if before is not None and before.total:
        # Bins may be of another width there.
        scale = one.total / before.total * (one.edges[1] - one.edges[0]) / (before.edges[1] - before.edges[0])
        line = [
            {
                "at": (low + high) / 2,
                "rows": rows * scale,
                "tip": f"beside it, {low:,} to {high - 1:,}: {rows:,} rows",
            }
            for low, high, rows in zip(before.edges, before.edges[1:], before.rows, strict=False)
        ]
        layers.append(
            {
                "data": {"values": line},
                "mark": {"type": "line", "color": SECOND, "point": {"color": SECOND, "size": 18}},
                "encoding": {
                    "x": {"field": "at", "type": "quantitative"},
                    "y": {"field": "rows", "type": "quantitative"},
                    "description": {"field": "tip"},
                },
            }
        )
    return _drawn({"layer": layers})


def throughput(pace: Throughput) -> str:
    """Draw tokens per second over the run."""
    unit, seconds = next((u, s) for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if _spans(pace, s))
    values = [
        {
            "at": moment.second / seconds,
            "to": (moment.second + pace.stretch_seconds) / seconds,
            "speed": moment.tokens_per_second,
            "tip": f"from {moment.second / seconds:,.1f} {unit}: {moment.tokens_per_second:,.0f} tokens/s,"
            f" {moment.rows:,} rows",
        }
        for moment in pace.moments
    ]
    return _drawn(
        {
            "data": {"values": values},
            "mark": {"type": "bar", "color": FIRST, "binSpacing": 0.5},
            "encoding": {
                "x": {"field": "at", "type": "quantitative", "bin": "binned", "title": f"{unit} after the first"},
                "x2": {"field": "to"},
                "y": {"field": "speed", "type": "quantitative", "title": "tokens/s"},
                "description": {"field": "tip"},
            },
        }
    )  # fmt: skip


def _spans(pace: Throughput, seconds: int) -> bool:
    return seconds == 1 or (pace.moments[-1].second + pace.stretch_seconds) > 3 * seconds


def buckets(uses: Sequence[BucketUse]) -> str:
    """Draw each bucket's padding waste and, where it was measured, the slots that stood idle."""
    values = []
    for use in uses:
        if use.padding_waste is not None:
            values.append(_share(use, "padding", use.padding_waste))
        if use.slot_use is not None:
            values.append(_share(use, "idle slots", 1 - use.slot_use))
    return _grouped(values, "bucket", "prompts of up to so many tokens", "share of positions", percent=True)


def _share(use: BucketUse, kind: str, share: float) -> dict[str, Any]:
    tip = f"bucket {use.edge}: {share:.1%} {kind}, {use.rows:,} rows"
    return {"name": str(use.edge), "kind": kind, "value": share, "tip": tip}


def _grouped(values: list[dict[str, Any]], _name: str, x: str, y: str, *, percent: bool) -> str:
    axis = {"format": ".0%"} if percent else {}
    return _drawn(
        {
            "data": {"values": values},
            "mark": {"type": "bar"},
            "encoding": {
                "x": {"field": "name", "type": "ordinal", "sort": None, "title": x, "axis": _LEVEL},
                "xOffset": {"field": "kind", "sort": None},
                "y": {"field": "value", "type": "quantitative", "title": y, "axis": axis},
                "color": {
                    "field": "kind",
                    "scale": {"range": [FIRST, SECOND]},
                    "sort": None,
                    "legend": {"orient": "top", "title": None},
                },
                "description": {"field": "tip"},
            },
        }
    )  # fmt: skip


def counts(found: Sequence[Count], of: int, what: str = "rows") -> str:
    """Draw a bar for each name, lying, with its number behind it."""
    values = [
        {
            "name": count.name.replace("_", " "),
            "rows": count.rows,
            "label": f"{count.rows:,}",
            "tip": f"{count.name}: {count.rows:,} {what}, {count.rows / max(of, 1):.1%}",
        }
        for count in found
    ]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": _BARE}
    x = {"field": "rows", "type": "quantitative", "axis": None}
    return _drawn(
        {
            "height": {"step": 22},
            "width": 190,
            "data": {"values": values},
            "encoding": {"y": y, "x": x, "description": {"field": "tip"}},
            "layer": [
                {"mark": {"type": "bar", "color": FIRST, "height": 14}},
                {
                    "mark": {"type": "text", "align": "left", "dx": 4, "color": _INK},
                    "encoding": {"text": {"field": "label"}},
                },
            ],
        }
    )  # fmt: skip


def categories(found: Sequence[Category]) -> str:
    """Draw each category's rows by what became of them."""
    values = []
    for category in found[:12]:
        clean = category.generated - category.flagged
        parts = (("no flag", clean), ("flagged", category.flagged), ("no usable text", category.quarantined))
        for order, (kind, rows) in enumerate(parts):
            tip = f"{category.name}: {rows:,} {kind}"
            values.append({"name": category.name, "kind": kind, "order": order, "rows": rows, "tip": tip})
    return _drawn(
        {
            "height": {"step": 22},
            "width": 230,
            "data": {"values": values},
            "mark": {"type": "bar", "height": 14},
            "encoding": {
                "y": {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": _BARE},
                "x": {"field": "rows", "type": "quantitative", "title": "rows", "axis": {"tickCount": 4}},
                "order": {"field": "order"},
                "color": {
                    "field": "kind",
                    "sort": None,
                    "scale": {"range": [FIRST, SECOND, THIRD]},
                    "legend": {"orient": "top", "title": None},
                },
                "description": {"field": "tip"},
            },
        }
    )  # fmt: skip


_CONFIG: Mapping[str, Any] = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK, "titleColor": _INK, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
        "gridColor": _FAINT, "domainColor": _FAINT, "tickColor": _FAINT, "tickCount": 5, "titlePadding": 8,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "text": {"fontSize": 11},
    "legend": {"labelColor": _INK, "labelFontSize": 11, "symbolType": "square", "offset": 4},
}  # fmt: skip


def _drawn(spec: Mapping[str, Any]) -> str:
    import vl_convert

    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": _WIDTH,
        "height": _HEIGHT,
        "padding": 2,
        "background": None,
        "config": _CONFIG,
        **spec,
    }
    # Nothing is to be fetched: all data stands in the specification.
    return _for_a_page(vl_convert.vegalite_to_svg(whole, allowed_base_urls=[]))


_NEEDLESS = ("aria-roledescription", "role", "pointer-events", "version", "class", "aria-hidden")


def _for_a_page(svg: str) -> str:
    """Give every labelled mark a title to show, and leave out what only Vega's own scripts need."""
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    root = ElementTree.fromstring(svg)
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        label = element.attrib.pop("aria-label", None)
        is_mark = element.get("role") == "graphics-symbol" and element.get("aria-roledescription") != "axis"
        if element.tag == f"{_SVG}path" and element.get("display") == "none" and element in parents:
            parents[element].remove(element)
        for name in _NEEDLESS:
            element.attrib.pop(name, None)
        if label and is_mark and element is not root:
            title = ElementTree.SubElement(element, f"{_SVG}title")
            title.text = label
    width, height = root.get("width"), root.get("height")
    root.set("viewBox", f"0 0 {width} {height}")
    root.set("role", "img")
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", ElementTree.tostring(root, encoding="unicode"))
