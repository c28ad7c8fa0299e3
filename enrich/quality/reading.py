"""A text and its row as the rules read them: each cut into words, and if a rule asks into sentences, once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from enrich.product import Product
from enrich.quality.cleaning import split_sentences
from enrich.quality.lexicon import tokens_of

T = TypeVar("T")


class Words:
    """A text and its words."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens_of(text)  # the words, lower-case
        self.known = set(self.tokens)
        self._found: dict[Callable[..., Any], Any] = {}

    def once(self, look_for: Callable[[Words], T]) -> T:
        """Return what a function finds here, looked for when the first rule asks."""
        if look_for not in self._found:
            self._found[look_for] = look_for(self)
        found: T = self._found[look_for]
        return found

    @cached_property
    def characters(self) -> frozenset[str]:
        """The set of characters: most texts are seen by it to have nothing of what several rules look for."""
        return frozenset(self.text)

    @cached_property
    def has_digits(self) -> bool:
        """Whether there is a digit in it."""
        return any(map(str.isdecimal, self.characters))


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
