"""What is fuzzed: bytes in; out comes a catalog or a template, or one line that says why not. All else is a finding."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from enrich.catalog import Catalog, RoleOptions
from enrich.catalog.formats import CsvSource, open_source
from enrich.errors import CatalogError, ConfigError
from enrich.product import Attribute, Product
from enrich.prompts import compile_template, render

_LONGEST_RENDERED = 50_000_000
_DIRECTORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
_ROWS = [
    Product(
        0, "1", "Oak side table", "Home > Furniture", (Attribute("Color", "Natural"), Attribute("Size", "5 in")), ""
    ),
    Product(1, "", "x" * 3_000, "", (), ""),
    Product(2, "7", "{{ title }} " * 50, "a > b", tuple(Attribute(f"A{n}", "v " * 40) for n in range(24)), "old"),
]


class Finding(Exception):
    """Something came out that must not."""


def fuzz_csv(data: bytes) -> None:
    """Read bytes as a CSV file, twice, and hold what comes out against Python's own reader."""
    path = _DIRECTORY / f"enrich-fuzz-{os.getpid()}.csv"
    path.write_bytes(data)
    try:
        source = open_source(path)
        batches = list(source.batches())
        again = list(source.batches())
    except CatalogError as error:
        _check_line(str(error), str(path))
        return
    if batches != again:
        raise Finding("two readings differ")
    rows = [list(row.values()) for batch in batches for row in batch.to_pylist()]
    if any(len(row) != len(source.schema) or None in row for row in rows):
        raise Finding("a row lacks a field")
    if isinstance(source, CsvSource):
        _hold_against_python(source, data, rows)
    try:
        catalog = Catalog(path, RoleOptions(title=source.schema.names[0]))
        for _, products in catalog.batches():
            for product in products:
                if not all(text.isprintable() for text in (product.id, product.title) if text.isascii()):
                    raise Finding("a control character in a product")
    except CatalogError as error:
        _check_line(str(error), str(path))


def _hold_against_python(source: CsvSource, data: bytes, rows: list[list[str]]) -> None:
    if data[:2] == b"\x1f\x8b" or data[:4] == b"\x28\xb5\x2f\xfd":
        return
    text = data.decode(source.encoding)
    for _ in range(2):  # a mark within the mark's encoding is dropped as well
        text = text.removeprefix("\ufeff")
    try:
        read = list(csv.reader(io.StringIO(text, newline=""), delimiter=source.delimiter))
    except csv.Error:
        return
    others = [row for row in read if row]
    if others[1:] != rows or others[0] != source.schema.names:
        raise Finding(f"{rows[:3]} where Python reads {others[1:4]}")


def fuzz_template(data: bytes) -> None:
    """Compile bytes as a prompt template and render rows with it, touching nothing of the machine."""
    source = data.decode("utf-8", "replace")
    with _nothing_touched():
        try:
            template = compile_template(source, "fuzz")
            for product in _ROWS:
                if len(render(template, product)) > _LONGEST_RENDERED:
                    raise Finding("a prompt without end")
        except ConfigError as error:
            if not str(error).startswith("template fuzz"):
                raise Finding(f"an error that does not name the template: {error}") from error


def _check_line(message: str, name: str) -> None:
    if not message.startswith(name) or len(message.splitlines()) != 1 or len(message) > 900:
        raise Finding(f"not one line that names the file: {message!r}")


_TOUCHING = ("open", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.remove", "os.listdir", "import")
_watched: list[list[str]] = []  # the innermost watch takes down what is touched


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and (event in _TOUCHING or event.startswith("socket.")):
        # The codecs and unicodedata that Jinja2 asks for are no reach of the template's.
        if event == "import" and str(arguments[0]) in sys.modules:
            return
        _watched[-1].append(f"{event} {arguments[:1]}")


class _nothing_touched:
    hooked = False

    def __enter__(self) -> None:
        if not _nothing_touched.hooked:  # a hook stays for the life of the interpreter
            for source in (
                "{{ title | lower | striptags }}{{ category.split() }}",
                "{{ title }}{{ 1 / 0 }}",
                "{{ '\\n' }}",
                "{{",
            ):
                with contextlib.suppress(ConfigError):  # what Jinja2 imports when something is wrong
                    compile_template(source, "warm")
            sys.addaudithook(_note)
            _nothing_touched.hooked = True
        _watched.append([])

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        touched = [one for one in _watched.pop() if "linecache" not in one]
        if touched:
            raise Finding(f"a template touched {touched[:3]}")


TARGETS: dict[str, Callable[[bytes], None]] = {"csv": fuzz_csv, "template": fuzz_template}
