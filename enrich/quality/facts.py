"""Rules of fact: what a text says of its product beside what the row says.

What the row contradicts is told apart from what it merely does not state. A contradiction is told only where the row
has something of the same kind, and the text says it of the product itself: "a green basket" where the row says black,
but not "goes with green walls".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

from enrich.quality.lexicon import Phrases, entries, groups, tokens_of
from enrich.quality.limits import Limits
from enrich.quality.quantities import NONE, Count, Numbers, Quantity, numbers_in
from enrich.quality.reading import Reading, Words
from enrich.quality.words import head_noun, stem

_CLOSE = 0.03  # of a value: 18 in are 46 cm and 45 cm


# --- numbers ---------------------------------------------------------------------------------------------------------


def contradicted_number(reading: Reading, limits: Limits) -> str | None:
    """Find a measure where the row has another of its kind: "24 inches", the row 16 in."""
    said = _numbers(reading)
    if not said.quantities:
        return None
    stated = _numbers(reading.row)
    if reason := _other_sides(said, stated):
        return reason
    for quantity in said.quantities:
        others = [other for other in stated.quantities if other.kind == quantity.kind]
        if not others or quantity.kind not in _COMPARED or _is_stated(quantity, stated):
            continue
        # Beside the row's own measure, another is of something else: a tweeter's beside the woofer's.
        if any(_is_stated(other, said) for other in others):
            continue
        if _rivals(reading, quantity, others):
            return f"says {quantity.shown}; the row {', '.join(dict.fromkeys(other.shown for other in others[:3]))}"
    return None


def _other_sides(said: Numbers, stated: Numbers) -> str | None:
    """Find sides, such as 24 x 18 in, where the row has some and these are not among them."""
    ours, theirs = _sides(said), _sides(stated)
    bare = {value for value, _ in stated.bare}  # its row may leave the unit out
    for shown, sides in ours.items():
        if {quantity.number for quantity in said.quantities if quantity.shown == shown} <= bare:
            continue
        if theirs and not any(_within(sides, others) or _within(others, sides) for others in theirs.values()):
            return f"says {shown}; the row {', '.join(theirs)}"
    return None


def _sides(numbers: Numbers) -> dict[str, list[float]]:
    chains: dict[str, list[float]] = {}
    for quantity in numbers.quantities:
        if quantity.kind == "length" and quantity.chain > 1:
            chains.setdefault(quantity.shown, []).append(quantity.value)
    return chains


def _within(some: list[float], all_: list[float]) -> bool:
    return all(any(abs(one - other) <= _CLOSE * other for other in all_) for one in some)


# Of time, share and the like there is more than one about a product.
_COMPARED = frozenset("length mass volume power voltage charge storage light pixels weave threads".split())


def _is_stated(quantity: Quantity, stated: Numbers) -> bool:
    values = [other.value for other in stated.quantities if other.kind == quantity.kind]
    if any(abs(quantity.value - value) <= _CLOSE * max(abs(value), 1e-9) for value in values):
        return True
    return any(quantity.number == value for value, _ in stated.bare)


_STANDS = re.compile(r"(?:measur(?:es|ing)|stands|standing|sizes? (?:is|of)|dimensions (?:are|of)|comes in) (?:a )?$")


def _rivals(reading: Reading, quantity: Quantity, others: list[Quantity]) -> bool:
    """Say whether one of the row's measures is of the very thing that the text's is of, as far as can be told."""
    if quantity.kind != "length":
        values = [other.value for other in others]
        return not min(values) <= quantity.value <= max(values)
    if quantity.chain > 1 or len({round(other.value, 2) for other in others}) > 1:
        return False
    if quantity.role and others[0].role:
        return quantity.role == others[0].role
    place = reading.text.find(quantity.shown)
    behind = tokens_of(reading.text[place + len(quantity.shown) : place + len(quantity.shown) + 30])[:2]
    nouns = _nouns(reading)
    return any(stem(token) in nouns for token in behind) or bool(
        _STANDS.search(reading.text[max(0, place - 24) : place].lower())
    )


def contradicted_count(reading: Reading, limits: Limits) -> str | None:
    """Find another number of things than the row has: "three drawers", the row 2-Drawer."""
    said = _numbers(reading)
    if not said.counts:
        return None
    stated = _numbers(reading.row)
    for count in said.counts:
        rivals = [other for other in stated.counts if other.thing == count.thing and other.value <= _MOST_THINGS]
        if not rivals or count.value in stated.values:
            continue
        told = {other.value for other in said.counts if other.thing == count.thing}
        # Beside the row's own number, another is of some of them, unless it is said of the product.
        if told.isdisjoint(rival.value for rival in rivals) or _is_its_own(reading, count):
            return f"says {count.shown}; the row {', '.join(rival.shown for rival in rivals[:3])}"
    return None


_MOST_THINGS = 999  # a larger number before a word is a catalog's


def _is_its_own(reading: Reading, count: Count) -> bool:
    """Say whether a number is that of the product's own things: "its 20 frets"."""
    return count.thing != "piece" and re.search(rf"\bits {re.escape(count.shown)}\b", reading.text) is not None


