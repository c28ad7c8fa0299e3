"""Highlighting: the words of a text that its row has, and the colours, materials and numbers that it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from enrich.product import Product
from enrich.quality.words import colors_in, materials_in, stem

STATED, UNSTATED, PLAIN = "stated", "unstated", ""
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_BETWEEN = re.compile(r"[\s-]*")  # two words of one fact, such as "slate blue" and "24-inch"
# Words that say nothing of a product, though its row may have them.
_NO_FACTS = frozenset(
    "a an and are as at be by for from has have in into is it its of on or our set that the their this to up was with"
    " you your all any can each more no not one other pack piece size these will".split()
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text: `kind` is `stated` (the row has it), `unstated` (a fact it does not have) or empty."""

    text: str
    kind: str = PLAIN


def highlight(text: str, product: Product) -> tuple[Piece, ...]:
    """Cut a text into pieces that together are the text again, character for character."""
    known = _known(product)
    facts = {part for name in (*colors_in(text), *materials_in(text)) for part in name.split()}
    marks: list[tuple[int, int, str]] = []
    for match in _TOKEN.finditer(text):
        kind = _kind(match[0].lower(), known, facts)
        if not kind:
            continue
        if marks and marks[-1][2] == kind and _BETWEEN.fullmatch(text, marks[-1][1], match.start()):
            marks[-1] = (marks[-1][0], match.end(), kind)
        else:
            marks.append((match.start(), match.end(), kind))
    return tuple(_pieces(text, marks))


def _kind(token: str, known: frozenset[str], facts: set[str]) -> str:
    if stem(token) in known:
        return STATED
    return UNSTATED if token[0].isdigit() or token in facts else PLAIN


def _known(product: Product) -> frozenset[str]:
    row = " ".join([product.title, product.category, *(attribute.value for attribute in product.attributes)]).lower()
    return frozenset(stem(token) for token in _TOKEN.findall(row) if token not in _NO_FACTS)


def _pieces(text: str, marks: list[tuple[int, int, str]]) -> Iterator[Piece]:
    position = 0
    for start, end, kind in marks:
        if start > position:
            yield Piece(text[position:start])
        yield Piece(text[start:end], kind)
        position = end
    if position < len(text):
        yield Piece(text[position:])
