"""Faces of a product: the catalog rows that a text could be the description of."""

from __future__ import annotations

import random
import re

from corpus import FAMILIES, Text
from words import swap

from enrich.quality.words import colors_in, lexicon, materials_in

# Where "orange" is no colour and "copper" no material, nothing is swapped.
NO_SWAPS = {"groceries", "food service", "salty snacks", "cold dispensed", "hot dispensed", "books", "Kindle_Store"}
SIZED = {"furniture", "homedecor", "housewares", "seasonal", "outdoors", "electronics", "instruments", "tools"}
SYLLABLES = (
    "al ar bel bram bri cal cor dal dor el fen fer gal hal har jun kel lan lor mar mer mor nor oak or pel per quil ran"
    " ros sel tam tor ul ver wen wil"
).split()
ENDINGS = "a by dale den don en field ford ham la ley lin low mere mont ra ren ric son stead ton vale wick wood".split()
SECOND_NAMES = "Home Goods Living Lane House Studio Works Mill Supply Vale".split()
# Materials that can stand for one another in a text without making it absurd.
SWAPPABLE = [
    "oak walnut teak mahogany acacia birch pine bamboo wood beech rubberwood ash".split(),
    "cotton linen velvet wool polyester boucle chenille satin silk flannel microfiber canvas jute".split(),
    "brass copper iron chrome nickel pewter steel aluminum bronze".split(),
    "ceramic porcelain stoneware terracotta glass marble concrete".split(),
]
# What a text says a product comes with: "featuring a curved silhouette", "with ample storage space".
_SMALL = (
    "and|that|which|for|to|while|from|in|on|as|is|are|will|perfect|ideal|when|so|or|with|your|our|you|at|by|like|this"
)
_PHRASE = (
    r"(?:an?\s|the\s|its\s|their\s)?"
    r"((?!(?:an?|our|this|these|those|your|you|ease|it|all|any|every|each|one|some|both|time|style|mind|the|for|his|her)\b)"
    rf"[a-z][a-z0-9'-]*(?: (?!(?:{_SMALL}|making|creating|creates?|these|the|adds?|has|makes?|any|every|of|without)\b)"
    r"[a-z0-9'-]+){1,5})"
)
FEATURE = re.compile(
    r"\b(?:with|featuring|features|feature|boasts|offers|includes|including|has|have|provides|made (?:of|from|with)"
    rf"|(?:crafted|constructed) (?:of|from|with|in))\s+{_PHRASE}"
)
NEXT_FEATURE = re.compile(rf"(?:,| and|, and)\s+{_PHRASE}")
USE = re.compile(r"\b(?:perfect|ideal|great|suitable|designed|made|essential) for ((?:[a-z0-9'-]+ ?){1,7})(?=[,.;])")
STYLES = (
    "modern rustic farmhouse contemporary minimalist vintage classic traditional bohemian retro sleek elegant stylish"
    " timeless chic luxurious sophisticated cozy casual festive whimsical compact lightweight durable versatile sturdy"
).split()
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 10: "ten", 12: "twelve"}
SIZE_SENTENCES = ("It measures {}.", "Measures {}.", "The size is {}.", "Dimensions: {}.", "Overall size is {}.")
COUNT_SENTENCES = (
    "Comes as a set of {}.",
    "Sold as a set of {}.",
    "The set has {}.",
    "You get {} in one set.",
    "One set holds {}.",
)


def invented_brand(rng: random.Random) -> str:
    name = (rng.choice(SYLLABLES) + rng.choice(["", "", rng.choice(SYLLABLES)]) + rng.choice(ENDINGS)).title()
    return f"{name} {rng.choice(SECOND_NAMES)}" if rng.random() < 0.2 else name