_MODEL = re.compile(r"([A-Z](?<!\w[A-Z])[A-Za-z]{2,20})[ -]?(?!\d+(?:st|nd|rd|th)\b)(\d{1,4}[A-Za-z]{0,3})\b(?!\.\d)")
_NO_MODEL = frozenset(
    "set pack box size ages age over with includes features these all our the for about only from than fits and has"
    " holds measures piece pieces case step level grade type version volume vol part number top class series".split()
)


def contradicted_model(reading: Reading, limits: Limits) -> str | None:
    """Find another number behind a name that the row numbers: "iPhone 12", the row iPhone 13."""
    if not (reading.has_digits and reading.row.has_digits):
        return None
    stated: dict[str, set[str]] = {}
    for name, number in _MODEL.findall(reading.row.text.replace("iP", "IP")):
        stated.setdefault(name.lower(), set()).add(number.lower())
    if not stated:
        return None
    row = reading.row.known
    for name, number in _MODEL.findall(reading.text.replace("iP", "IP")):
        key = name.lower()
        if key not in stated or key in _NO_MODEL:
            continue
        # "Frozen 2" may be of "Frozen 2031", where the rest of the number is something else's.
        if not any(digits.startswith(_digits(number)) for digits in map(_digits, stated[key] | row)):
            return f"says {name} {number}; the row {name} {', '.join(sorted(stated[key]))}"
    return None


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def unstated_number(reading: Reading, limits: Limits) -> str | None:
    """Find a number in digits that the row does not have."""
    said = _numbers(reading)
    if said is NONE:
        return None
    stated = _numbers(reading.row)
    for quantity in said.quantities:
        if not _is_stated(quantity, stated):
            return f"says {quantity.shown}"
    for value, shown in said.bare:
        if value not in stated.values:
            return f"says {shown}"
    return None


def _numbers(words: Words) -> Numbers:
    return words.once(_find_numbers)


def _find_numbers(words: Words) -> Numbers:
    return numbers_in(words.text, words.known)


# --- materials -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """The materials: how each is written, and what it is a kind of."""

    lines: dict[str, tuple[str, ...]]  # the material and all that it is a kind of, up to the root
    phrases: Phrases[str]


@cache
def _materials() -> _Tree:
    parents: dict[str, str] = {}
    spellings: dict[str, str] = dict.fromkeys(entries("not_materials"), "")
    for head, words in groups("material_kinds").items():
        name, _, parent = (part.strip() for part in head.partition("<"))
        if parent:
            parents[name] = parent
        spellings |= dict.fromkeys(words if name.startswith("(") else [name, *words], name)
    lines = {name: _line(name, parents) for name in {*parents, *parents.values(), *spellings.values()}}
    return _Tree(lines, Phrases(spellings))


def _line(name: str, parents: dict[str, str]) -> tuple[str, ...]:
    line = [name]
    while parent := parents.get(line[-1]):
        line.append(parent)
    return tuple(line)


class _Mention(NamedTuple):
    """A word of a lexicon at its place among a text's words."""

    start: int
    end: int
    name: str


def _material_mentions(words: Words) -> list[_Mention]:
    found = _materials().phrases.find(words.tokens, words.known)
    return [_Mention(*one) for one in found if one[2]]


_CLOTH = {"(textile fiber)", "(weave)"}


def contradicted_material(reading: Reading, limits: Limits) -> str | None:
    """Find another material than the row's: "walnut", the row oak."""
    said = reading.once(_material_mentions)
    if not said:
        return None
    tree, stated = _materials(), {mention.name for mention in reading.row.once(_material_mentions)}
    if not stated:
        return None
    # "Beech wood" is beech: what another of the row's materials is a kind of says nothing more.
    stated -= {general for name in stated for general in tree.lines[name][1:]}
    lines = {name: tree.lines[name] for name in stated}
    roots = {line[-1] for line in lines.values()}
    known = {one for line in lines.values() for one in line}
    # What a title names may be of a part ("in a glass jar"); what stands under "material" is of the product.
    told = any("material" in attribute.name.lower() for attribute in reading.product.attributes)
    ours = {mention.name: tree.lines[mention.name] for mention in said}
    if any(name in known or not stated.isdisjoint(line) for name, line in ours.items()):
        # Beside the row's own material, another is of a part, unless it names the very product; but faux leather is not
        # leather as well.
        said = [
            mention for mention in said if ours[mention.name][-1] == "(hide)" or _names_the_product(reading, mention)
        ]
    for mention in said:
        line = ours[mention.name]
        if mention.name in known or not stated.isdisjoint(line):
            continue  # the row's own, what that is a kind of, or a kind of it
        if line[-1] in _CLOTH and not roots.isdisjoint(_CLOTH - {line[-1]}):
            continue  # corduroy may be of cotton
        if (told or line[-1] in roots) and _of_the_product(reading, mention):
            return f"says {mention.name}; the row {', '.join(sorted(stated))}"
    return None


