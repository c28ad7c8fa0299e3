"""Grounding: the tokens that a row's text must not have, because the rules would reject them anyway.

Those are digits of numbers that the prompt does not have, and words that are banned. They are left out where tokens are
drawn, so fewer texts have to be tried again. What takes several tokens, such as a banned phrase, is the rules' alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


class Grounding:
    """What may not be drawn, by `token_texts`, what each token id of a model stands for."""

    def __init__(self, token_texts: Sequence[str]) -> None:
        self._numbers: dict[str, list[int]] = {}  # token ids by their digits
        self._words: dict[str, list[int]] = {}  # by the word that they are as a whole, lower-case
        for token_id, text in enumerate(token_texts):
            for digits in _DIGITS.findall(text):
                self._numbers.setdefault(digits, []).append(token_id)
            word = text.strip().lower()
            if word:
                self._words.setdefault(word, []).append(token_id)
        self._of = lru_cache(maxsize=4096)(self._forbidden)

    def forbidden(self, prompt: str, banned: Iterable[str]) -> tuple[int, ...]:
        """Return the token ids that the text for a prompt must not have, rising.

        A number's token is allowed if its digits stand somewhere in one of the prompt's; a banned word if the prompt
        has it.
        """
        known = set(_WORD.findall(prompt.lower()))
        words = frozenset(word.lower() for word in banned if word.lower() not in known)
        return self._of(frozenset(_DIGITS.findall(prompt)), words)

    def _forbidden(self, stated: frozenset[str], banned: frozenset[str]) -> tuple[int, ...]:
        found = {
            token_id
            for digits, token_ids in self._numbers.items()
            if not any(digits in number for number in stated)
            for token_id in token_ids
        }
        found.update(token_id for word in banned for token_id in self._words.get(word, ()))
        return tuple(sorted(found))
