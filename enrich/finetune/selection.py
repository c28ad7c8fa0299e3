"""Selection: which of a catalog's texts are worth learning from, and why the others are not.

A model writes what it has read: a seller's terms under every product, a title in place of a text, a list of keywords.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from enrich.errors import ConfigError
from enrich.finetune.pairs import Pair
from enrich.quality.cleaning import split_sentences

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts without spaces: two make a word, about
_CODE = re.compile(
    r"\bfunction\s*\(|\bvar \w+ ?=|[{;]\s*[\w-]+\s*:[^{}]*;\s*\}|\bhttps?://\S+|\bwww\.\S+|<\w+|\}\s*\)\s*;"
)
_SEPARATORS = re.compile(r"[,;|•·/]")


@dataclass(frozen=True)
class Standards:
    """What a text must be like.

    A sentence of `boilerplate_words` or more that stands in more than `boilerplate_texts` different texts, and in more
    than that share of all, is boilerplate and cut out. One text may stand for `max_copies` products, 0 for any number.
    """

    min_words: int = 6
    max_copies: int = 3
    boilerplate_words: int = 5
    boilerplate_texts: int = 50
    boilerplate_share: float = 0.01

    def __post_init__(self) -> None:
        if self.min_words < 1 or self.max_copies < 0:
            raise ConfigError("min_words must be at least 1 and max_copies at least 0")


@dataclass(frozen=True)
class Selection:
    """The pairs to learn from; how many were dropped, by reason; how many had boilerplate cut out."""

    pairs: list[Pair]
    dropped: Counter[str]
    shortened: int


def select(pairs: Sequence[Pair], standards: Standards) -> Selection:
    """Drop the texts that are not worth learning from and cut boilerplate out of the others, in their order."""
    dropped: Counter[str] = Counter()
    plain = list(_keep(pairs, standards, dropped))
    without = _without_boilerplate(plain, standards)
    shortened = sum(new.text != old.text for new, old in zip(without, plain, strict=True))
    kept = []
    seen: set[tuple[str, str]] = set()
    products: defaultdict[str, set[str]] = defaultdict(set)
    for pair in without:
        key = pair.text.casefold()
        if _num_words(pair.text) < standards.min_words:
            dropped["boilerplate"] += 1
            shortened -= 1
        elif (pair.prompt, key) in seen:
            dropped["a duplicate"] += 1
        elif standards.max_copies and pair.group not in products[key] and len(products[key]) >= standards.max_copies:
            dropped["the text of other products too"] += 1
        else:
            seen.add((pair.prompt, key))
            products[key].add(pair.group)
            kept.append(pair)
    return Selection(kept, dropped, shortened)


def _keep(pairs: Sequence[Pair], standards: Standards, dropped: Counter[str]) -> Iterator[Pair]:
    for pair in pairs:
        if _says_title_only(pair):
            dropped["the title only"] += 1
        elif _num_words(pair.text) < standards.min_words:
            dropped["too short"] += 1
        elif not is_prose(pair.text):
            dropped["not prose"] += 1
        else:
            yield pair


def is_prose(text: str) -> bool:
    """Say whether a text reads as sentences rather than as code, a table, a list of keywords or shouting."""
    visible = len(text) - sum(map(str.isspace, text))
    letters, capitals = sum(map(str.isalpha, text)), sum(map(str.isupper, text))
    if letters < 0.65 * visible or capitals > 0.5 * letters or _CODE.search(text):
        return False
    return len(_SEPARATORS.findall(text)) <= 0.4 * _num_words(text)


def _num_words(text: str) -> int:
    words = len(text.split())
    return words if text.isascii() else max(words, len(_UNSPACED.findall(text)) // 2)


def _says_title_only(pair: Pair) -> bool:
    if len(pair.text) > 3 * len(pair.title):
        return False
    return set(_WORD.findall(pair.text.casefold())) <= set(_WORD.findall(pair.title.casefold()))


def _without_boilerplate(pairs: Sequence[Pair], standards: Standards) -> list[Pair]:
    """Return the pairs with the sentences cut out that stand in very many texts."""
    texts: dict[str, list[str]] = {}
    counts: Counter[int] = Counter()  # by hash: there are millions of sentences in a large catalog
    for pair in pairs:
        if pair.text not in texts:
            sentences, rest = split_sentences(pair.text)
            texts[pair.text] = [*sentences, rest] if rest else sentences
            counts.update({hash(sentence.casefold()) for sentence in texts[pair.text]})
    most = max(standards.boilerplate_texts, standards.boilerplate_share * len(texts))

    def is_boilerplate(sentence: str) -> bool:
        return counts[hash(sentence.casefold())] > most and _num_words(sentence) >= standards.boilerplate_words

    kept = {
        text: " ".join(sentence for sentence in sentences if not is_boilerplate(sentence))
        for text, sentences in texts.items()
        if any(map(is_boilerplate, sentences))
    }
    return [replace(pair, text=kept[pair.text]) if pair.text in kept else pair for pair in pairs]
