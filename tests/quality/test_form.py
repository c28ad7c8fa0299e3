from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.product import Attribute, Product
from enrich.quality import RULES, Rulebook, Severity

GOOD = "This oak side table holds a lamp and a book. Its drawer keeps the remote out of sight."
BOOK = Rulebook(("guaranteed", "non toxic", "100% safe"), {"banned_words": "cheap|bargain bin"})


def product(title: str = "Oak side table", **attributes: str) -> Product:
    pairs = tuple(Attribute(name, value) for name, value in attributes.items())
    return Product(0, "1", title, "Furniture > Tables", pairs, "")


def broken(text: str, of: Product | None = None, book: Rulebook = BOOK) -> set[str]:
    return set(book.judge(text, of or product()).rules)


@pytest.mark.parametrize(
    ("rule", "text", "title"),
    [
        ("too_short", "Oak side table.", ""),
        ("too_long", "An oak side table stands here. " * 13, ""),
        ("too_long", "oak " * 151, ""),
        ("no_sentence_end", "This oak side table holds a lamp and a book and", ""),
        ("no_sentence_end", "This oak side table holds a lamp. Its drawer keeps the", ""),
        ("no_sentence_end", "This oak side table has two drawers, 3.", "Oak side table, 3.9 lb"),
        ("no_sentence_end", "This oak side table weighs 3. Set it down by the sofa.", "Oak side table, 3.9 lb"),
        ("no_sentence_end", "This oak side table weighs 3. 9 lb and holds a lamp.", "Oak side table, 3.9 lb"),
        ("repeated_sentence", "This oak table holds a lamp. Set it down. This oak table holds a lamp.", ""),
        ("repeated_phrase", "It adds a touch of style. This adds a touch of calm, and adds a touch of wood.", ""),
        ("doubled_word", "This oak side table holds a lamp and and a book for you.", ""),
        ("doubled_word", "This box box holds a lamp and a book for you.", ""),
        ("doubled_word", "This oak side table works well in a quiet corner or in a quiet corner.", ""),
        ("doubled_word", "Made of wool, and wool. It holds a lamp and a book for you.", ""),
        ("placeholder", "The [Brand] side table holds a lamp and a book for you.", ""),
        ("placeholder", "The {{ title }} holds a lamp and a book for you.", ""),
        ("placeholder", "Made of N/A, this table holds a lamp and a book.", ""),
        ("placeholder", "Bring home the <Product Name> and set a lamp on it.", ""),
        ("placeholder", "Lorem ipsum dolor sit amet, this is a table for you.", ""),
        ("prompt_leak", "Title: Oak side table. It holds a lamp and a book.", ""),
        ("prompt_leak", "As an AI language model I think it holds a lamp.", ""),
        ("prompt_leak", "Sure, here's a description of a table that holds a lamp.", ""),
        ("prompt_leak", "It holds a lamp and a book.<|endoftext|> It is made of oak.", ""),
        ("foreign_script", "Этот стол из дуба держит лампу и книгу для вас.", ""),
        ("foreign_script", "This oak table is 非常好的桌子 and holds a lamp.", ""),
        ("foreign_script", "This table holds a lamp and a book for all of you.", "Дубовый столик для лампы"),
        ("foreign_language", "This table is made of oak and holds a lamp for your book.", "Tisch aus Eiche mit Fach"),
        ("foreign_language", "Der Tisch ist aus Eiche und wird mit einer Lampe das Zimmer nicht füllen.",
         "The oak table with a drawer for your lamp"),
        ("claim", "This oak table is Guaranteed to hold a lamp and a book.", ""),
        ("claim", "A non-toxic finish lets this oak table hold a lamp.", ""),
        ("claim", "This oak table is 100% safe and holds a lamp.", ""),
        ("banned_word", "This cheap oak table holds a lamp and a book.", ""),
        ("banned_word", "From the bargain bin, this oak table holds a lamp.", ""),
        ("profanity", "This oak table holds a fucking lamp and a book.", ""),
        ("link", "This oak table holds a lamp; see www.tables.example for more.", ""),
        ("link", "This oak table holds a lamp, from tables-and-more.com today.", ""),
        ("contact", "This oak table holds a lamp. Write to shop@example.org for one.", ""),
        ("contact", "This oak table holds a lamp. Dial (555) 123-4567 for one.", ""),
        ("contact", "This oak table holds a lamp. Call us for one.", ""),
        ("price", "This oak table holds a lamp for only $49.99 today.", ""),
        ("price", "This oak table holds a lamp and costs 49 EUR today.", ""),
        ("markup", "<p>This oak table holds a lamp and a book.</p>", ""),
        ("markup", "This **oak** table holds a lamp and a book.", ""),
        ("markup", "This oak table holds a lamp &amp; a book for you.", ""),
        ("emoji", "This oak table holds a lamp and a book 😀.", ""),
        ("shouting", "This OAK TABLE REALLY HOLDS a lamp WITHOUT a fuss.", ""),
        ("shouting", "This oak table holds a lamp and a book!!", ""),
        ("stock_phrase", "Look no further: this oak table holds a lamp.", ""),
        ("product_not_named", "This sofa seats three people and a small dog.", ""),
        ("empty", "  ", ""),
    ],
)  # fmt: skip
def test_what_a_rule_finds(rule: str, text: str, title: str) -> None:
    assert rule in broken(text, product(title or "Oak side table"))


