"""A text and its row as the rules read them: each cut into words and sentences once, when the first rule asks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from enrich.product import Product
from enrich.quality.cleaning import split_sentences
from enrich.quality.lexicon import tokens_of

T = TypeVar("T")
_DIGIT = re.compile(r"\d")


class Words:
    """A text and its words."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._found: dict[Callable[..., Any], Any] = {}

    def once(self, look_for: Callable[[Words], T]) -> T:
        """Return what a function finds here, looked for when the first rule asks."""
        if look_for not in self._found:
            self._found[look_for] = look_for(self)
        found: T = self._found[look_for]
        return found

    @cached_property
    def has_digits(self) -> bool:
        """Whether there is a digit in it."""
        return _DIGIT.search(self.text) is not None

    @cached_property
    def tokens(self) -> list[str]:
        """The words, lower-case."""
        return tokens_of(self.text)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each word stands, rising."""
        places: dict[str, list[int]] = {}
        for place, token in enumerate(self.tokens):
            places.setdefault(token, []).append(place)
        return places

    @cached_property
    def known(self) -> set[str]:
        """The set of words."""
        return set(self.places)


class Reading(Words):
    """A text that is to be judged beside its product."""

    def __init__(self, text: str, product: Product) -> None:
        super().__init__(text)
        self.product = product

    @cached_property
    def row(self) -> Words:
        """All that the row says: title, attributes, category."""
        product = self.product
        return Words(
            " ; ".join([product.title, *(attribute.value for attribute in product.attributes), product.category])
        )

    @cached_property
    def sentences(self) -> list[str]:
        """The whole sentences."""
        return self._split[0]

    @property
    def unfinished(self) -> str:
        """What follows the last whole sentence."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[list[str], str]:
        return split_sentences(" ".join(self.text.split()))