def unstated_material(reading: Reading, limits: Limits) -> str | None:
    """Find a material that the row does not have."""
    said = reading.once(_material_mentions)
    if not said:
        return None
    tree = _materials()
    known = {one for mention in reading.row.once(_material_mentions) for one in tree.lines[mention.name]}
    for mention in said:
        if mention.name not in known:
            return f"says {mention.name}"
    return None


# --- colours ---------------------------------------------------------------------------------------------------------


@cache
def _colors() -> Phrases[str]:
    words = {word: word for words in groups("color_families").values() for word in words}
    return Phrases({**words, "grey": "gray", **dict.fromkeys(entries("not_colors"), "")})


@cache
def _families() -> dict[str, frozenset[str]]:
    families: dict[str, set[str]] = {}
    for family, words in groups("color_families").items():
        for word in words:
            families.setdefault(word, set()).add(family)
    return {word: frozenset(names) for word, names in families.items()}


@cache
def _plain() -> frozenset[str]:
    return frozenset(entries("plain_colors"))


_COLOR_NOUNS = frozenset(
    "color colors colour colours colored coloured hue hues shade shades tone tones toned finish accents".split()
)
_MANY_COLORS = frozenset(
    "multicolor multicolored multicolour multi assorted various rainbow colorful colourful varied mixed".split()
)


def _color_mentions(words: Words) -> list[_Mention]:
    found = _colors().find(words.tokens, words.known)
    return [_Mention(*one) for one in found if one[2]]


def _is_color(reading: Reading, mention: _Mention) -> bool:
    """Say whether a word that may be a colour is one here."""
    if mention.name in _plain():
        return True
    tokens = reading.tokens
    after = tokens[mention.end : mention.end + 1]
    before = tokens[max(0, mention.start - 3) : mention.start]
    return bool(_COLOR_NOUNS & {*after}) or ("color" in before and "is" in before) or _comes_in(before)


def contradicted_color(reading: Reading, limits: Limits) -> str | None:
    """Find another colour of the product than the row's: "this green basket", the row black."""
    said = reading.once(_color_mentions)
    if not said:
        return None
    stated = _row_colors(reading)
    if not stated or not _MANY_COLORS.isdisjoint(reading.row.known):
        return None
    families = _families()
    own = frozenset(family for color in stated for family in families[color])
    if any(not families[mention.name].isdisjoint(own) for mention in said):
        return None  # beside the row's own colour, another is of a part or a pattern
    for mention in said:
        if families[mention.name].isdisjoint(own) and _is_color(reading, mention) and _of_the_product(reading, mention):
            return f"says {mention.name}; the row {', '.join(sorted(stated))}"
    return None


def unstated_color(reading: Reading, limits: Limits) -> str | None:
    """Find a colour that the row does not have."""
    said = reading.once(_color_mentions)
    if not said:
        return None
    known = {mention.name for mention in reading.row.once(_color_mentions)} | reading.row.known
    families = _families()
    own = {family for color in known for family in families.get(color, ())}
    for mention in said:
        if _is_color(reading, mention) and mention.name not in known | own:
            return f"says {mention.name}"
    return None


def _row_colors(reading: Reading) -> set[str]:
    """Return the colours that the row surely has: of an attribute of colours, or plain ones of the title."""
    product = reading.product
    found = set()
    for attribute in product.attributes:
        if "color" in attribute.name.lower() or "colour" in attribute.name.lower():
            found |= {mention.name for mention in _color_mentions(Words(attribute.value))}
    plain = {mention.name for mention in reading.row.once(_color_mentions)}
    return found | (plain if found else plain & _plain())


# --- what is said of the product itself ------------------------------------------------------------------------------

_MADE = frozenset("made crafted constructed built woven carved fashioned forged knit knitted sewn molded cast".split())
_OWN_NOUNS = frozenset("product item piece".split())
_REACH = 4  # words between "this" and what it points at


