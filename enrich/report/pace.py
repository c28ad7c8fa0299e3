"""The pace of a run: how many tokens were finished in each stretch of it, from the times beside the texts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.report.data import Moment, Throughput

_MOST_MOMENTS = 30
_STRETCHES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


class Pace:
    """Adds up rows and tokens by the second in which they were finished."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()
        self._tokens: Counter[int] = Counter()

    def add(self, finished: pa.Array, tokens: pa.Array) -> None:
        """Count some texts: when each was finished, and its tokens."""
        seconds = pc.fill_null(pc.divide(finished.cast(pa.int64()), 1_000_000), -1).to_numpy(zero_copy_only=False)
        counts = pc.fill_null(tokens, 0).to_numpy(zero_copy_only=False)
        values, places, rows = np.unique(seconds, return_inverse=True, return_counts=True)
        sums = np.bincount(places, counts, len(values))
        for second, number, total in zip(values.tolist(), rows.tolist(), sums.tolist(), strict=True):
            if second >= 0:
                self._rows[second] += number
                self._tokens[second] += int(total)

    def throughput(self) -> Throughput:
        """Return the pace in at most thirty stretches of one length. Stretches in which nothing came are there too."""
        if not self._rows:
            return Throughput(1.0, ())
        first, last = min(self._rows), max(self._rows)
        span = last - first + 1
        stretch = next((one for one in _STRETCHES if span <= one * _MOST_MOMENTS), -(-span // _MOST_MOMENTS))
        rows, tokens = [0] * -(-span // stretch), [0] * -(-span // stretch)
        for second in self._rows:
            rows[(second - first) // stretch] += self._rows[second]
            tokens[(second - first) // stretch] += self._tokens[second]
        return Throughput(
            float(stretch),
            tuple(
                # The last stretch may not be over when the last text comes.
                Moment(float(i * stretch), rows[i], round(tokens[i] / min(stretch, span - i * stretch), 1))
                for i in range(len(rows))
            ),
        )
