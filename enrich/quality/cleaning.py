"""Cleaning: repeated sentences dropped, the text cut after its last whole sentence.

This is what GPT2-Home did with its texts by `split(".")`, with sentences told apart from abbreviations, decimals and
dimensions. Where it can't be known whether a stop ends a sentence, it doesn't: two sentences taken for one do no harm,
half a sentence does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

# Never the end of a sentence, whatever follows.
_NEVER_LAST = frozenset("mr mrs dr prof st ste vs eg ie cf viz ca esp approx incl excl est".split())
# Stand before a number: `No. 4`; lower-case or alone they may be plain words: `Is it heavy? No.`
_LABELS = frozenset("no nos nr vol fig".split())
# Units and the like: the end of a sentence only where something follows that plainly begins another.
_UNITS = frozenset(
    "in ft yd mi cm mm m km oz lb lbs kg g mg gal qt pt fl l ml tbsp tsp doz sq cu deg ct pc pcs pk pkg dia diam dim"
    " wt hr hrs sec min mo yr yrs max gen etc".split()
)
# Parts of names: the end of a sentence only before a word that is seldom anything but the first of one. Those that are
# units too are names when capitalized: `Ft. Worth`, `Max. load`, but `10 ft.`, `200 lbs. max.`
_NAME_PARTS = frozenset(
    "inc co corp ltd llc bros jr sr ms mt ft gen col capt lt sgt rev hon max min ave blvd rd dept".split()
)
_OPENERS = frozenset(
    "a add all also an and any as at available both bring built but buy by care choose clean color comes complete"
    " contains crafted create designed discover display do don each easy elevate enjoy every experience featuring"
    " features find finished fits for free from fully get gift gifts give great hand handcrafted handmade has have he"
    " her here his holds i ideal if imported in includes including introducing it its just keep made machine makes"
    " material materials measures new no not now of on once one only or order our perfect place please product ready"
    " relax remove set she ships shop simple simply so soft store suitable that the their then there these they this"
    " those to transform treat try upgrade use used wash wear we what when whether which while wipe with without works"
    " yes yet you your".split()
)
_ARTICLES = frozenset("a an the this that our your its each every per one".split())
# Never without the unit that they are said of: `200 sq. ft.`
_HALF_UNITS = frozenset("sq cu fl".split())
# What any other word says nothing against: a stop behind it ends the sentence.
_SPECIAL = _NEVER_LAST | _LABELS | _UNITS | _NAME_PARTS | _HALF_UNITS
_FOLLOWING_UNITS = _UNITS | frozenset("inch inches foot feet yard yards ounce ounces pound pounds x by".split())

_CLOSERS = "\"'”“’»›)\\]}"
_STOPS, _OTHER_STOPS, _WIDE_STOPS = ".!?…", "।॥؟۔։።။។", "。！？｡"
STOPS = _STOPS + _OTHER_STOPS + _WIDE_STOPS  # no sentence ends without one of them
_WIDE_CLOSERS = "[”’」』）】》〉]*"
_WIDE_STOP = f"[{_WIDE_STOPS}]{_WIDE_CLOSERS}"
# A run of marks is looked at from its first one only: every other start would make long runs quadratic. The class of
# all marks stands first, as what comes after it is tried only where one of them is: several times quicker.
_END = re.compile(
    rf"[{STOPS}](?:(?<=[{_STOPS}])(?<![{_STOPS}]{{2}})[{_STOPS}]*+[{_CLOSERS}]*+(?=\s|$)"
    rf"|(?<=[{_OTHER_STOPS}])[{_OTHER_STOPS}]*+[{_CLOSERS}]*+(?=\s|$)"
    rf"|(?<=[{_WIDE_STOPS}]){_WIDE_CLOSERS})"
)
_ENDS_WIDE = re.compile(rf"{_WIDE_STOP}$")
_UNFINISHED = re.compile(rf"(?:\.\s?\.|…)[{_CLOSERS}]*$")
_MORE_MARKS = re.compile(rf"\s*[.!?…]+[{_CLOSERS}]*(?:\s|$)")
_LEADING = "\"'“‘«‹-–—•*·▪►✓✔ "
_BRACKETS = "([{"
_AMOUNT = re.compile(r"[$€£]?[\d.,/½¼¾⅓⅔⅛-]*[\d½¼¾⅓⅔⅛]-?")
_INITIALISM = re.compile(r"(?:[^\W\d_]{1,2}\.)+[^\W\d_]{1,2}")
_FIRST_WORD = re.compile(r"[^\W\d_]+")
_INITIAL = re.compile(r"[A-Z]\.")
_LOWER_BRAND = re.compile(r"[a-z]{1,3}[A-Z]")
_DIMENSION = re.compile(
    r"[WDHL](?![\w'’])|[B-HJ-Z](?![\w'’])(?!\s+[a-z])|[xX×]\s"
    r"|(?:Wide|Deep|High|Tall|Long|Thick|Square|Round|Diameter)\s*(?:[xX×,;.]|[Bb]y\b|$)"
)
_NUMBERED_START = re.compile(r"\d[\d.,]*(?:%| ([^\W\d_]+))")
# Where a text was cut off, such a stop may be within `3.5`, `U.S.`, `e.g.` or `no. 4`.
_DOUBTFUL_STOP = re.compile(r"(?<=\d)\.$|(?<![^\W_])[^\W\d_]\.$|\b(?:nos?|nr|vol|fig)\.$", re.IGNORECASE)
# What no text needs, save for the controls that separate words: `\s` has those.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffd-\uffff]")
# What two spellings of one sentence may differ in. A mark before a digit counts: 2.5 in. is not 25 in.
_INSIGNIFICANT = re.compile(
    r"[.,:/\-!?…\"'“”‘’«»()\[\]{}*_~•·–—|;।॥؟۔։።။។。！？｡、，「」『』（）](?:(?<![.,:/-])|(?!\d))"
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A cleaned text and what was found: `repeated_sentence`, `cut_to_sentence`, `no_sentence_end`, `empty`."""

    text: str
    flags: tuple[str, ...]