def _of_the_product(reading: Reading, mention: _Mention) -> bool:
    """Say whether a mention is of the product: "this green …", "made of glass", "glass vase", "the color is green"."""
    tokens, nouns = reading.tokens, _nouns(reading)
    behind = [stem(token) for token in tokens[mention.end : mention.end + 3]]
    before = tokens[max(0, mention.start - _REACH) : mention.start]
    if behind[:1] and behind[0] in nouns:
        return True
    if reading.once(_names)[mention.start : mention.end] == [True] * (mention.end - mention.start):
        return True
    if len(behind) > 1 and behind[1] in nouns and tokens[mention.end] not in _BREAKS:
        return True
    if ("color" in before and "is" in before) or _comes_in(before):
        return True
    if behind[:1] == ["construction"]:
        return True
    if not _MADE.isdisjoint(before) and not {"of", "from", "in"}.isdisjoint(before):
        return True
    # "This plush gray throw": nothing between but what describes.
    if before and before[-1] in ("this", "these"):
        return True
    for at in range(len(before) - 1, -1, -1):
        if before[at] in ("this", "these"):
            return _BREAKS.isdisjoint(before[at + 1 :])
    return False


def _names_the_product(reading: Reading, mention: _Mention) -> bool:
    """Say whether a mention stands right before the product's name, and that is not a part of a longer one.

    The name may be of two words, as the title's are, unless the first is a part that can be of another material.
    """
    nouns = _nouns(reading) - _OWN_NOUNS
    first, second, *_ = [*reading.tokens[mention.end : mention.end + 2], "", ""]
    if first == "construction" or (stem(first) in nouns and (not second or second in _BREAKS)):
        return True
    if stem(second) not in nouns or first in _PARTS:
        return False
    return (first, second) in pairwise(tokens_of(reading.product.title))


_PARTS = frozenset(
    "jar tin cup vessel bottle bowl frame leg legs handle handled top base lid shade trim back seat tip end edge head"
    " sole lining strap cover shell body panel door".split()
)
# Not "the": that may be a place, such as the Blue Ridge Mountains.
_NAME = re.compile(r"(?:our|this|these)(?<!\wour)(?<!\wthis)(?<!\wthese)\s+((?:[A-Z][\w'’-]*\s+){2,6}[A-Z][\w'’-]*)")


def _names(words: Words) -> list[bool]:
    """Tell of each word whether it is of a name that stands for the product: "our Modern Linen Chair"."""
    found = [False] * len(words.tokens)
    for match in _NAME.finditer(words.text):
        begin = len(tokens_of(words.text[: match.start(1)]))
        for place in range(begin, begin + len(tokens_of(match[1]))):
            found[place] = True
    return found


def _comes_in(before: list[str]) -> bool:
    return before[-2:] in (["comes", "in"], ["come", "in"])


_BREAKS = frozenset(
    "and or with of for to in on at by from is are was has have features featuring that which while as its your our the"
    " a an brings adds makes gives looks goes pairs fits works comes holds keeps will can set it under over against"
    " beside into like".split()
)


def _nouns(reading: Reading) -> frozenset[str]:
    return _nouns_of(reading.product.title, reading.product.category)


@lru_cache(maxsize=1_024)  # several rules ask for the same product's, one after the other
def _nouns_of(title: str, category: str) -> frozenset[str]:
    """Return the singular of what a product is called: by its title's head noun and its category's last level."""
    last = tokens_of(category.rpartition(" > ")[2])
    names = [head_noun(title), last[-1] if last else ""]
    return frozenset({*_OWN_NOUNS, *(stem(name) for name in names if name)})


def other_brand(reading: Reading, limits: Limits) -> str | None:
    """Find a maker that is not the row's: "by Acme", the row's brand Halden."""
    brand = next((one.value for one in reading.product.attributes if one.name.lower() in ("brand", "manufacturer")), "")
    if not brand:
        return None
    for name in _BY.findall(reading.text):
        if name.lower() not in reading.row.known and name.lower() not in _NO_MAKER:
            return f"says by {name}; the row's brand is {brand}"
    return None


_BY = re.compile(r"(?:by|from)(?<!\wby)(?<!\wfrom) ([A-Z][\w'’-]{2,20})\b")
_NO_MAKER = frozenset(
    "the this our your italy japan germany france england scotland ireland spain portugal india china turkey europe"
    " america mexico peru brazil egypt thailand sweden denmark norway canada australia usa monday tuesday wednesday"
    " thursday friday saturday sunday christmas january february march april may june july august september october"
    " november december".split()
)


def product_not_named(reading: Reading, limits: Limits) -> str | None:
    """Find no word for what the product is: neither its title's head noun nor its category's."""
    nouns = _nouns(reading) - _OWN_NOUNS
    beginnings = tuple(noun[:3] for noun in nouns)
    if not nouns or any(stem(token) in nouns for token in reading.known if token.startswith(beginnings)):
        return None
    return f"says nothing of {' or '.join(sorted(nouns))}"
