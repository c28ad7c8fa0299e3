from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.catalog.source_text import clean, is_placeholder, is_placeholder_title

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FRAGMENTS = (
    "< > & ; / ! - <! <!-- --> <b </b <p> </p> <br/> <script> </script> <style </style> &lt; &gt; &amp; &amp;lt; &# &#x"
    ' &#39; &nbsp; <![CDATA[ ]]> <? ?> \' " =" a é 5 \u200d \u200b \x00 \ud83d \u0301 \u212a \u037e'.split(" ")
)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("<p>Soft &amp; warm</p>", "Soft & warm"),
        ("<p>One</p><p>Two</p>", "One Two"),
        ("<ul><li>One<li>Two</ul>", "One Two"),
        ("A<section>B</section>C", "A B C"),
        ("H<sub>2</sub>O and <b>bo</b>ld", "H2O and bold"),
        ("a<br>b<BR/>c<br />d", "a b c d"),
        ("<a href='x>y' title=\"5 > 3\">link</a>", "link"),
        ("<b>Men's</b> <i>5\" pan</i>", "Men's 5\" pan"),
        ("<p title=5\">quote that never ends</p>", "quote that never ends"),
        ("<o:p>Word</o:p>", "Word"),
        ("<!doctype html><?xml version='1'?><p>x", "x"),
        ("<![CDATA[<p>from an XML feed</p>]]>", "from an XML feed"),
        ("a[b[0]]>1", "a[b[0]]>1"),
        ("&quot;x&quot; &#39;y&#39; &#x27;z&#X27; 5&deg; &frac12; &euro;9", "\"x\" 'y' 'z' 5° ½ €9"),
        ("AT&T, bits&notes, ?a=1&copy=2", "AT&T, bits&notes, ?a=1&copy=2"),
        ("&unknown; &#0; &#1; &#xD800;", "&unknown; \ufffd \ufffd"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
    ],
)  # fmt: skip
def test_html_becomes_the_text_that_it_shows(raw: str, plain: str) -> None:
    assert clean(raw) == plain


@pytest.mark.parametrize(
    "raw",
    [
        "<p>A <b>red</b> lamp</p>",
        "&lt;p&gt;A &lt;b&gt;red&lt;/b&gt; lamp&lt;/p&gt;",
        "&amp;lt;p&amp;gt;A red lamp&amp;lt;/p&amp;gt;",
    ],
)
def test_html_escaped_once_or_twice_more_goes_too(raw: str) -> None:
    assert clean(raw) == "A red lamp"


@pytest.mark.parametrize(
    "raw",
    [
        "<script>alert('<b>')</script>Lamp",
        "<SCRIPT src=x>if (a < b) {}</SCRIPT >Lamp",
        "<style type='text/css'>p > a {color: red}</style>Lamp",
        "<template><p>x</p></template>Lamp",
        "<iframe src='//video'>no frames</iframe>Lamp",
        "<!-- note --><!----><!-->Lamp",
        "<!--[if mso]><p>x</p><![endif]-->Lamp",
    ],
)
def test_what_a_browser_hides_is_dropped(raw: str) -> None:
    assert clean(raw) == "Lamp"


@pytest.mark.parametrize(
    "text",
    [
        "a < b", "5 > 3", "fits < 3 in", "if a<5 then", "<3 love", "1 <= 2 => 3", "<|endoftext|>", "a <> b", "<-- here",
        "{{ title }}", "=SUM(A1:A2)", "text </", "text <", "x <!",
    ],
)  # fmt: skip
def test_what_is_no_markup_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    "opened",
    ["<b", "<p class='x", "<!--", "<!-- ", "<script>", "<style>", "<script", "<![CDATA[", "</p", "<?php ", "&lt;b"],
)
def test_markup_without_an_end_loses_no_text_behind_it(opened: str) -> None:
    assert clean(f"Red {opened} lamp, large").endswith("lamp, large")
    assert clean(f"{opened} lamp <b>large</b>").endswith("lamp large")


def test_control_and_invisible_characters_go_and_words_stay_apart() -> None:
    assert clean("a\tb\r\nc\x0bd\x07e\x1ff\x7fg\x00h") == "a b c d e f g h"
    assert clean("é\tb\r\nc\x0bd\x07e\x1ff\x7fg\x00h\x85i") == "é b c d e f g h i"
    assert clean("no\xa0break\u2009thin\u3000wide\u2028line") == "no break thin wide line"
    assert clean("\ufeffze\u200bro\u2060 so\xadft \u202aleft\u202c") == "zero soft left"
    assert clean("  many   spaces  ") == "many spaces"
    assert clean("half \ud83d an emoji, \ue000 private") == "half an emoji, private"