@pytest.mark.parametrize(
    ("rule", "text", "title"),
    [
        ("no_sentence_end", "It measures 24 in. x 18 in. x 30 in.", ""),
        ("no_sentence_end", "Is it for a lamp? Yes, and for a book!", ""),
        ("no_sentence_end", "These oak side tables come as a set of 3.", "Oak side tables, 3.9 lb, set of 3"),
        ("no_sentence_end", "These oak side tables come as a set of 3.", "Oak side tables, 13.9 lb"),
        ("no_sentence_end", "1. This oak side table. 2. Holds a lamp. 3. It stands.", "Oak side table, 3.9 lb"),
        ("no_sentence_end", "This oak side table weighs 3.9. Set it down.", "Oak side table, 3.9 lb"),
        ("repeated_phrase", "The Oak side table with drawer holds a lamp. Set the Oak side table with drawer down.",
         "Oak side table with drawer and shelf"),
        ("doubled_word", "We knew that that table had had a long life, so so long.", ""),
        ("doubled_word", "Set the lamp on it again and again. It is very very calm.", ""),
        ("doubled_word", "The Tsum Tsum table holds a lamp and a bon bon for you.", "Tsum Tsum table with bon bon"),
        ("doubled_word", "It has a zipper and a zipper pull, and it grows longer and longer.", ""),
        ("placeholder", "The (product) of years; the label reads <3 and a [sic].", ""),
        ("placeholder", "A brand new table, named in the title of a book.", ""),
        ("placeholder", "Cinnamoroll plush marked N/A for you and for me.", '"N/A" Cinnamoroll plush'),
        ("prompt_leak", "Features: a drawer. Material: solid oak. It holds a lamp.", ""),
        ("prompt_leak", "It cannot tip over, and I can help you with that.", ""),
        ("foreign_script", "This café table is 5 µm flat and 30° warm.", ""),
        ("foreign_script", "東京の小さなテーブル。ランプを置けます。", "東京テーブル"),
        ("foreign_script", "Дубовый стол IKEA Lack держит лампу.", "Дубовый стол"),
        ("foreign_language", "This table is made of oak and holds a lamp for your book.", "Sans Pareil side table"),
        ("foreign_language", "This is the guitar for a player of the old school.", "Les Paul Standard Plus-Top Guitar"),
        ("foreign_language", "Der Tisch ist aus Eiche und mit einem Fach für das Buch.", "Tisch aus Eiche mit Fach"),
        ("claim", "Guaranteed to hold a lamp, this oak table stands well.", "Guaranteed Oak side table"),
        ("claim", "The guarantor of calm, this oak table holds a lamp.", ""),
        ("banned_word", "It cheapens nothing, this oak table that holds a lamp.", ""),
        ("profanity", "A table for cocktails, a Scunthorpe lamp and a class of wine.", ""),
        ("profanity", "A nude pink table that holds balls of wool and a lamp.", ""),
        ("link", "It holds a lamp.The drawer is 2.5 in. deep, e.g. for a book.", ""),
        ("link", "This StartTech.com table holds a lamp and a book.", "StartTech.com table"),
        ("contact", "Model 555-1234-99 holds a lamp at 24 x 18 x 30 in.", ""),
        ("price", "Play money worth $100 lies in the drawer of this table.", "Table with $100 play money"),
        ("markup", "Lamps < 40 cm fit, books > 2 kg too, and A & B as well.", ""),
        ("emoji", "This table™ holds a lamp at 30 °C and a book®.", ""),
        ("shouting", "HDMI and NASA grade, this oak table holds a lamp.", ""),
        ("product_not_named", "These oak tables hold a lamp and a book for you.", ""),
        ("product_not_named", "Set a lamp on this side table and be glad.", "Lack, 18 in"),
    ],
)  # fmt: skip
def test_what_a_rule_lets_pass(rule: str, text: str, title: str) -> None:
    assert rule not in broken(text, product(title or "Oak side table"))


def test_a_good_text_breaks_nothing() -> None:
    assert BOOK.judge(GOOD, product()).failures == ()
    assert BOOK.judge(GOOD, product()).accepted


def test_reasons_are_in_words() -> None:
    found = {one.rule: one.reason for one in BOOK.judge("Cheap walnut [Brand] table", product()).failures}
    assert found["too_short"] == "4 words, fewer than 8"
    assert found["banned_word"] == "says 'cheap'"
    assert found["placeholder"] == "has '[Brand]'"


def test_every_rule_says_what_it_finds() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", rule.name)
        assert 8 < len(rule.about) < 100
        assert Severity.OFF < rule.severity < Severity.QUARANTINE


@settings(deadline=None)  # machines may be busy
@given(st.text(max_size=400), st.text(max_size=60))
def test_no_text_breaks_a_rule_itself(text: str, title: str) -> None:
    strict = Rulebook(("guaranteed",), {"all": "retry"})
    verdict = strict.judge(text, product(title or "Table"))
    assert verdict == strict.judge(text, product(title or "Table"))
    assert all(failure.reason for failure in verdict.failures)


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "oak ", "1", "1/", "12 x ", "!", "! ", ".", ". ", "<", "<a ", "[brand ", "{{", "(555) ", "+1 2", "@",
     "a@", "www", "-", "A", "AAAA ", "&#1", "€1,", "the ", "the the ", "é", "字", "made of ", "3 in ", "set of 4 "],
)  # fmt: skip
def test_long_texts_take_linear_time(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    started = time.process_time()
    BOOK.judge(text, product("Table " + unit * 20))
    assert time.process_time() - started < 3
