"""The texts of the two open corpora that are about their product, and the product's name in them."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from words import sentences_of

from enrich.quality.words import head_noun, lexicon, stem, words_of

MAX_WORDS = 60  # longer texts are cut after a whole sentence
MIN_WORDS = 14
LARGEST_SHARE = 0.01  # of texts that begin with the same two words
UNSUITABLE = re.compile(r"\[|\]|https?:|<|\$\s?\d|\bhere is\b|\bdescription\b|x[A-F0-9]{2}", re.I)
ADULT = re.compile(r"\b(?:sex|sexy|erotic|seduction|bdsm|condom|naked|nude|virgin|adult novelty|bachelorette)\b", re.I)
DANGLING = re.compile(r"(?:It|Its|They|Their|And|But|Or)\b")
SMALL_WORDS = set("the and for with your our this that from set pack new inch size piece pieces pcs kit".split())

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
    "Musical_Instruments": "Musical Instruments",
    "Toys_and_Games": "Toys & Games",
    "Kindle_Store": "Books",
}


@dataclass(frozen=True)
class Text:
    """A text of a corpus with the titles whose product it names."""

    source: str
    product: str
    category: str
    titles: tuple[str, ...]
    text: str
    kind: str | None = None  # what the corpus calls such products: "backpack"

    @property
    def noun(self) -> str:
        """The last word of the product's name."""
        return head_noun(self.titles[-1])


def shorten(sentences: list[str]) -> str:
    kept: list[str] = []
    for sentence in sentences:
        if len(" ".join([*kept, sentence]).split()) > MAX_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept)


def names_product(sentence: str, title: str) -> bool:
    """Say whether a sentence has the title's head noun, or three of its words, or all if it has fewer."""
    said = {stem(word) for word in words_of(sentence)}
    title_words = {stem(word) for word in words_of(title) if len(word) > 2} - SMALL_WORDS
    title_words -= {stem(word) for word in (*lexicon("colors"), *lexicon("materials"))}
    return stem(head_noun(title)) in said or len(title_words & said) >= min(3, len(title_words) or 99)


def read_texts(path: Path, source: str) -> Iterator[Text]:
    """Yield each text from its first sentence on that names the product, if one of its first three does."""
    for row in pl.read_parquet(path).iter_rows(named=True):
        text, titles = row["description"], [row["title"]]
        if row["original_title"] and row["version"] != "cd0d6119":  # those describe a picture, often of another item
            titles.append(row["original_title"])
        if UNSUITABLE.search(text) or ADULT.search(f"{row['title']} {text}"):
            continue
        sentences = sentences_of(text)
        for start, sentence in enumerate(sentences[:3]):
            if named := tuple(title for title in titles if names_product(sentence, title)):
                kept = shorten(sentences[start:])
                if len(kept.split()) >= MIN_WORDS and not DANGLING.match(kept):
                    yield Text(source, row["product_id"], row["category"], named, kept, row.get("style"))
                break


def cap_openers(texts: list[Text], rng: random.Random) -> list[Text]:
    """Drop texts at random until no opening of two words has more than its share: "Calling all" has a quarter."""
    limit = int(len(texts) * LARGEST_SHARE)
    seen: Counter[str] = Counter()
    kept = []
    for text in rng.sample(texts, len(texts)):
        opener = " ".join(text.text.lower().split()[:2])
        seen[opener] += 1
        if seen[opener] <= limit or opener.split()[0] in ("this", "the", "these", "a"):
            kept.append(text)
    return kept
