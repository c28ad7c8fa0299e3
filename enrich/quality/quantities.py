"""Quantities in product texts: numbers with their units, chains such as 20 x 16 x 25 in, and counts of things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from enrich.quality.lexicon import entries
from enrich.quality.words import stem

_NUMBER_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "dozen": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100,
}  # fmt: skip
_DIGIT = re.compile(r"[\d½¼¾⅓⅔⅛⅜⅝⅞]")
_VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
_PROPER = r"(?:1/2|[12]/3|[13]/4|[1-4]/5|[15]/6|[1357]/8|\d{1,2}/(?:16|32|64))(?![\d/])"
_SIGN = f"[{''.join(_VULGAR)}]"
_NUMBER = re.compile(
    rf"(?<![\w.])(?<!\d,)(?:(?P<word>(?a:{'|'.join(_NUMBER_WORDS)}))\b"
    rf"|(?P<mixed>\d{{1,3}})(?:[ .-](?P<part>{_PROPER})|[ -]?(?P<sign>{_SIGN}))|(?P<fraction>{_PROPER})"
    r"|(?P<digits>\d{1,3}(?:,\d{3}){1,3}(?:\.\d{1,6})?(?!\d)|\d{1,9}(?:\.\d{1,6})?|\.\d{1,6})"
    rf"|(?P<vulgar>{_SIGN}))",
    re.I,
)
_JOINED = re.compile(r"\s{0,2}(?:[wdhl]\.?\s?)?(?:x|×|by|to|-|–|and|or|/)\s{0,2}", re.I)
_ROLE = re.compile(
    r"[\s.,-]{0,3}(?:in\.?\s|inch(?:es)?\s)?(?:of\s|in\s)?"
    r"(tall|high|height|wide|width|deep|depth|long|length|thick|thickness|diameter|round|across|square|drop|pocket|"
    r"cord|screen|blade|seat|strap|pole|h|w|d|l)\b",
    re.I,
)
_ROLES = {
    "tall": "height", "high": "height", "h": "height", "wide": "width", "w": "width", "across": "diameter",
    "deep": "depth", "d": "depth", "long": "length", "l": "length", "thick": "thickness", "round": "diameter",
}  # fmt: skip
# `5 in 1`, `12 in the box`: no inches.
_NOT_INCHES = re.compile(r"[ -]{0,2}(?:1|one|the|a|an|all|your|our|this|each|every|any|one|total|stock|and)\b", re.I)
_NEXT_WORDS = re.compile(r"[ -]{1,2}([a-z][a-z']{1,20})(?:[ -]{1,2}([a-z][a-z']{1,20}))?", re.I)
_SET_OF = re.compile(
    r"\b(?:sets?|packs?|box|boxes|case|bundle|bag|kit|lot|package|pkg|trio|group|collection) of $", re.I
)
_SET_HAS = re.compile(r"\b(?:set|pack) (?:has|includes|contains) $", re.I)
_PIECES = frozenset("piece pieces pc pcs pack packs pk count ct set sets pkg package".split())
_NO_NOUN = frozenset(
    "pair pairs dozen and or of to in on at by for with from the a an x way ways time times more less other others"
    " different new year years month months week weeks day days old star stars is are was that which it".split()
)


_MORE_SIDES = re.compile(r"\.?\s?[x×]|[\s,]{0,2}\d", re.I)
_MARKS = {"''": '"', "”": '"', "″": '"', "’’": '"'}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with a unit. `value` is in the kind's first unit, `chain` how many numbers stand joined with it."""

    kind: str
    value: float
    number: float  # as it stands there
    shown: str
    chain: int = 1
    role: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of things; `thing` is the singular of what is counted, "piece" for pieces, packs and sets."""

    thing: str
    value: float
    shown: str


@dataclass(frozen=True)
class Numbers:
    """All numbers of a text: with units, of things, and every number that is written in digits, with its place."""

    quantities: tuple[Quantity, ...] = ()
    counts: tuple[Count, ...] = ()
    bare: tuple[tuple[float, str], ...] = ()  # without a unit, in digits
    values: frozenset[float] = frozenset()  # every number, whatever it is of


NONE = Numbers()


@cache
def _units() -> tuple[re.Pattern[str], dict[str, tuple[str, float]]]:
    by_spelling: dict[str, tuple[str, float]] = {}
    for line in entries("units"):
        head, _, spellings = line.partition(":")
        kind, factor = head.split()
        for spelling in spellings.split(","):
            by_spelling[spelling.strip()] = (kind, float(factor))
    spelled = sorted(by_spelling, key=len, reverse=True)
    words = "|".join(re.escape(unit).replace(r"\ ", r"[\s-]{1,2}") for unit in spelled if unit[0].isalpha())
    marks = "|".join(re.escape(unit) for unit in spelled if not unit[0].isalpha())
    return re.compile(rf"[\s-]{{0,2}}(?:({words})(?![a-z])\.?|(''|’’|”|″|{marks}))", re.I), by_spelling


def numbers_in(text: str, tokens: set[str]) -> Numbers:
    """Find the numbers of a text; `tokens` are its words, by which most texts are seen to have none."""
    has_words = not _NUMBER_WORDS.keys().isdisjoint(tokens)
    if not has_words and not _DIGIT.search(text):
        return NONE
    # The words that the pattern finds are the tokens, but for "two's" and letters such as the long s.
    plain = not has_words and text.isascii() and "'" not in text
    matches = _numerals(text) if plain else _NUMBER.finditer(text)
    # Not the '16 of a year.
    found = (match for match in matches if text[match.start() - 1 : match.start()] not in ("'", "’"))
    numbers = [_read(text, match) for match in found]
    chains = _chained(text, numbers)
    quantities, counts, bare = [], [], []
    for chain in chains:
        for number in chain:
            if number.unit:
                quantities.append(_quantity(text, number, chain))
                continue
            shown = text[number.start : number.end].strip()
            if not number.is_word:
                bare.append((number.value, shown))
            if count := _count(text, number, shown):
                counts.append(count)
    return Numbers(tuple(quantities), tuple(counts), tuple(bare), frozenset(number.value for number in numbers))


def _numerals(text: str) -> Iterator[re.Match[str]]:
    """Find what the pattern of numbers finds where none is a word: it is tried at digits only."""
    at = 0
    while digit := _DIGIT.search(text, at):
        start = digit.start()
        has_point = start > at and text[start - 1] == "."  # .5
        match = _NUMBER.match(text, start - has_point)
        if match:
            yield match
        at = match.end() if match else start + 1


@dataclass(frozen=True, slots=True)
class _Number:
    start: int
    end: int  # after the unit
    value: float
    is_word: bool
    unit: tuple[str, float] | None


def _read(text: str, match: re.Match[str]) -> _Number:
    pattern, units = _units()
    end, unit = match.end(), None
    behind = pattern.match(text, end)
    if behind:
        spelling = re.sub(r"[\s-]+", " ", (behind[1] or behind[2]).lower())
        unit = units.get(_MARKS.get(spelling, spelling))
        if (
            (spelling == "in" and not behind[0].endswith(".") and _NOT_INCHES.match(text, behind.end()))
            or (spelling in ("w", "l") and _MORE_SIDES.match(text, behind.end()))  # 36W x 24D
            or (match["word"] and len(spelling) < 3)
        ):
            unit = None
        if unit:
            end = behind.end()
    return _Number(match.start(), end, _value(match), bool(match["word"]), unit)


def _value(match: re.Match[str]) -> float:
    if match["word"]:
        return float(_NUMBER_WORDS[match["word"].lower()])
    if match["vulgar"]:
        return float(Fraction(_VULGAR[match["vulgar"]]))
    if match["mixed"]:
        return float(match["mixed"]) + float(Fraction(match["part"] or _VULGAR[match["sign"]]))
    if match["fraction"]:
        return float(Fraction(match["fraction"]))
    return float(match["digits"].replace(",", ""))


def _chained(text: str, numbers: list[_Number]) -> list[list[_Number]]:
    """Put numbers that are joined together; the unit of such a chain stands behind its last."""
    chains: list[list[_Number]] = []
    for number in reversed(numbers):
        after = chains[-1][0] if chains else None
        unit = number.unit or (None if number.is_word or after is None else after.unit)
        if (
            after is not None and unit and after.unit and unit[0] == after.unit[0]
            and _JOINED.fullmatch(text, number.end, after.start)
        ):  # fmt: skip
            chains[-1].insert(0, replace(number, unit=unit))
        else:
            chains.append([number])
    return chains[::-1]


def _quantity(text: str, number: _Number, chain: list[_Number]) -> Quantity:
    assert number.unit
    kind, factor = number.unit
    role = _ROLE.match(text, number.end)
    name = role[1].lower() if role else ""
    shown = text[chain[0].start : chain[-1].end].strip()
    return Quantity(kind, number.value * factor, number.value, shown, len(chain), _ROLES.get(name, name))


_IN_MODEL = re.compile(r"[A-Z]-$")  # `XT-30 Female`: no thirty of anything


def _count(text: str, number: _Number, shown: str) -> Count | None:
    if number.value != int(number.value) or "/" in shown or text[number.start - 1 : number.start] == ":":
        return None
    if _IN_MODEL.search(text[max(0, number.start - 3) : number.start]):
        return None
    if _SET_OF.search(text[max(0, number.start - 14) : number.start]):
        return Count("piece", number.value, f"of {shown}")
    if _SET_HAS.search(text[max(0, number.start - 16) : number.start]) and text[number.end : number.end + 1] in ".,;":
        return Count("piece", number.value, shown)
    words = _NEXT_WORDS.match(text, number.end)
    if not words:
        return None
    thing = _thing(words[1].lower(), (words[2] or "").lower(), joined=words[0][0] == "-")
    return Count(thing, number.value, f"{shown}{words[0]}") if thing else None


def _thing(first: str, second: str, *, joined: bool) -> str:
    """Return the singular of what a number before these two words counts: `6 large drawers`, `6-drawer dresser`."""
    if first in _PIECES:
        return "piece"
    if first in _NO_NOUN:
        return ""
    if joined or first.endswith("s"):
        return stem(first)
    if second in _PIECES:
        return "piece"
    if second.endswith("s") and second not in _NO_NOUN:
        return stem(second)
    return "" if not second or second in _NO_NOUN else first
