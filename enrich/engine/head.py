"""The head of a model: the scores of all tokens, or the highest of them alone, in half the time or less.

The highest are found in two steps. A screen of 8-bit integers tells how high each score is at most; then only the few
tokens are scored, by sums in float32, which may be among the highest. So those that are found are the highest, not
nearly so. In 16 bits they are more often so than by the scores themselves, which are rounded.

Shapes: N rows, C hidden size, V vocabulary, P pairs of a row and a token.
"""

from __future__ import annotations

import logging
import warnings
from typing import cast

import numpy as np
import torch
from torch import Tensor

from enrich.engine import ranking
from enrich.engine.linear import Linear, product, tile_of
from enrich.engine.sampling import Restraint
from enrich.engine.screen import Screen

log = logging.getLogger("enrich")

_ROWS = 64  # looked through at once: what is known of their scores stays in the processor's cache
_MANY = (64, 4)  # tokens a row, and for each that is wanted, which a screen may leave on average to be worth it
_MOST_FOUND = 1024  # more are not worth looking for
_PAIRS = 1024  # multiplied at once, so that they stay in the processor's cache
_PATIENCE = 8  # how many times more it may leave too many than not before it is asked no more


class Head:
    """The matrix [V, C] behind a model's last layer."""

    def __init__(self, weight: Tensor) -> None:
        self._linear = Linear.of(weight, None)
        self._weight = weight
        self._screen: Screen | None = None
        self._patience = _PATIENCE
        self.tile = tile_of(self._linear)

    def __call__(self, states: Tensor) -> Tensor:
        """Return the scores [N, V] of states [N, C]."""
        return product(states, self._linear)

    def prepare(self, k: int) -> None:
        """Make what it takes to find the k highest scores, if that is quicker than to score all tokens."""
        if self._screen is not None or not self._may_find(k):
            return
        self._screen = Screen.of(self._weight)
        if self._screen is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch tells once that sparse matrices may change yet
                _dot_products(self._weight[:1], self._weight, *torch.zeros(2, 1, dtype=torch.int64))

    def can_find(self, k: int) -> bool:
        """Say whether `highest` can be asked for so many."""
        return self._screen is not None and self._may_find(k)

    def _may_find(self, k: int) -> bool:
        return k == 1 or (self._weight.dtype == torch.float32 and k <= _MOST_FOUND)

    def highest(self, states: Tensor, restraint: Restraint, k: int) -> tuple[Tensor, Tensor]:
        """Return the k highest scores, restrained, of each of states [N, C], falling, and their tokens, each [N, k].

        A row's do not depend on the other rows. Raises ModelError if scores are no numbers.
        """
        found = []
        for begin in range(0, len(states), _ROWS):
            rows = slice(begin, begin + _ROWS)
            some, of_them = states[rows], restraint.of(rows)
            found.append(self._ranked(some, *self._left(some, of_them, k), of_them, k))
        scores, tokens = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if not np.isfinite(scores[:, 0]).all():
            raise ranking.broken()
        return torch.from_numpy(scores), torch.from_numpy(tokens)

    def _left(self, states: Tensor, restraint: Restraint, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and tokens [P] that may be among the k highest."""
        assert self._screen is not None
        if self._patience > 0:
            left = self._not_below(*self._screen.at_most(states), states, restraint, k)
            has_many = len(left[0]) > (_MANY[0] + _MANY[1] * k) * len(states)
            self._patience = min(_PATIENCE, self._patience + (-1 if has_many else 1))
            if not has_many:
                return left
            if not self._patience:
                log.debug(
                    "a screen of the head leaves %d tokens a row: it is done without", len(left[0]) // len(states)
                )
        return self._not_below(*self._screen.around(self(states), states), states, restraint, k)

    def _not_below(
        self, bounds: Tensor, units: Tensor, states: Tensor, restraint: Restraint, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and tokens [P] whose bounds [N, V] reach the k-th highest score of those that look best."""
        at_most = restraint.on_(bounds).numpy()
        rows, tokens = ranking.likely(bounds, k)
        allowed = at_most[rows, tokens] > -np.inf
        scores, _ = self._ranked(states, rows[allowed], tokens[allowed], restraint, k)
        if np.isnan(scores).any() or np.isposinf(scores).any():
            raise ranking.broken()
        least = scores[:, -1:] / units.numpy()
        return ranking.reaching(at_most, np.maximum(least, np.finfo(np.float32).min))

    def _ranked(
        self, states: Tensor, rows: np.ndarray, tokens: np.ndarray, restraint: Restraint, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k highest scores, restrained, of some tokens [P] of rows [P], and those tokens, each [N, k]."""
        of_rows, of_tokens = torch.from_numpy(rows), torch.from_numpy(tokens)
        scores = _dot_products(states, self._weight, of_rows, of_tokens)
        restraint.on_pairs_(scores, of_rows, of_tokens)
        return ranking.ranked(scores.numpy(), rows, tokens, len(states), k)


def _dot_products(states: Tensor, weight: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Return the products of states [N, C] and weights [V, C] for pairs of their rows, in rising order: float32 [P]."""
    if weight.dtype == torch.float32:  # the only one of our formats that there is a kernel for
        begins = torch.searchsorted(rows, torch.arange(len(states) + 1))
        places = torch.sparse_csr_tensor(
            begins, tokens, states.new_zeros(len(rows)), (len(states), len(weight)), check_invariants=False
        )
        return cast(Tensor, torch.sparse.sampled_addmm(places, states, weight.mT, beta=0.0).values())
    products = [
        weight.index_select(0, tokens[part]).float().mul_(states.index_select(0, rows[part])).sum(dim=1)
        for part in (slice(begin, begin + _PAIRS) for begin in range(0, len(rows), _PAIRS))
    ]
    return torch.cat(products)
