"""Drawing: which rows a report shows.

That follows from a seed and their positions alone, so that the same file gives the same report.
"""

from __future__ import annotations

import numpy as np


class Draw:
    """Keeps the rows with the smallest random numbers, which are a fair sample of all that were offered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = np.empty(0, np.uint64)
        self._ordinals = np.empty(0, np.int64)

    def offer(self, numbers: np.ndarray, ordinals: np.ndarray) -> None:
        """Take rows with their random numbers into account."""
        numbers, ordinals = np.append(self._numbers, numbers), np.append(self._ordinals, ordinals)
        if len(numbers) > self._most:
            chosen = np.argsort(numbers, kind="stable")[: self._most]
            numbers, ordinals = numbers[chosen], ordinals[chosen]
        self._numbers, self._ordinals = numbers, ordinals

    @property
    def ordinals(self) -> list[int]:
        """The rows kept, rising."""
        return sorted(self._ordinals.tolist())


def random_numbers(ordinals: np.ndarray, seed: int) -> np.ndarray:
    """Return a random 64-bit number for each row (SplitMix64), the same however the file is cut into batches."""
    with np.errstate(over="ignore"):
        z = ordinals.astype(np.uint64) + np.uint64(seed % 2**63) * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
