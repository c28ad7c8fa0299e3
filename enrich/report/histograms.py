"""Histograms: exact counts of whole numbers cut into bins of a round width."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from enrich.report.data import Histogram

_MOST_BINS = 24
_WIDTHS = [step * 10**power for power in range(6) for step in (1, 2, 5)]


def of(counts: np.ndarray) -> Histogram:
    """Return the histogram of values of which `counts` says how often each from 0 on occurs."""
    total = int(counts.sum())
    if not total:
        return Histogram((0, 1), (0,), 0.0, 0, 0)
    present = np.flatnonzero(counts)
    cumulative = np.cumsum(counts)
    median = int(np.searchsorted(cumulative, (total + 1) // 2))
    # Bins reach to where all but one text in a thousand are; the last one takes in the few that are longer.
    reach = int(np.searchsorted(cumulative, total - total // 1000))
    width = next(width for width in _WIDTHS if (reach - present[0]) // width < _MOST_BINS)
    first = int(present[0] // width) * width
    edges = list(range(first, reach + width + 1, width))
    bins = [int(counts[low:high].sum()) for low, high in pairwise(edges)]
    bins[-1] += total - sum(bins)
    values = np.arange(len(counts))
    mean = round(float((values * counts).sum() / total), 1)
    return Histogram(tuple(edges), tuple(bins), mean, median, int(present[-1]))
