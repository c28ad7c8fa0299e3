"""How often the fact rules are right, and how much they find, on sentences that a reader has labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from enrich.product import Attribute, Product
from enrich.quality import Rulebook

LABELLED = Path(__file__).parent / "data" / "labelled.txt"
KINDS = {"n": "number", "k": "count", "m": "material", "o": "color", "p": "model"}
BOOK = Rulebook()


def labelled() -> Iterator[tuple[Product, set[str], str]]:
    of = None
    for line in LABELLED.read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            title, category, attributes = (part.strip() for part in line[1:].split("|"))
            pairs = (pair.split("=", 1) for pair in attributes.split("; "))
            of = Product(0, "1", title, category, tuple(Attribute(name, value) for name, value in pairs), "")
        elif not line.startswith("#"):
            label, _, sentence = line.partition(" | ")
            assert of is not None
            prefix = {"c": "contradicted", "u": "unstated"}.get(label[0])
            yield of, {f"{prefix}_{KINDS[label[1]]}"} if prefix else set(), sentence


def scores() -> dict[str, tuple[float, float, int]]:
    """Precision, recall and the number of labelled cases: of contradictions, and of what is not stated."""
    right, told, there = Counter[str](), Counter[str](), Counter[str]()
    for of, wanted, sentence in labelled():
        found = set(BOOK.judge(sentence, of).rules)
        for kind in ("contradicted", "unstated"):
            ours = {rule for rule in found if rule.startswith(kind)}
            theirs = {rule for rule in wanted if rule.startswith(kind)}
            if kind == "unstated" and any(rule.startswith("contradicted") for rule in wanted):
                continue  # what is contradicted is not stated either
            right[kind] += len(ours & theirs)
            told[kind] += len(ours)
            there[kind] += len(theirs)
    return {kind: (right[kind] / told[kind], right[kind] / there[kind], there[kind]) for kind in told}


def test_there_are_enough_sentences() -> None:
    cases = list(labelled())
    assert len(cases) >= 300
    assert sum(not wanted for _, wanted, _ in cases) > 80


def test_contradictions_are_told_rightly() -> None:
    precision, recall, _ = scores()["contradicted"]
    assert precision >= 0.95
    assert recall >= 0.9


def test_what_is_not_stated_is_told_rightly() -> None:
    precision, recall, _ = scores()["unstated"]
    assert precision >= 0.85
    assert recall >= 0.85