def invented_color(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(lexicon("colors"))
    return f"{rng.choice(lexicon('color_modifiers'))} {rng.choice(lexicon('colors'))}"


def category_face(text: Text, rng: random.Random) -> str | None:
    path = FAMILIES[text.category]
    leaf = text.kind.title() if text.kind else f"{text.noun.title().removesuffix('s')}s"
    pretty = path.split(" > ")[-1]
    return rng.choices(
        [None, text.category, pretty, path, f"{path} > {leaf}", f"{pretty} > {leaf}", leaf], [8, 5, 10, 17, 40, 12, 8]
    )[0]


def features_in(body: str) -> list[str]:
    """Return the phrases, two to six words each, by which a text says what the product has."""
    found = []
    for first in FEATURE.finditer(body):
        match: re.Match[str] | None = first
        while match:
            found.append(match[1])
            match = NEXT_FEATURE.match(body, match.end())
    return list(dict.fromkeys(found))


def styles_in(body: str) -> list[str]:
    words = re.findall(r"[a-z]+", body.lower())
    return [style for style in STYLES if style in words]


def uses_in(body: str) -> list[str]:
    return [use.strip() for use in USE.findall(body)]


def joined_title(text: Text) -> str:
    """Return the shop's title with the one written for the text behind it: "Desk Lamp - Sleek Light for Late Work"."""
    written, *own = text.titles
    return f"{own[0]} - {written}" if own and own[0].lower() not in written.lower() else written


def plain_face(text: Text) -> dict[str, str | None]:
    """Return the row as a catalog that states what the text says would have it: nothing invented, nothing swapped."""
    materials = materials_in(*text.titles, text.text)
    colors = [color for color in colors_in(*text.titles, text.text) if color not in materials]
    path = FAMILIES[text.category]
    return {
        "product_id": text.product,
        "title": joined_title(text),
        "category": f"{path} > {text.kind.title()}" if text.kind else path,
        "color": ", ".join(color.title() for color in colors[:3]) or None,
        "material": ", ".join(materials[:3]) or None,
        "size": None,
        "style": ", ".join(styles_in(text.text)[:3]) or None,
        "features": "; ".join(features_in(text.text)[:6]) or None,
        "occasion": "; ".join(uses_in(text.text)[:1]) or None,
        "brand": None,
        "description": text.text,
    }


def varied_face(text: Text, rng: random.Random) -> dict[str, str | None]:
    """Return one of the many rows that the text fits, its colour and material swapped for others here and there."""
    body = text.text
    title = joined_title(text) if rng.random() < 0.35 else rng.choice(text.titles)
    materials = materials_in(title, body)
    colors = [color for color in colors_in(title, body) if color not in materials]
    if text.category not in NO_SWAPS:
        title, body, colors, materials = recolor(title, body, colors, materials, rng)
    brand = size = count = None
    if text.source == "retail":
        brand = invented_brand(rng) if rng.random() < 0.25 else None
        size = invented_size(rng) if text.category in SIZED and rng.random() < 0.2 else None
        count = rng.choice(list(COUNTS)) if rng.random() < 0.06 else None
        title = retitle(title, colors, brand, size, count, rng)
        body = speak(body, text.noun, brand, size, count, rng)
    separator = rng.choice([", ", "; "])
    bare = rng.random() < 0.12  # a title and nothing else

    def stated(share: float, values: list[str], most: int) -> str | None:
        return separator.join(values[:most]) if values and not bare and rng.random() < share else None

    features = features_in(body)[:6]
    if len(features) > 1 and rng.random() < 0.3:
        features = rng.sample(features, rng.randint(1, len(features)))
    return {
        "product_id": text.product,
        "title": title,
        "category": category_face(text, rng),
        "color": stated(0.9, [color.title() for color in colors], 3),
        "material": stated(0.9, materials, 3),
        "size": size,
        "style": stated(0.6, styles_in(body), 3),
        "features": stated(0.7, features, 6),
        "occasion": stated(0.5, uses_in(body), 1),
        "brand": brand if brand and rng.random() < 0.8 else None,
        "description": body,
    }


def recolor(
    title: str, body: str, colors: list[str], materials: list[str], rng: random.Random
) -> tuple[str, str, list[str], list[str]]:
    if len(colors) == 1 and rng.random() < 0.45:
        new = invented_color(rng)
        title, body, colors = swap(title, colors[0], new), swap(body, colors[0], new), [new]
    for group in SWAPPABLE:
        found = [material for material in materials if material in group]
        if len(found) == 1 and rng.random() < 0.45:
            new = rng.choice(group)
            title, body = swap(title, found[0], new), swap(body, found[0], new)
            materials = [new if material == found[0] else material for material in materials]
    return title, body, colors, materials


def retitle(
    title: str, colors: list[str], brand: str | None, size: str | None, count: int | None, rng: random.Random
) -> str:
    """Write the title as shops do: the brand before it, the colour, size and number after it."""
    if colors and rng.random() < 0.4 and (found := re.search(rf"\b{re.escape(colors[0])}\b ?", title, re.I)):
        rest = (title[: found.start()] + title[found.end() :]).strip()
        title = f"{rest}, {colors[0].title()}" if rest else title
    if brand and rng.random() < 0.7:
        title = f"{brand} {title}" if rng.random() < 0.9 else f"{title} by {brand}"
    if size and rng.random() < 0.6:
        title = f"{title}, {size}"
    return f"{title}, {rng.choice(['Set of', 'Pack of'])} {count}" if count else title


def speak(body: str, noun: str, brand: str | None, size: str | None, count: int | None, rng: random.Random) -> str:
    """Have the text say brand, size and number, now and then."""
    if brand and rng.random() < 0.5:
        body = re.sub(
            rf"^(This|The|Our|These) ((?:[\w'-]+,? ){{0,4}}){re.escape(noun)}\b",
            lambda match: f"{match[1]} {brand} {match[2]}{noun.lower()}",
            body,
            count=1,
            flags=re.I,
        )
    if count and rng.random() < 0.6:
        body = f"{body} {rng.choice(COUNT_SENTENCES).format(rng.choice([str(count), COUNTS[count]]))}"
    if size and rng.random() < 0.4:
        body = f"{body} {rng.choice(SIZE_SENTENCES).format(size)}"
    return body


def invented_size(rng: random.Random) -> str:
    width, depth, height = (rng.randint(4, 90) for _ in range(3))
    return rng.choice([f"{width} x {depth} in", f"{width} x {depth} x {height} in", f"{width} in"])