def test_composed_and_combining_accents_become_the_same_text() -> None:
    assert clean("Cafe\u0301") == clean("Caf\xe9") == "Caf\xe9"
    assert clean("Cafe\u200b\u0301") == "Caf\xe9"


@pytest.mark.parametrize(
    "text",
    [
        "Gift \U0001f381", FAMILY, "\u2764\ufe0f", "\U0001f44d\U0001f3fd",
        "\U0001fae8",  # newer than the Unicode that Python 3.11 knows
        "مصباح أحمر", "מנורה אדומה", "می\u200cخواهم", "क्\u200dष", "赤いランプ",
    ],
)  # fmt: skip
def test_emoji_and_other_scripts_are_kept(text: str) -> None:
    assert clean(text) == text


def test_joiners_go_where_they_join_nothing() -> None:
    assert clean("\u200da\u200cb\u200d c é\u200d d\u200dé é\u200d") == "ab c é dé é"
    assert clean("é\u200d\u200c\u200dé") == "é\u200dé"


def test_direction_marks_go() -> None:
    assert clean("\u200fمصباح\u200e \u2067x\u2069") == "مصباح x"


@pytest.mark.parametrize(
    "piece",
    [
        "<", "&", "<!", "</", "<a ", "<a", "<a '", "<a \"'", "<b x=\"", "<!--", "<!-- ", "-->", "<?a", "<p>",
        "<script>", "<style>x</style", "<script></script>", "<![CDATA[", "&amp;", "&#", "&#9", "&a", "\u200d",
        "é\u200d", " ", "\xa0", "\u0301",
    ],
)  # fmt: skip
def test_a_long_cell_takes_linear_time(piece: str) -> None:
    for text in (piece * (100_000 // len(piece)), "<a" + piece * (100_000 // len(piece)), "<a " + "x" * 100_000):
        clean(text)  # a quadratic one would take minutes


@given(st.text() | st.text(st.characters()) | st.lists(st.sampled_from(FRAGMENTS)).map("".join))
@settings(max_examples=400, deadline=None)
def test_any_text_becomes_one_clean_line(text: str) -> None:
    plain = clean(text)
    assert plain == " ".join(plain.split())
    assert unicodedata.is_normalized("NFC", plain)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Co") for c in plain)
    plain.encode()
    is_placeholder(plain)


@given(
    st.text() | st.lists(st.sampled_from([piece for piece in FRAGMENTS if not set(piece) & {"<", "&"}])).map("".join)
)
@settings(max_examples=400, deadline=None)
def test_without_markup_cleaning_twice_is_cleaning_once(text: str) -> None:
    text = text.replace("<", "").replace("&", "")  # with them, each time takes one level of escaping away
    assert clean(clean(text)) == clean(text)


@given(st.lists(st.sampled_from("red lamp < 3 in & 5 > 2 x".split()), min_size=1))
def test_free_standing_signs_are_no_markup(words: list[str]) -> None:
    assert clean(" ".join(words)) == " ".join(words)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-", "--", "—", "...", "?", "N/A", "n/a.", "#N/A", "NaN", "null", "(none)", "[NULL]", "None", "TBD",
        "TBA!", "- unknown -", "No description available.", "Coming soon!", "<p></p>", "<p>&nbsp;</p><br>", "&nbsp;",
        "Lorem ipsum", "Missing", "Not Applicable",
    ],
)  # fmt: skip
def test_words_that_stand_for_nothing_are_placeholders(text: str) -> None:
    assert is_placeholder(clean(text))


@pytest.mark.parametrize(
    "text",
    ["Red.", "Soft", "A lamp", "½", "5", "赤", "None of the above", "Unknown Pleasures, LP", "Null modem cable", "Nap"],
)
def test_short_real_texts_are_none(text: str) -> None:
    assert not is_placeholder(clean(text))
    assert not is_placeholder_title(clean(text))


def test_titles_of_films_and_books_are_titles() -> None:
    assert not any(map(is_placeholder_title, ["Missing", "Empty", "Coming Soon", "xXx", "Lorem Ipsum"]))
    assert all(map(is_placeholder_title, ["", "N/A", "Test", "Unknown", "None", "null", "TBD", "-", "***"]))
