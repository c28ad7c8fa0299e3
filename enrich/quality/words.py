"""Words of product texts: the name in a title, plurals, colours and materials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_LEXICONS = Path(__file__).resolve().parent.parent / "lexicons"
# What follows the product's name in a title: "Lantern for Porch or Patio", "Curtain, 52 x 84 in".
_TITLE_TAIL = re.compile(r"\s*(?:[,(|:/]| - |\b(?:with|for|by|in|and|from|featuring|w/|of)\b).*$", re.I)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[A-Za-z]")


@cache
def lexicon(name: str) -> tuple[str, ...]:
    """Return a lexicon's entries, longest first."""
    lines = (_LEXICONS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(sorted((line for line in lines if line and not line.startswith("#")), key=len, reverse=True))


def _pattern(words: Sequence[str], before: str = "", after: str = "") -> re.Pattern[str]:
    return re.compile(rf"\b({before}(?:{'|'.join(map(re.escape, words))}))\b{after}", re.I)


@cache
def _color_pattern() -> re.Pattern[str]:
    return _pattern(lexicon("colors"), before=rf"(?:(?:{'|'.join(lexicon('color_modifiers'))})[ -])?")


@cache
def _material_pattern() -> re.Pattern[str]:
    return _pattern(lexicon("materials"), after="(?![ -]clear)")  # "crystal-clear sound"


def _mentions(pattern: re.Pattern[str], texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(match.lower() for text in texts for match in pattern.findall(text)))


def colors_in(*texts: str) -> list[str]:
    """Return the colours that texts name, in their order, lower-case: "slate blue", "oak" not being one."""
    return _mentions(_color_pattern(), texts)


def materials_in(*texts: str) -> list[str]:
    """Return the materials that texts name, in their order, lower-case."""
    return _mentions(_material_pattern(), texts)


def words_of(text: str) -> list[str]:
    """Return the words of two letters or more."""
    return _WORD.findall(text)


def stem(word: str) -> str:
    """Cut the plural off: boxes, shelves and candles become box, shelve and candle."""
    word = word.lower().removesuffix("'s")
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def head_noun(title: str) -> str:
    """Return the last word of the product's name: "Candle Lantern, Black, 16 in" is a Lantern. Empty if it has none."""
    words = words_of(_TITLE_TAIL.sub("", title))
    return words[-1] if words else ""
