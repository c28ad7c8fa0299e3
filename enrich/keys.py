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
    framed = b"".join(_framed(_bytes_of(part)) for part in parts)
    return hashlib.blake2b(framed, digest_size=_DIGEST_BYTES).hexdigest()


def _bytes_of(part: str | bytes) -> bytes:
    return part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")


def _framed(raw: bytes) -> bytes:
    return len(raw).to_bytes(8, "little") + raw


def key_of_run(model: str, sampling: Mapping[str, Any], seed: int) -> str:
    """Return what is in the keys of all rows of a run.

    `model` is the fingerprint of the weights and the tokenizer, `sampling` the parameters of generation.
    """
    return digest([model, json.dumps(sampling, sort_keys=True), str(seed)])


class KeyMaker:
    """Makes the keys of one run's rows."""

    def __init__(self, run: str) -> None:
        """Take what `key_of_run` has returned."""
        self._begun = hashlib.blake2b(_framed(run.encode()), digest_size=_DIGEST_BYTES)

    def content_key(self, product_id: str, prompt: str) -> bytes:
        """Return what the keys of all rows with this id and prompt are made from; `row_keys` tells them apart."""
        hashed = self._begun.copy()
        hashed.update(_framed(_bytes_of(product_id)) + _framed(_bytes_of(prompt)))
        return hashed.digest()


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
    width = 2 * _DIGEST_BYTES
    length, first = _framed(bytes(width))[:-width], _framed(b"0")
    for place, number in enumerate(numbers.tolist()):
        content_key = content_keys[_DIGEST_BYTES * place : _DIGEST_BYTES * (place + 1)].hex().encode()
        framed = length + content_key + (_framed(b"%d" % number) if number else first)  # as `digest` of the two
        keys += hashlib.blake2b(framed, digest_size=_DIGEST_BYTES).digest()
    return keys


def seed_of(key: str) -> int:
    """Return the 63-bit seed of a key's random stream."""
    return int(key[:16], 16) >> 1
