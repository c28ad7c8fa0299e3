"""Source text: catalog cells made into plain, single-line text."""

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

# No part of these looks past the next `<`, so a text full of broken markup is still read in linear time, and markup
# without an end is text. (`html.parser` needs minutes for 100,000 characters of `<!--`, or drops all that follows.)
_MARKUP = re.compile(
    r"(?P<comment><!--)"
    r"""|</?(?P<tag>[a-zA-Z][^\s/<>]*+)(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>"""
    r"|</?(?P<odd_tag>[a-zA-Z][^\s/<>]*+)[^<>]*+>"  # quotes that don't match
    r"|<!\[CDATA\[|<![a-zA-Z\[][^<>]*+>|<\?[a-zA-Z][^<>]*+>"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_JOINERS = re.compile(r"([\u200c\u200d])[\u200c\u200d]+")
_LONE_JOINER = re.compile(r"(?<![^\x00-\x7f\s])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\s])")
# Times that markup may have been escaped: once is HTML in a spreadsheet, twice has been seen, the third costs nothing.
_PASSES = 4

# What stands in a cell that has no value, whatever the column.
_NOTHING = frozenset(
    {"", "n/a", "n.a", "#n/a", "na", "nan", "nil", "none", "null", "undefined", "unknown", "tbd", "tba", "tbc", "todo"}
    | {"not applicable", "not available", "test", "default title"}  # the last is Shopify's, of products in one variant
)
# Words that are a fine title of a film or a book, but no description.
_NO_DESCRIPTION = _NOTHING | {
    "no description", "no description available", "description not available", "coming soon", "lorem ipsum",
    "description coming soon", "missing", "empty", "xxx",
}  # fmt: skip
_FRAME = " .!*_-[]()<>"
_BLOCKS = frozenset(
    """address article aside blockquote br caption dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 header
    hr li main nav ol option p pre section table tbody td tfoot th thead tr ul""".split()
)
_DROPPED = {
    name: re.compile(rf"</{name}(?![^\s/>])[^<>]*>", re.IGNORECASE)
    for name in ("script", "style", "template", "noscript", "iframe")
}


def clean(text: str) -> str:
    """Return the text without HTML, control and invisible characters, its white space folded to single spaces.

    Markup that was escaped once or twice more on its way through a spreadsheet (`&lt;b&gt;`) goes too. A lone `<`, as
    in "fits < 3 in", stays, and so does all that follows a tag or a comment without an end.
    """
    for _ in range(_PASSES):
        before = text
        if "<" in text:
            text = _without_markup(text)
        if "&" in text:
            text = _ENTITY.sub(_character, text)
        if text == before:
            break
    text = _folded(text)  # first, so that a text of several lines need not be looked at character by character
    if not (text.isascii() and text.isprintable()):
        text = _folded(_without_invisible(text))
    return text


def _folded(text: str) -> str:
    return " ".join(text.split())


def is_placeholder(text: str) -> bool:
    """Say whether a description or a value, cleaned, is one of the words that catalogs hold in place of none."""
    return _is_one_of(text, _NO_DESCRIPTION)


def is_placeholder_title(text: str) -> bool:
    """Say whether a title, cleaned, is one of the words that catalogs hold in place of none."""
    return _is_one_of(text, _NOTHING)


def _is_one_of(text: str, words: frozenset[str]) -> bool:
    return text.casefold().strip(_FRAME) in words or not (text[0].isalnum() or any(c.isalnum() for c in text))


def _without_markup(text: str) -> str:
    """Return what a browser would show, a space where a block element begins or ends."""
    parts = []
    at = 0
    endless = set()  # what was opened and never closed, so that its end is looked for but once
    while markup := _MARKUP.search(text, at):
        parts.append(text[at : markup.start()])
        at = markup.end()
        name = (markup["tag"] or markup["odd_tag"] or "").lower()
        if name in _BLOCKS:
            parts.append(" ")
        elif markup["comment"] and "comment" not in endless:
            end = text.find("-->", markup.start() + 2)  # `<!-->` is a whole comment
            if end < 0:
                endless.add("comment")
            else:
                at = end + 3
        elif name in _DROPPED and name not in endless and text[markup.start() + 1] != "/" and text[at - 2] != "/":
            close = _DROPPED[name].search(text, at)
            if close:
                at = close.end()
            else:
                endless.add(name)
    parts.append(text[at:])
    visible = "".join(parts)
    return visible.replace("]]>", "") if "<![CDATA[" in text else visible


def _character(entity: re.Match[str]) -> str:
    name = entity[0]
    return html.unescape(name) if name[1] == "#" else html5.get(name[1:], name)


def _without_invisible(text: str) -> str:
    """Return the text in NFC, control characters made spaces, and those that show nothing left out.

    Zero-width joiners stay between characters outside ASCII, where they hold emoji and some scripts' words together.
    Unassigned characters stay too: which ones are depends on the version of Python.
    """
    characters = []
    for c in text:
        category = unicodedata.category(c)
        if category == "Cc":
            characters.append(" ")
        elif category not in ("Cf", "Cs", "Co") or c in "\u200c\u200d":
            characters.append(c)
    composed = unicodedata.normalize("NFC", "".join(characters))
    joined = _LONE_JOINER.sub("", _JOINERS.sub(r"\1", composed))
    return unicodedata.normalize("NFC", joined)  # once more: what stood beside a joiner may compose now
