"""Cleaning: repeated sentences dropped, the text cut after its last whole sentence.

This is what GPT2-Home did with its texts by `split(".")`, with sentences told apart from abbreviations, decimals and
dimensions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Never the end of a sentence, whatever follows.
_TITLES = frozenset(
    "mr mrs ms dr prof sr jr st ste mt no nos vol fig approx dept est gen col capt lt rev hon vs eg ie cf incl excl min"
    " max".split()
)
# Units and the like: the end of a sentence only where a capital word follows that begins one.
_UNITS = frozenset(
    "in ft yd mi cm mm m km oz lb lbs kg g mg gal qt pt fl tbsp tsp sq cu ct pc pcs pk dia diam dim wt hr hrs sec"
    " inc co corp ltd llc bros etc ave blvd w h l d us uk usa".split()
)
_END = re.compile(r"[.!?。！？]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[”’」』）]*")
_LAST_WORD = re.compile(r"([^\s(\[\"'“‘]+)$")
_STARTS_SENTENCE = re.compile(r"[\"'“‘(\[]*[A-ZÀ-ÞЀ-Я一-鿿]|[\"'“‘(\[]*\d+ [A-Za-z]")
_DIMENSION = re.compile(r"[\"'“‘(\[]*(?:[A-Z]\b(?!\s+[a-z])|[xX×]\s|\d)")
_SPACE = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A cleaned text and what was found: `repeated_sentence`, `cut_to_sentence`, `no_sentence_end`, `empty`."""

    text: str
    flags: tuple[str, ...]


def clean_text(raw: str) -> Cleaned:
    """Drop repeated sentences, then the unfinished rest after the last whole sentence.

    A text without any sentence end is returned as it is, and flagged: a short text is better judged than lost.
    """
    text = _SPACE.sub(" ", _CONTROL.sub("", raw)).strip()
    if not text:
        return Cleaned("", ("empty",))
    flags = []
    sentences, rest = split_sentences(text)
    if not sentences:
        return Cleaned(text, ("no_sentence_end",))
    unique: dict[str, str] = {}
    for sentence in sentences:
        unique.setdefault(_normal(sentence), sentence)
    if len(unique) < len(sentences):
        flags.append("repeated_sentence")
    if rest:
        flags.append("cut_to_sentence")
    return Cleaned(" ".join(unique.values()), tuple(flags))


def split_sentences(text: str) -> tuple[list[str], str]:
    """Return the whole sentences of a single-line text, and what follows the last of them."""
    sentences = []
    start = 0
    for match in _END.finditer(text):
        if _ends_sentence(text, start, match):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    return sentences, text[start:].strip()


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match[0]
    rest = text[match.end() : match.end() + 40].lstrip()
    if mark[0] in "!?。！？":
        return not rest or mark[0] in "。！？" or not rest[0].islower()
    if mark.startswith("..") and not rest:  # an ellipsis at the end: the thought was not finished
        return False
    found = _LAST_WORD.search(text, max(start, match.start() - 30), match.start())
    word = found[1] if found else ""
    plain = word.lower().replace(".", "").rstrip(",;:")
    if mark[0] == "." and len(mark) == 1:
        if plain in _TITLES and not (plain in ("no", "min", "max", "st") and not rest):
            return False
        if len(plain) == 1 and word[-1:].isupper() and rest:  # an initial: J. Crew
            return False
        if plain in _UNITS and rest and (_DIMENSION.match(rest) or not _STARTS_SENTENCE.match(rest)):
            return False
        if not word:  # a lone dot
            return False
    return not rest or not rest[0].islower()


def _normal(sentence: str) -> str:
    return "".join(c for c in sentence.casefold() if c.isalnum()) or sentence
