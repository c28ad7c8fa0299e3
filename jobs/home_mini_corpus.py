"""Turn the Retail Demo Store texts into the training catalog of `home-mini`.

    python jobs/home_mini_corpus.py retail_demo_store.parquet training.parquet

The corpus holds up to four texts for each product (AWS Retail Demo Store, MIT-0), but catalogs in the wild have
attributes and category paths, which it lacks. So each text is written out several times, under different faces of the
same product: another of its titles, another form of its category, colours and materials mined from its title and text
or not, features that the text names, a brand and a size that it does not speak of. The model learns from it to use
what it is given and to do without what it is not. `enrich finetune` reads the result like any other catalog.
"""

import random
import re
import sys
from pathlib import Path

import polars as pl

LEXICONS = Path(__file__).resolve().parent.parent / "enrich" / "lexicons"
FACES_PER_TEXT = 3
MAX_WORDS = 75  # longer texts are cut after a whole sentence

FAMILIES = {
    "accessories": "Clothing, Shoes & Jewelry > Accessories",
    "apparel": "Clothing, Shoes & Jewelry > Clothing",
    "beauty": "Beauty & Personal Care",
    "books": "Books",
    "cold dispensed": "Grocery & Gourmet Food > Beverages",
    "electronics": "Electronics",
    "floral": "Patio, Lawn & Garden > Flowers & Plants",
    "food service": "Grocery & Gourmet Food > Prepared Food",
    "footwear": "Clothing, Shoes & Jewelry > Shoes",
    "furniture": "Home & Kitchen > Furniture",
    "groceries": "Grocery & Gourmet Food",
    "homedecor": "Home & Kitchen > Home Decor",
    "hot dispensed": "Grocery & Gourmet Food > Beverages",
    "housewares": "Home & Kitchen > Kitchen & Dining",
    "instruments": "Musical Instruments",
    "jewelry": "Clothing, Shoes & Jewelry > Jewelry",
    "outdoors": "Sports & Outdoors",
    "salty snacks": "Grocery & Gourmet Food > Snacks",
    "seasonal": "Home & Kitchen > Seasonal Decor",
    "tools": "Tools & Home Improvement",
}
BRANDS = (
    "Alder Arden Brookfield Calla Corvin Dunmore Elmhurst Fenwick Halden Juniper Kestrel Larkin Marlow Norden Oakley"
    " Perrin Quill Rowan Sable Tamsin Verity Wexford"
).split()
UNSUITABLE = re.compile(r"\[|\]|https?:|<|\$\s?\d|\bhere is\b|\bdescription\b", re.I)
SENTENCE_END = re.compile(r"[.!?][\"')\u201d]?(?=\s+[A-Z0-9\"'(]|$)")


def read_lexicon(name: str) -> list[str]:
    lines = (LEXICONS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return sorted((line for line in lines if line and not line.startswith("#")), key=len, reverse=True)


def word_pattern(words: list[str], prefix: str = "") -> re.Pattern[str]:
    return re.compile(rf"\b({prefix}(?:{'|'.join(map(re.escape, words))}))\b", re.I)


COLOR = word_pattern(read_lexicon("colors"), rf"(?:(?:{'|'.join(read_lexicon('color_modifiers'))})[ -])?")
MATERIAL = word_pattern(read_lexicon("materials"))


# What a text says a product comes with: "featuring a curved silhouette", "with ample storage space".
FEATURE = re.compile(
    r"\b(?:with|featuring|features|boasts|offers|includes)\s+(?:an?\s|the\s|its\s)?"
    r"((?!our\b|this\b|these\b|those\b|your\b|you\b|ease\b)[a-z][a-z0-9 -]{8,48})(?=[,.;])"
)


def mentions(pattern: re.Pattern[str], *texts: str) -> list[str]:
    found = (match.lower() for text in texts for match in pattern.findall(text))
    return list(dict.fromkeys(found))


def shorten(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    fitting = [end for end in ends if len(text[:end].split()) <= MAX_WORDS]
    return text[: fitting[-1]] if fitting else ""


def category_face(row: dict, rng: random.Random) -> str | None:
    plain = row["category"]
    pretty = FAMILIES[plain].split(" > ")[-1]
    style = (row["style"] or "").title()
    return rng.choices(
        [None, plain, pretty, FAMILIES[plain], f"{FAMILIES[plain]} > {style}", f"{pretty} > {style}"],
        [10, 10, 15, 20, 30, 15],
    )[0]


def face(row: dict, text: str, rng: random.Random, number: int) -> dict:
    titles = [row["title"]]
    if row["version"] != "cd0d6119":  # those texts describe a picture, often of another item than original_title
        titles.append(row["original_title"])
    title = titles[number % len(titles)]
    # A colour is the product's own if the title has it; in the text alone only if it is the one colour there.
    colors = mentions(COLOR, title) or mentions(COLOR, text)
    materials = mentions(MATERIAL, title, text)[:2]
    size = f"{rng.randint(4, 80)} x {rng.randint(4, 80)} in"
    return {
        "product_id": row["product_id"],
        "title": title,
        "category": category_face(row, rng),
        "color": colors[0] if len(colors) == 1 and rng.random() < 0.6 else None,
        "material": ", ".join(materials) if materials and rng.random() < 0.6 else None,
        "size": size if rng.random() < 0.15 else None,
        "features": ", ".join(FEATURE.findall(text)[:2]) or None if rng.random() < 0.35 else None,
        "brand": rng.choice(BRANDS) if rng.random() < 0.2 else None,
        "description": text,
    }


def main(source: str, target: str) -> None:
    rng = random.Random(20220)
    rows, dropped = [], 0
    for row in pl.read_parquet(source).iter_rows(named=True):
        text = "" if UNSUITABLE.search(row["description"]) else shorten(row["description"])
        if len(text.split()) < 12:
            dropped += 1
            continue
        rows += [face(row, text, rng, number) for number in range(FACES_PER_TEXT)]
    frame = pl.DataFrame(rows, infer_schema_length=None).unique(maintain_order=True)
    frame.write_parquet(target)
    print(f"{len(frame)} training rows written to {target}; {dropped} texts dropped (placeholder, price, too short)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
