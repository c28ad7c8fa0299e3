"""Columns as numbers: how often each value of an Arrow column occurs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LARGEST = 1 << 17  # words or tokens of a text; what is longer counts as this


def value_counts(column: pa.Array) -> dict[Any, int]:
    """Return how often each value occurs, nulls left out."""
    return {one["values"]: one["counts"] for one in column.drop_null().value_counts().to_pylist()}


def mask_of(array: pa.Array) -> np.ndarray:
    """Return truth values, null for false."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def numbers_of(column: pa.Array) -> np.ndarray:
    """Return whole numbers, null for 0."""
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False), np.int64)


def words_in(text: pa.Array) -> np.ndarray:
    """Return the number of words of each text, 0 for one that is null or blank."""
    trimmed = pc.fill_null(pc.utf8_trim_whitespace(text), "")
    words = pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy(zero_copy_only=False)
    return np.where(mask_of(pc.equal(trimmed, "")), 0, words)


def add_up(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Add how often each value occurs to such counts."""
    more = np.bincount(np.minimum(values.astype(np.int64), _LARGEST)) if len(values) else np.zeros(0, np.int64)
    longer, shorter = (counts, more) if len(counts) >= len(more) else (more, counts)
    longer = longer.copy()
    longer[: len(shorter)] += shorter
    return longer


def cut(text: str, most: int) -> str:
    """Return a text, with an ellipsis if it is longer than may be shown."""
    return text if len(text) <= most else text[: most - 1] + "…"
