"""What spares rules their patterns lets through whatever the patterns would find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.quality import form
from enrich.quality.cleaning import STOPS, split_sentences
from enrich.quality.lexicon import tokens_of
from enrich.quality.quantities import _NUMBER, _numerals, numbers_in

SIDES = st.lists(
    st.sampled_from(["day", "don'ter", "ter", "Wool", "é", "a", "an", "the", "and", "or", "2day", ",", ",,", ".", "!"]),
    max_size=14,
).map(" ".join)


@pytest.mark.parametrize(
    "text",
    [
        "Made for day and day.",
        "Made for day, or the day!",
        "Made for don'ter and ter.",
        "For and or and.",
        "Bells on the and and the and; again",
        f"{'x' * 20} {'x' * 20} {'x' * 20} {'x' * 20} {'x' * 20} {'y' * 20}, and the "
        f"{'x' * 20} {'x' * 20} {'x' * 20} {'x' * 20} {'x' * 20} {'y' * 20}:",
    ],
)
def test_both_sides_of_an_and_are_looked_at(text: str) -> None:
    assert form._BOTH_SIDES.search(text)
    assert form._may_have_both_sides(text)


@given(SIDES)
def test_no_two_sides_are_passed_over(text: str) -> None:
    for spaced in (text, text.replace(" ,", ",").replace(" .", ".").replace(" !", "!")):
        assert form._may_have_both_sides(spaced) or not form._BOTH_SIDES.search(spaced)


@given(st.text("0159 .,/-½x'Ae"))
def test_numerals_are_the_numbers_that_are_no_words(text: str) -> None:
    assert [match.span() for match in _numerals(text)] == [match.span() for match in _NUMBER.finditer(text)]


@given(st.text("+(18) .-a5\n", max_size=40))
def test_no_telephone_number_is_passed_over(text: str) -> None:
    assert form._MAYBE_PHONE.search(text) or not form._PHONE.search(text)


@pytest.mark.parametrize("number", ["(555) 123-4567", "555 123.4567", "+49 30 1234 567", "1-800-FLOWERS"])
def test_telephone_numbers_are_looked_at(number: str) -> None:
    assert form._PHONE.search(number)
    assert form._MAYBE_PHONE.search(number)


@given(st.text(f"ab1 \"'{STOPS}"))
def test_sentences_are_no_more_than_their_stops_and_one(text: str) -> None:
    sentences, rest = split_sentences(" ".join(text.split()))
    assert len(sentences) + bool(rest) <= sum(map(text.count, STOPS)) + 1


@pytest.mark.parametrize("text", ["ſix pieces, 3 in.", "sıx pieces, 3 in.", "4 ıns. and 4 ſq. ft., a set of ſeven"])
def test_letters_that_only_look_like_a_number_word_s_are_no_error(text: str) -> None:
    assert 6.0 not in numbers_in(text, set(tokens_of(text))).values
