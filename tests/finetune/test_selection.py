from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import ConfigError
from enrich.finetune.pairs import Pair
from enrich.finetune.selection import Standards, is_prose, select

GOOD = "This oak table seats six people and takes little room."


def pair(text: str, number: int = 1, title: str = "Oak Table", prompt: str | None = None) -> Pair:
    return Pair(str(number), prompt or f"{title} {number}", text, "home", title)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Oak table.", "the title only"),
        ("OAK TABLE, table: oak!", "the title only"),
        ("A very nice table.", "too short"),
        ("桌子。", "too short"),
        ("BUY THIS TABLE NOW AND GET A CHAIR FOR NOTHING AT ALL", "not prose"),
        ("table, oak, wood, furniture, dining, kitchen, home", "not prose"),
        ("12 x 14 x 16 | 3.5 kg | 220 V | 50 Hz | 4.2 A | 9 pcs | 8 cm", "not prose"),
        ("See more tables like this at http://example.com/tables today", "not prose"),
        (".table { color: red; } is how you get a red table on this page", "not prose"),
    ],
)
def test_what_is_not_worth_learning_is_dropped_and_counted(text: str, reason: str) -> None:
    selection = select([pair(text), pair(GOOD)], Standards())
    assert [one.text for one in selection.pairs] == [GOOD]
    assert selection.dropped == {reason: 1}


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "Ein Tisch aus Eiche, an dem sechs Leute sitzen können.",
        "橡木餐桌，可坐六人，占地很小。",
        "Solid oak, hand made in Norway and oiled twice",
        "A 4-piece set (2.5 in. x 3.5 in.) of oak, for the hall, the study & the den.",
    ],
)
def test_prose_stays_whatever_its_language(text: str) -> None:
    assert is_prose(text)
    assert select([pair(text)], Standards()).pairs == [pair(text)]


def test_duplicates_and_copies() -> None:
    other = GOOD.replace("oak", "pine")
    pairs = [
        pair(GOOD, 1, prompt="a"),
        pair(GOOD, 1, prompt="a"),  # the same again
        pair(GOOD, 1, prompt="b"),  # another face of the product
        pair(GOOD, 2),
        pair(GOOD.upper().capitalize(), 3),
        pair(GOOD, 4),
        pair(other, 4),
    ]
    selection = select(pairs, Standards(max_copies=3))
    assert selection.pairs == [pairs[0], pairs[2], pairs[3], pairs[4], pairs[6]]
    assert selection.dropped == {"a duplicate": 1, "the text of other products too": 1}
    assert len(select(pairs, Standards(max_copies=0)).pairs) == 6


def test_boilerplate_is_cut_out() -> None:
    terms = "We ship to all states within three days."
    pairs = [pair(f"This fine table has the number {number} on its side. {terms}", number) for number in range(60)]
    pairs.append(pair(terms, 61))
    selection = select(pairs, Standards())
    assert [one.text for one in selection.pairs] == [one.text.removesuffix(" " + terms) for one in pairs[:60]]
    assert selection.shortened == 60
    assert selection.dropped == {"boilerplate": 1}
    assert select(pairs[:50], Standards()).shortened == 0  # too few to tell


@given(
    st.lists(
        st.tuples(st.sampled_from([GOOD, "Oak table.", "A B C", "x" * 50, "1, 2, 3, 4, 5, 6, 7"]), st.integers(0, 3))
    )
)
def test_each_text_is_kept_or_counted(rows: list[tuple[str, int]]) -> None:
    pairs = [pair(text, number) for text, number in rows]
    selection = select(pairs, Standards(boilerplate_texts=1))
    assert len(selection.pairs) + selection.dropped.total() == len(pairs)


def test_standards_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError):
        Standards(max_copies=-1)
