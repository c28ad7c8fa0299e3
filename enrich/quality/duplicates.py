"""Near duplicates: texts that are, word for word or nearly so, another product's.

With the package rensa they are found by MinHash (Broder 1997) and banded hashing, from four words in five shared;
without it, by what is left of a text when case, marks and figures are taken out.
"""

from __future__ import annotations

import hashlib
import re
from importlib import util
from typing import Any

from enrich.quality.lexicon import tokens_of

_SHINGLE = 3  # words
_PERMUTATIONS, _BANDS = 64, 16
_CLOSE = 0.8
# Texts that are held against every other; of more, at some 1 kB each, only equal ones are found.
_MOST_TEXTS = 200_000
_FIGURES = re.compile(r"\d+")


class Duplicates:
    """The texts seen so far. `exact` leaves rensa unused where it is installed."""

    def __init__(self, *, exact: bool = False) -> None:
        self._by_digest: dict[bytes, int] = {}
        self._rensa: Any = None
        if not exact and util.find_spec("rensa") is not None:
            import rensa

            self._rensa = rensa
            self._index = rensa.RMinHashLSH(threshold=_CLOSE, num_perm=_PERMUTATIONS, num_bands=_BANDS)
            self._hashes: dict[int, Any] = {}

    def add(self, number: int, text: str) -> int | None:
        """Take in a text; return the number of the first one that it is nearly the same as, if there is one."""
        tokens = tokens_of(_FIGURES.sub(" ", text))
        digest = hashlib.blake2b(" ".join(tokens).encode(), digest_size=12).digest()
        if digest in self._by_digest:
            return self._by_digest[digest]
        can_be_near = self._rensa is not None and len(tokens) > _SHINGLE
        found = self._near(number, tokens) if can_be_near else None
        self._by_digest[digest] = number if found is None else found
        return found

    def _near(self, number: int, tokens: list[str]) -> int | None:
        shingles = {" ".join(tokens[start : start + _SHINGLE]) for start in range(len(tokens) - _SHINGLE + 1)}
        hashed = self._rensa.RMinHash(num_perm=_PERMUTATIONS, seed=1)
        hashed.update(sorted(shingles))
        near = [other for other in self._index.query(hashed) if hashed.jaccard(self._hashes[other]) >= _CLOSE]
        if near:
            return int(min(near))
        if len(self._hashes) < _MOST_TEXTS:
            self._index.insert(number, hashed)
            self._hashes[number] = hashed
        return None
