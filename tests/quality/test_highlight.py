from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enrich.product import Attribute, Product
from enrich.quality.highlight import highlight

TABLE = Product(0, "1", "Oak Side Table, 18 in", "Furniture", (Attribute("Color", "Slate Blue"),), "")


def of_kind(text: str, kind: str) -> list[str]:
    return [piece.text for piece in highlight(text, TABLE) if piece.kind == kind]


def test_what_the_row_says_is_marked_as_one_piece() -> None:
    assert of_kind("This slate blue side table is 18-in wide.", "stated") == ["slate blue side table", "18"]


def test_a_colour_a_material_and_a_number_that_the_row_does_not_have_are_told_apart() -> None:
    assert of_kind("A walnut table with red legs, 24 in tall.", "unstated") == ["walnut", "red", "24"]


def test_words_without_a_fact_are_not_marked() -> None:
    assert of_kind("It brings warmth to the room and the home.", "stated") == []


@given(st.text())
def test_the_pieces_are_the_text(text: str) -> None:
    assert "".join(piece.text for piece in highlight(text, TABLE)) == text
