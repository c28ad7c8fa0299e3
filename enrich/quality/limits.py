"""Limits: the figures and phrases that the rules of one category go by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from enrich.quality.lexicon import Phrases


@dataclass(frozen=True)
class Limits:
    """How long a text may be and what it may not say. `language` is a two-letter code, empty for the row's own."""

    min_words: int = 8
    max_words: int = 150
    min_sentences: int = 1
    max_sentences: int = 12
    min_characters: int = 0
    max_characters: int = 5_000
    language: str = ""
    claims: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()

    @cached_property
    def claim_phrases(self) -> Phrases[str]:
        """The claims, ready to be looked for."""
        return Phrases({phrase: phrase for phrase in self.claims})

    @cached_property
    def banned_phrases(self) -> Phrases[str]:
        """The banned phrases, ready to be looked for."""
        return Phrases({phrase: phrase for phrase in self.banned})
