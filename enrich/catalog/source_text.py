"""Source text: catalog cells made into plain, single-line text."""

from __future__ import annotations

import html
import re
import unicodedata
from html.parser import HTMLParser

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!")
_SPACE = re.compile(r"\s+")
_PLACEHOLDERS = frozenset(
    {"", "-", "--", "---", ".", "?", "n/a", "na", "nan", "nil", "none", "null", "tbd", "tba", "todo", "unknown", "#n/a"}
    | {"no description", "no description available", "description not available", "not available", "coming soon"}
    | {"description coming soon", "lorem ipsum", "undefined", "missing", "empty", "xxx", "test"}
)
_BLOCKS = frozenset({"p", "br", "div", "li", "ul", "ol", "tr", "td", "th", "table", "h1", "h2", "h3", "h4", "h5", "h6"})
_DROPPED = frozenset({"script", "style", "template", "noscript", "iframe"})


class _TextOnly(HTMLParser):
    """Collects what a browser would show, a space where a block element begins or ends."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._hidden += tag in _DROPPED
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED and self._hidden:
            self._hidden -= 1
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def clean(text: str) -> str:
    """Return the text without HTML, control and invisible characters, its white space folded to single spaces.

    Markup that was escaped once more on its way through a spreadsheet (`&lt;b&gt;`) goes too. A lone `<`, as in
    "fits < 3 in", stays.
    """
    for _ in range(2):
        if _TAG.search(text):
            parser = _TextOnly()
            parser.feed(text)
            parser.close()
            text = "".join(parser.parts)
        elif "&" in text:
            text = html.unescape(text)
        else:
            break
    if not text.isascii():
        # Cc control, Cf format (zero width, direction marks), Co private use, Cs surrogates, Cn unassigned.
        # Zero-width joiners hold emoji and some scripts' words together, but they tell a model nothing.
        text = unicodedata.normalize("NFC", text)
        text = "".join(c if not unicodedata.category(c).startswith("C") else " " if c.isspace() else "" for c in text)
    elif not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return _SPACE.sub(" ", text).strip()


def is_placeholder(text: str) -> bool:
    """Say whether a description, cleaned, is one of the words that catalogs hold in place of none."""
    return text.casefold().strip(" .!*_[]()<>") in _PLACEHOLDERS or not any(c.isalnum() for c in text)
