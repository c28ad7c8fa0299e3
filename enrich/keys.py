"""Keys: one content hash for each row, from which its random stream is seeded and by which its text is known again.

A key holds what the text depends on and nothing else. The row's position is not in it, so inserting a product or
sorting the file changes no other product's text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_DIGEST_BYTES = 16


def digest(parts: Iterable[str | bytes]) -> str:
    """Hash the parts to 32 hex digits, their lengths included, so that ("ab", "c") and ("a", "bc") differ."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little"))
        state.update(raw)
    return state.hexdigest()


class KeyMaker:
    """Makes the keys of one run's rows, in catalog order.

    `model` is the fingerprint of the weights and the tokenizer, `sampling` the parameters of generation.
    """

    def __init__(self, model: str, sampling: Mapping[str, Any], seed: int) -> None:
        self._run = digest([model, json.dumps(sampling, sort_keys=True), str(seed)])
        self._seen: Counter[int] = Counter()

    def key(self, product_id: str, prompt: str) -> str:
        """Return the row's key; a row equal to an earlier one in id and prompt gets one of its own by its count."""
        base = digest([self._run, product_id, prompt])
        short = int(base[:16], 16)
        number = self._seen[short]
        self._seen[short] += 1
        return digest([base, str(number)])


def seed_of(key: str) -> int:
    """Return the 63-bit seed of a key's random stream."""
    return int(key[:16], 16) >> 1
