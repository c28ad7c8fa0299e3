"""Keys: one content hash for each row, from which its random stream is seeded and by which its text is known again.

A key holds what the text depends on and nothing else. The row's position is not in it, so inserting a product or
sorting the file changes no other product's text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_DIGEST_BYTES = 16


def digest(parts: Iterable[str | bytes]) -> str:
    """Hash the parts to 32 hex digits, their lengths included, so that ("ab", "c") and ("a", "bc") differ."""
    raws = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    framed = b"".join(piece for raw in raws for piece in (len(raw).to_bytes(8, "little"), raw))
    return hashlib.blake2b(framed, digest_size=_DIGEST_BYTES).hexdigest()


class KeyMaker:
    """Makes the keys of one run's rows.

    `model` is the fingerprint of the weights and the tokenizer, `sampling` the parameters of generation.
    """

    def __init__(self, model: str, sampling: Mapping[str, Any], seed: int) -> None:
        self._run = digest([model, json.dumps(sampling, sort_keys=True), str(seed)])

    def content_key(self, product_id: str, prompt: str) -> str:
        """Return what the keys of all rows with this id and prompt are made from; `row_keys` tells them apart."""
        return digest([self._run, product_id, prompt])


def row_keys(content_keys: bytes | bytearray) -> bytearray:
    """Make the keys of rows, 16 bytes each, from their content keys in catalog order, 16 bytes each.

    A row equal to an earlier one gets a key of its own by its running number among the equal ones.
    """
    # Half of it tells them apart as well, and sorts as a number.
    halves = np.frombuffer(content_keys, dtype=">u8")[::2]
    order = np.argsort(halves, kind="stable")
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = halves[order][1:] != halves[order][:-1]
    starts = np.flatnonzero(is_first)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    keys = bytearray()
    for place, number in enumerate(numbers.tolist()):
        content_key = content_keys[_DIGEST_BYTES * place : _DIGEST_BYTES * (place + 1)].hex()
        keys += bytes.fromhex(digest([content_key, str(number)]))
    return keys


def seed_of(key: str) -> int:
    """Return the 63-bit seed of a key's random stream."""
    return int(key[:16], 16) >> 1
