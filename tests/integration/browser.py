"""Debian's Chromium, headless, driven by Playwright; what it asks for and complains of is noted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Without these the browser itself, not the page, calls its makers.
_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
    " --disable-component-update --disable-default-apps --disable-domain-reliability"
).split()
_OWN = ("file:", "data:", "blob:", "about:")


@dataclass
class Noted:
    """What went on in a page."""

    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser. Fails if it is not installed: `make browser-test` installs it."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "chromium is not installed; `make browser-test` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield browser
        browser.close()


@contextmanager
def page(browser: Any, address: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Any]:
    """Open a page; when it is left, nothing may have gone wrong in it or been asked of another machine."""
    noted = Noted()
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    opened = context.new_page()
    opened.on("console", lambda message: message.type == "error" and noted.complaints.append(message.text))
    opened.on("pageerror", lambda error: noted.complaints.append(str(error)))
    own = (*_OWN, "http://127.0.0.1", "ws://127.0.0.1")
    opened.on("request", lambda request: request.url.startswith(own) or noted.outside.append(request.url))
    opened.goto(address)
    yield opened
    context.close()
    assert not noted.outside, noted.outside
    assert not noted.complaints, noted.complaints


@contextmanager
def demo(model: str | Path, *, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Serve the demo and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "enrich", "demo", "--model", str(model), "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://[\d.]+:\d+", "".join(lines))):
            assert process.poll() is None, "".join(lines)
            assert time.monotonic() < deadline, "".join(lines)
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
