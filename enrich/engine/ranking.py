"""Ranking: the highest of many scores, on a CPU, where numpy does in microseconds what takes torch a millisecond.

Shapes: N rows, V vocabulary, P pairs of a row and a token, in the order of rows and then of tokens.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from enrich.errors import ModelError

_LEAST_STRIPS = 256
_LOW = 0xFFFFFFFF  # the lower half of 64 bits


def broken() -> ModelError:
    """Return the error for scores that are no numbers."""
    return ModelError(
        "the model's scores are not numbers (NaN or infinite): its weights are damaged, or --dtype is too narrow for"
        " them; try --dtype float32"
    )


def highest(scores: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's k highest of scores [N, V], falling, and their tokens [N, k]; of equal ones the first first.

    Raises ModelError if scores are no numbers.
    """
    rows, tokens = likely(scores, k)
    found = scores.numpy()[rows, tokens]
    return (found[:, None], tokens[:, None]) if k == 1 else ranked(found, rows, tokens, len(scores), k)


def likely(scores: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and tokens [P] of the k highest of each row's scores [N, V], and of few others.

    The k-th highest of the maxima of many strips of the vocabulary is a score that at least k tokens reach, and few
    others do. Raises ModelError if scores are no numbers.
    """
    values = scores.numpy()
    batch, vocabulary = values.shape
    if k == 1:
        best = values.argmax(axis=1)
        _check(values[np.arange(batch), best])
        return np.arange(batch), best
    strips = max(_LEAST_STRIPS, 4 * k)
    if strips * 2 > vocabulary:
        _check(values.max(axis=1))  # of which NaN is the highest
        least = np.partition(values, vocabulary - k, axis=1)[:, vocabulary - k, None]
    else:
        length = vocabulary // strips
        maxima = scores[:, : length * strips].view(batch, length, strips).amax(dim=1)
        _check(maxima.amax(dim=1).numpy())
        _check(scores[:, (length - 1) * strips :].amax(dim=1).numpy())  # those that are left over
        least = np.partition(maxima.numpy(), strips - k, axis=1)[:, strips - k, None]
    return reaching(values, least)


def reaching(scores: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and tokens [P] of the scores [N, V] that are no lower than each row's least [N, 1]."""
    places = np.flatnonzero(scores >= least)
    begins = np.arange(len(scores) + 1) * scores.shape[1]
    rows = np.repeat(np.arange(len(scores)), np.diff(np.searchsorted(places, begins)))
    return rows, places - rows * scores.shape[1]


def ranked(scores: np.ndarray, rows: np.ndarray, tokens: np.ndarray, num: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k highest of float32 scores [P] of each of so many rows, falling, and their tokens, each [num, k].

    Of equal ones the first come first. A row that has fewer gets scores of minus infinity, of token 0.
    """
    begins = np.searchsorted(rows, np.arange(num + 1))
    # One number for each, its score before its token from behind: numpy sorts integers with the vector units.
    table = np.full((num, max(k, np.diff(begins).max())), _LOWEST << 32 | _LOW)
    table[rows, np.arange(len(rows)) - begins[rows]] = _turned(scores.view(np.int32)) << 32 | (_LOW - tokens)
    table.sort(axis=1)
    best = table[:, : -k - 1 : -1]
    return _turned((best >> 32).astype(np.int32)).astype(np.int32).view(np.float32), _LOW - (best & _LOW)


def _check(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise broken()


def _turned(bits: np.ndarray) -> np.ndarray:
    """Return integers in the order of the float32 numbers with these bits [int32], or their bits again: int64."""
    turned: np.ndarray = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    return turned


_LOWEST = int(_turned(np.array([-np.inf], dtype=np.float32).view(np.int32))[0])
