"""Texts composed from the kinds of product in `kinds/`: everything they say stands in the row or is true of the kind.

The corpora teach the language; these teach the rest: that colours, materials, features and sizes come from the row, and
what a curtain rod is for. For products that have no kind of their own, `families/` has two thousand names and what is
true of anything in their family: from these a model learns to take the product's name from the title, whatever it is.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faces import COUNT_SENTENCES, COUNTS, invented_brand, invented_color
from words import article

FAMILIES = {
    "furniture": "Home & Kitchen > Furniture",
    "decor": "Home & Kitchen > Home Decor",
    "kitchen": "Home & Kitchen > Kitchen & Dining",
    "electronics": "Electronics",
    "office": "Office Products",
    "tools": "Tools & Home Improvement",
    "automotive": "Automotive",
    "apparel": "Clothing, Shoes & Jewelry",
    "beauty": "Beauty & Personal Care",
    "baby": "Baby",
    "toys": "Toys & Games",
    "books": "Books",
    "instruments": "Musical Instruments",
    "sports": "Sports & Outdoors",
    "garden": "Patio, Lawn & Garden",
    "pets": "Pet Supplies",
    "grocery": "Grocery & Gourmet Food",
}
OTHER_COLORS = (
    "natural; espresso; blush; clay; denim; dove gray; heather gray; slate blue; powder blue; steel blue; ice blue;"
    " poppy red; brick red; barn red; moss; moss green; hunter green; spruce green; sea glass; ash gray; stone; pearl;"
    " antique white; antique brass; brushed nickel; matte black; ink; ink blue; wheat; oatmeal; honey; cinnamon; smoke;"
    " fog; graphite; midnight; plum; berry; cherry; lemon; sky; black and white; blue stripe; gray plaid; clear"
).split("; ")
SMALL_WORDS = ("with", "and", "of", "for", "in", "x")
FINISHES = "solid; brushed; woven; reclaimed; recycled; polished; hand-finished; soft; heavy; fine; quilted".split("; ")


@dataclass(frozen=True)
class Kind:
    """What is true of every product of a kind; the keys of a table in `kinds/`, or drawn from its family."""

    family: str
    noun: str
    leaf: str
    modifiers: list[str]
    materials: list[str]
    features: list[str]
    size: str
    count: bool
    colored: bool
    does: list[str]
    where: list[str]
    says: list[str]

    @property
    def plural(self) -> bool:
        """Whether the noun is sold in the plural: curtains, chinos."""
        return is_plural(self.noun)


@dataclass(frozen=True)
class Family:
    """What is true of anything in a family, whatever it is called; the keys of a file in `families/`."""

    name: str
    nouns: list[str]
    modifiers: list[str]
    materials: list[str]
    features: list[str]
    sizes: list[str]
    colored: bool
    does: list[str]
    where: list[str]
    says: list[str]
    details: list[str]
    paths: list[str]

    def kind(self, rng: random.Random) -> Kind:
        """Draw a kind that is known by its name only."""
        noun = rng.choice(self.nouns)
        plural = is_plural(noun)
        return Kind(
            family=self.name,
            noun=noun,
            leaf=capital(noun) if plural else f"{noun.title()}s",
            modifiers=self.modifiers,
            materials=[material for material in self.materials if material not in noun],
            features=self.features,
            size=rng.choice(self.sizes),
            count=plural or rng.random() < 0.2,
            colored=self.colored,
            does=[in_number(does, plural) for does in self.does],
            where=self.where,
            says=[said for said in self.says if not (plural and re.search(r"\b[Ii]ts?\b", said))],
        )


@dataclass(frozen=True)
class Words:
    """What the rows of a family can hold: category paths, details by column, words for any row."""

    paths: list[str]
    details: dict[str, dict[str, list[str]]]
    modifiers: list[str]
    fragments: list[str]


@dataclass(frozen=True)
class Item:
    """A product of a kind; what it does not have is None. `details` are by column of `details.toml`."""

    kind: Kind
    brand: str | None
    color: str | None
    material: str | None
    modifier: str | None
    features: list[str]
    size: str | None
    count: int | None
    details: dict[str, str]
    fragments: bool  # whether the features are to be quoted as they stand


def is_plural(noun: str) -> bool:
    last = noun.split()[-1]
    return last.endswith("s") and not last.endswith(("ss", "us", "is")) and last not in ("lens", "Christmas", "canvas")


def in_number(words: str, plural: bool) -> str:
    """Pick the singular or the plural of every "{holds|hold}"."""
    return re.sub(r"\{([^{}|]*)\|([^{}|]*)\}", r"\2" if plural else r"\1", words)


def read_families(folder: Path) -> dict[str, Family]:
    return {
        path.stem: Family(name=path.stem, **tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.toml"))
    }


def read_kinds(folder: Path) -> list[Kind]:
    kinds = []
    for path in sorted(folder.glob("*.toml")):
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["kind"]:
            kinds.append(Kind(**{"family": path.stem, **table}))
    return kinds


def compose(kind: Kind, words: Words, number: int, rng: random.Random) -> dict[str, str | None]:
    """Draw a product of the kind and write its text."""

    def maybe(share: float, value: Any) -> Any:
        return value if rng.random() < share else None

    brand = maybe(0.65, invented_brand(rng))
    color = maybe(0.75, draw_color(rng)) if kind.colored else None
    material = maybe(0.75, rng.choice(kind.materials)) if kind.materials else None
    if material and material in kind.noun:
        material = None
    if material and rng.random() < 0.12:
        material = f"{rng.choice(FINISHES)} {material}"
    modifier = maybe(0.55, rng.choice(kind.modifiers if rng.random() < 0.6 else words.modifiers))
    features = rng.sample(kind.features, rng.choices([0, 1, 2, 3], [30, 30, 25, 15])[0])
    fragments = rng.random() < 0.2
    if fragments:
        drawn = [fill(fragment, rng) for fragment in rng.sample(words.fragments, rng.randint(1, 3))]
        features = rng.sample([*map(strip_article, features[:1]), *drawn], len(features[:1]) + len(drawn))
    size = maybe(0.5, draw_size(kind.size, rng))
    count = rng.choice(list(COUNTS)) if kind.count and rng.random() < 0.4 else None

    titled = features[:1] if not fragments and rng.random() < 0.3 else []
    listed = [feature for feature in features if feature not in titled]
    names = rng.sample(list(words.details), min(len(words.details), rng.choices([0, 1, 2], [45, 40, 15])[0]))
    details = {name: fill(rng.choice(words.details[name]["values"]), rng) for name in names}
    item = Item(kind, brand, color, material, modifier, features, size, count, details, fragments)
    title = draw_title(item, titled, rng)
    if material and not (material in title.lower() or rng.random() < 0.95):
        item = replace(item, material=None)
    separator = rng.choice(["; ", "; ", ", "])
    path = FAMILIES[kind.family] if rng.random() < 0.5 else rng.choice(words.paths)
    return {
        "product_id": f"{kind.noun} {number}",
        "title": title,
        "category": rng.choices(
            [f"{path} > {kind.leaf}", path, path.split(" > ")[-1], kind.leaf, None], [50, 22, 10, 10, 8]
        )[0],
        "color": color and (color.title() if rng.random() < 0.95 or color not in title.lower() else color),
        "material": item.material,
        "size": size if size and (rng.random() < 0.9 or size not in title) else None,
        "features": separator.join(strip_article(feature) for feature in listed) or None,
        **details,
        "brand": brand if brand and (rng.random() < 0.75 or brand not in title) else None,
        "description": draw_text(item, words, rng),
    }


def fill(value: str, rng: random.Random) -> str:
    name = f"{invented_brand(rng).split()[0]} {invented_brand(rng).split()[0]}"
    return value.format(n=rng.randint(2, 60), m=rng.randint(1, 9), name=name)


def draw_color(rng: random.Random) -> str:
    return rng.choice(OTHER_COLORS) if rng.random() < 0.5 else invented_color(rng)


def strip_article(feature: str) -> str:
    first, _, rest = feature.partition(" ")
    return rest if first in ("a", "an", "the") else feature


def draw_size(form: str, rng: random.Random) -> str | None:
    width, depth, height = (rng.randint(4, 96) for _ in range(3))
    ounces = rng.choice([f"{rng.randint(1, 40)} oz", f"{rng.randint(1, 30)}.{rng.randint(1, 9)} oz"])
    return {
        "box": f"{width} x {depth} x {height} in",
        "flat": f"{width} x {depth} in",
        "length": f"{width} in",
        "diameter": f"{width} in diameter" if rng.random() < 0.5 else f"{width} in",
        "volume": ounces,
        "weight": rng.choice([ounces, f"{rng.randint(1, 25)} lb"]),
    }.get(form)


def draw_title(item: Item, titled: list[str], rng: random.Random) -> str:
    """Write a title as shops do, some of the attributes before the noun, some after it, some not at all."""
    drawn = (item.color if rng.random() < 0.35 else None, item.material if rng.random() < 0.5 else None)
    before = [word for word in drawn if word]
    if item.modifier:
        before.insert(rng.randint(0, len(before)), item.modifier)
    title = " ".join([*before, item.kind.noun])
    if titled:
        title += f" with {strip_article(titled[0])}"
    title = " ".join(word if word in SMALL_WORDS else capital(word) for word in title.split())
    after = []
    if item.color and item.color not in before and rng.random() < 0.5:
        if item.material and item.material not in before and rng.random() < 0.3:
            after.append(f"{item.color} {item.material}".title())
        else:
            after.append(item.color.title())
    if item.size and rng.random() < 0.15:
        title = f"{item.size} {title}"
    elif item.size and rng.random() < 0.5:
        after.append(item.size)
    rng.shuffle(after)
    if item.color and item.color not in before and not after and rng.random() < 0.3:
        title = f"{title} in {item.color.title()}"
    if item.count:
        after.append(f"{rng.choice(['Set of', 'Set of', 'Pack of'])} {item.count}")
    if item.brand and rng.random() < 0.8:
        if rng.random() < 0.88:
            title = f"{item.brand} {title}"
        else:
            after.append(f"by {item.brand}")
    return ", ".join([title, *after])


def draw_text(item: Item, words: Words, rng: random.Random) -> str:
    """Write a text that says nothing but what stands in the row or is true of the kind."""
    kind, brand, color, material = item.kind, item.brand, item.color, item.material
    noun, plural = kind.noun, kind.plural
    this, it, has, comes, makes = (
        ("These", "They", "have", "come", "are made") if plural else ("This", "It", "has", "comes", "is made")
    )
    does, *more_does = rng.sample(kind.does, len(kind.does))
    says = rng.sample(kind.says, len(kind.says))
    left = {
        "color": color,
        "material": material,
        "features": item.features[:],
        "brand": brand if rng.random() < 0.6 else None,
    }

    def named(*, with_modifier: bool = True, branded: bool = False) -> str:
        """Return the noun with those of its attributes that have not been said, and strike them off."""
        before = [left.pop("brand", None)] if branded else []
        before.append(item.modifier if with_modifier and item.modifier and rng.random() < 0.85 else None)
        before.append(left.pop("color", None) if rng.random() < 0.65 else None)
        before.append(left.pop("material", None) if rng.random() < 0.65 else None)
        return " ".join(word for word in (*before, noun) if word)

    def a(words: str) -> str:
        return words if plural else f"{article(words)} {words}"

    openers = ["this", "this", "this"]
    if kind.family != "grocery":  # "a rice" is no English
        openers += ["a_that", "from_brand"] if left["brand"] else ["a_that"]
    if left["brand"]:
        openers += ["the_brand", "the_brand", "brand_makes"]
    if material:
        openers += ["made_of", "made_of"]
    if color:
        openers += ["in_color"]
    if item.features and not item.fragments:
        openers += ["with_feature", "with_feature"]
    openers += ["says_first"] if says else []
    match rng.choice(openers):
        case "this":
            first = f"{this} {named()} {does}."
        case "a_that":
            first = f"{capital(a(named()))} that {does}."
        case "the_brand":
            first = f"The {named(branded=True)} {does}."
        case "from_brand":
            who = left.pop("brand")
            first = f"From {who} {'come' if plural else 'comes'} {a(named())} that {does}."
        case "brand_makes":
            who = left.pop("brand")
            first = f"{who} made {this.lower()} {named()} with a plain aim: {it.lower()} {does}."
        case "made_of":
            left.pop("material")
            first = f"Made of {material}, {this.lower()} {named()} {does}."
        case "in_color":
            left.pop("color")
            first = f"In {color}, {this.lower()} {named()} {does}."
        case "with_feature":
            feature = left["features"].pop(0)
            first = f"With {feature}, {this.lower()} {named()} {does}."
        case _:
            first = f"{says.pop()} {this} {named()} {does}."

    middle = [says.pop()] if says else []
    if rng.random() < 0.5 and says:
        middle.append(says.pop())
    if left["features"] and item.fragments:
        listing = ", ".join(left["features"])
        middle.append(
            rng.choice(["Features: {}.", "Details: {}.", "In short: {}.", "Good to know: {}."]).format(listing)
        )
    elif left["features"]:
        said = join(left["features"])
        middle.append(
            rng.choice(
                [
                    f"{it} {has} {said}.",
                    f"{it} {comes} with {said}.",
                    f"Among the details: {said}.",
                    f"You also get {said}.",
                    f"Details include {said}.",
                    f"Look for {said}.",
                ]
            )
        )
    if left.get("material") and left.get("color") and rng.random() < 0.8:
        both = f"{left.pop('color')} {left.pop('material')}"
        middle.append(
            rng.choice([f"{it} {makes} of {both}.", f"{it} {comes} in {both}.", f"The {noun} {comes} in {both}."])
        )
    if left.get("material") and rng.random() < 0.85:
        middle.append(rng.choice([f"{it} {makes} of {material}.", f"The {noun} {makes} of {material}."]))
    if left.get("color") and rng.random() < 0.85:
        middle.append(
            rng.choice(
                [
                    f"{it} {comes} in {color}.",
                    f"The color is {color}.",
                    f"Shown here in {color}.",
                    f"In {color}, {it.lower()} {'go' if plural else 'goes'} with most rooms."
                    if kind.family in ("furniture", "decor", "kitchen")
                    else f"{it} {comes} in {color}.",
                ]
            )
        )
    if rng.random() < 0.35:
        places = join(rng.sample(kind.where, rng.randint(1, min(2, len(kind.where)))), "or")
        middle.append(f"{it} {'work' if plural else 'works'} well {places}.")
    for name, value in item.details.items():
        if rng.random() < 0.8:
            slots = {"v": value, "a": article(value), "it": it.lower(), "It": it, "noun": noun}
            middle.append(capital(in_number(rng.choice(words.details[name]["says"]), plural).format(**slots)))
    rng.shuffle(middle)
    if more_does and rng.random() < 0.3:
        verb, _, rest = more_does[0].partition(" ")
        middle.append(f"{it} {verb} also {rest}." if verb in ("is", "are") else f"{it} also {more_does[0]}.")
    last = []
    if item.size and rng.random() < 0.6:
        last.append(size_sentence(kind, item.size, it, rng))
    if item.count and rng.random() < 0.7:
        last.append(rng.choice(COUNT_SENTENCES).format(rng.choice([str(item.count), COUNTS[item.count]])))
    return " ".join([first, *middle, *last])


def size_sentence(kind: Kind, size: str, it: str, rng: random.Random) -> str:
    if kind.size in ("volume", "weight"):
        return rng.choice(
            [f"Net contents: {size}.", f"{it} {'hold' if it == 'They' else 'holds'} {size}.", f"Size: {size}."]
        )
    measure = "measure" if it == "They" else "measures"
    return rng.choice(
        [f"{it} {measure} {size}.", f"{capital(measure)} {size}.", f"Size: {size}.", f"The size is {size}."]
    )


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def join(words: list[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def compose_all(folder: Path, each: int, named: int, rng: random.Random) -> Iterator[dict[str, str | None]]:
    """Compose `each` texts for every kind, and `named` for every family of kinds that are known by name only."""
    details = tomllib.loads((folder / "details.toml").read_text(encoding="utf-8"))
    phrases = tomllib.loads((folder / "phrases.toml").read_text(encoding="utf-8"))
    families = read_families(folder / "families")
    words = {
        family.name: Words(family.paths, {name: details[name] for name in family.details}, **phrases)
        for family in families.values()
    }
    for kind in read_kinds(folder / "kinds"):
        for number in range(each):
            yield compose(kind, words[kind.family], number, rng)
    for family in families.values():
        for number in range(named):
            yield compose(family.kind(rng), words[family.name], number, rng)