def clean_text(raw: str, *, cut_off: bool = False, beginning: str = "") -> Cleaned:
    """Drop repeated sentences, then the unfinished rest after the last whole sentence.

    `cut_off` says that a limit ended the text: a stop at its end that may be within a number or an abbreviation is not
    taken for the end of a sentence then. A text that goes on from a prompt has it as its `beginning`, which alone is no
    text.

    A text without any sentence end is returned as it is, and flagged: a short text is better judged than lost.
    """
    text = " ".join(_CONTROL.sub("", raw).split())
    if not text:
        return Cleaned("", ("empty",))
    if cut_off and (doubtful := _DOUBTFUL_STOP.search(text)):
        text = text[: doubtful.end() - 1]
    found: set[str] = set()
    # Sentences that have become neighbours may read as one, and that one as a repetition: clean until nothing changes.
    while True:
        cleaned = _clean_once(text)
        found.update(cleaned.flags)
        if cleaned.text == text:
            # It may be all that is left, if the rest got to no end of a sentence.
            if beginning and len(text) <= len(" ".join(beginning.split())):
                return Cleaned("", ("empty",))
            flags = ("repeated_sentence", "cut_to_sentence", "no_sentence_end")
            return Cleaned(text, tuple(flag for flag in flags if flag in found))
        text = cleaned.text


def split_sentences(text: str) -> tuple[list[str], str]:
    """Return the whole sentences of a single-line text, and what follows the last of them."""
    pieces, rest = _split(text)
    return [piece.strip() for piece in pieces], rest.strip()


def _clean_once(text: str) -> Cleaned:
    pieces, rest = _split(text)
    if not pieces:
        return Cleaned(text, ("no_sentence_end",))
    unique = _unique(pieces)
    flags = []
    if len(unique) < len(pieces):
        flags.append("repeated_sentence")
    if rest.strip():
        flags.append("cut_to_sentence")
    return Cleaned(_join(unique), tuple(flags))


def _unique(pieces: list[str]) -> list[str]:
    """Drop the sentences that stand there before."""
    normal = [_normal(piece) for piece in pieces]
    if len(set(normal)) == len(pieces):
        return pieces
    # One that trails off does not stand for the finished one after it.
    unique: dict[tuple[str, bool], str] = {}
    for piece, key in zip(pieces, normal, strict=True):
        unique.setdefault((key, bool(_UNFINISHED.search(piece))), piece)
    return list(unique.values())


def _split(text: str) -> tuple[list[str], str]:
    """Cut the text into whole sentences, each with the space before it, and the rest."""
    pieces = []
    start = looked_at = 0
    for match in _END.finditer(text):
        before, after = text[max(start, match.start() - 60) : match.start()], text[match.end() : match.end() + 40]
        if _ends_sentence(before, match[0], after):
            if any(map(str.isalnum, text[looked_at : match.end()])):
                pieces.append(text[start : match.end()])
                start = match.end()
            looked_at = match.end()  # marks alone are no sentence: they go with the next
    # An ellipsis within a text may stand between sentences; the last sentence was not finished by it.
    while pieces and _UNFINISHED.search(pieces[-1]):
        start -= len(pieces.pop())
    return pieces, text[start:]


