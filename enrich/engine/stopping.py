"""Stop strings: where a text ends though the model would go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enrich.engine.protocol import SamplingParams
from enrich.engine.tokenizer import Tokenizer


class StopStrings:
    """Tells whether generated tokens have completed a stop string.

    Decoding every row after every token would cost more than small models do. So it is only done after tokens that can
    be the last of a string: those that have its last character, or that are not whole characters by themselves.
    """

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._strings = tuple(strings)
        lasts = {string[-1] for string in strings} | {"\ufffd"}
        texts = enumerate(tokenizer.token_texts())
        self._last_tokens = np.array([token for token, text in texts if not lasts.isdisjoint(text)])

    @classmethod
    def of(cls, tokenizer: Tokenizer, params: SamplingParams) -> StopStrings | None:
        """Return the stop strings that are asked for, None if there are none."""
        return cls(tokenizer, params.stop) if params.stop else None

    def may_complete(self, tokens: np.ndarray) -> np.ndarray:
        """Say of each of these newest tokens whether it can be the last of a stop string: a bool each."""
        return np.isin(tokens, self._last_tokens)

    def complete(self, token_ids: Sequence[int]) -> bool:
        """Say whether the text of these tokens has a stop string."""
        text = self._tokenizer.decode(token_ids)
        return any(string in text for string in self._strings)

    def length(self, token_ids: Sequence[int], begin: int) -> int | None:
        """Return how many of the tokens there are up to the first stop string; those before `begin` have none."""
        may = self.may_complete(np.array(token_ids[begin:]))
        lengths = (begin + int(place) + 1 for place in np.flatnonzero(may))
        return next((length for length in lengths if self.complete(token_ids[:length])), None)


def cut_at(text: str, strings: Sequence[str]) -> str:
    """Return a text up to the first stop string in it."""
    places = [place for string in strings if (place := text.find(string)) >= 0]
    return text[: min(places)] if places else text