def _join(pieces: list[str]) -> str:
    parts = pieces[:1]
    for before, piece in pairwise(pieces):
        # Wide stops need no space behind them, but what came after one may now come after another kind.
        if not piece[0].isspace() and not _ENDS_WIDE.search(before):
            parts.append(" ")
        parts.append(piece)
    return "".join(parts)


def _ends_sentence(before: str, mark: str, after: str) -> bool:
    """Tell whether a mark ends the sentence that `before` is the last part of and `after` goes on from.

    If it does, it also does where nothing follows, so that cutting a text there leaves a whole sentence.
    """
    if mark[0] in _WIDE_STOPS:
        return True
    if _MORE_MARKS.match(after):  # `. . .` and `! !`: the last one decides
        return False
    opening = after.lstrip(_LEADING)
    if opening.lstrip(_BRACKETS)[:1].islower() and not _LOWER_BRAND.match(opening):
        return False
    last = before.rsplit(None, 1)[-1:]
    word = last[0].lstrip(_LEADING + _BRACKETS) if last else ""
    if mark[0] != ".":
        # After a capital it may belong to a name: `Yahoo! Mail`
        return not opening or not word[:1].isupper() or _opens_sentence(opening)
    if mark.startswith(".."):
        return True
    if len(word) > 1 and word.isalpha() and word.lower() not in _SPECIAL:
        return True
    return _full_stop_ends(before.split(), word, opening)


def _full_stop_ends(words: list[str], word: str, opening: str) -> bool:
    amount = _AMOUNT.match(word)
    unit = word[amount.end() :] if amount else word  # `12oz`
    plain = unit.lower().replace(".", "")
    counted = bool(amount) or _has_digit(words[-2:-1])
    if len(words) == 1 and word.isdigit() and len(word) < 3:  # the `2.` of a list
        return False
    if not counted:
        if plain in _NEVER_LAST:
            return False
        if plain in _LABELS:
            return not opening[:1].isdigit() and (word.islower() or len(words) == 1)
    elif plain in _HALF_UNITS:
        return False
    if not opening:
        return True
    if amount and not unit and opening[0].isdigit():  # `3. 5 in.`, as models write it
        return False
    if len(unit) == 1 and unit.isupper():  # the W of `24 in. W`, the C of `40 deg. C`; not the J of `J. Crew`
        after_unit = len(words) > 1 and words[-2].lower().rstrip(".") in _UNITS and _has_digit(words[-3:-2])
        is_unit = unit in "WHDLCFVAGMK" and (counted or after_unit)
    else:
        is_unit = plain in _UNITS and (counted or word.islower() or plain not in _NAME_PARTS)
    if is_unit:
        return _begins_after_unit(opening, _is_modifier(words, bool(unit and amount)))
    if plain in _NAME_PARTS or (len(unit) == 1 and unit.isupper()) or _INITIALISM.fullmatch(word):
        return _opens_sentence(opening)
    return True


def _has_digit(words: list[str]) -> bool:
    return any(character.isdigit() for word in words for character in word)


def _begins_after_unit(opening: str, modifier: bool) -> bool:
    """Tell whether a sentence begins after a unit, where a dimension, a number or a name may just as well go on."""
    if _DIMENSION.match(opening):
        return False
    if opening[0].isdigit():
        number = _NUMBERED_START.match(opening)
        return number is not None and not modifier and (number[1] or "").lower() not in _FOLLOWING_UNITS
    if not opening[0].isalpha():
        return False
    first = _FIRST_WORD.match(opening)
    if first and opening[first.end() : first.end() + 1] == "." and first[0].lower() in _UNITS - _NAME_PARTS:
        return False
    return _opens_sentence(opening) or not modifier


def _is_modifier(words: list[str], joined: bool) -> bool:
    """Tell whether a quantity describes what follows: `a 5 qt. Dutch oven`."""
    at = 2 if joined else 3
    return len(words) >= at and words[-at].lower().lstrip(_LEADING + _BRACKETS) in _ARTICLES


def _opens_sentence(opening: str) -> bool:
    first = _FIRST_WORD.match(opening)
    return first is not None and first[0].lower() in _OPENERS and not _INITIAL.match(opening)


def _normal(sentence: str) -> str:
    return " ".join(_INSIGNIFICANT.sub("", sentence.casefold()).split())
