"""The screen: how high scores are at most, by products of 8-bit integers.

Processors have an instruction for those which does twice as many products as bfloat16's and four times as many as
float32's. A score is the product of a state x and a token's weights w. With x = u q + e and w = v r + f, where q and r
are integers, u and v their scales, and e and f what rounding left,

    x w = u v q r + e w + u q f,

and by the inequality of Cauchy and Schwarz the last two are no more than |e| |w| + u |q| |f|.

Shapes: N rows, C hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEVELS = 127  # of integers on either side of zero
_ZERO = 128  # what stands for zero in those of the states: the instruction takes one side without a sign
_LEAST = 1e-30  # a scale
_SLACK = 1e-4  # of the product of both vectors' lengths: sums in float32 are off by less
_ROWS = 64  # what the layout is chosen for; any number can be multiplied
_FEWEST_WEIGHTS = 8 << 20  # of which a screen is quicker than their product
_ROUNDED_AT_ONCE = 4096  # rows of the matrix


class Screen:
    """A matrix [V, C] in 8-bit integers, each row with a scale of its own."""

    def __init__(self, weight: Tensor) -> None:
        self._scales = torch.empty(len(weight))  # v of each row
        self._lengths = torch.empty(len(weight))  # |w|
        self._lost = torch.empty(len(weight))  # |f|
        integers = torch.empty(weight.shape, dtype=torch.int8)
        for begin in range(0, len(weight), _ROUNDED_AT_ONCE):
            rows = slice(begin, begin + _ROUNDED_AT_ONCE)
            exact = weight[rows].float()
            scales, rounded = _rounded(exact)
            integers[rows], self._scales[rows] = rounded, scales[:, 0]
            self._lengths[rows] = torch.linalg.vector_norm(exact, dim=1)
            self._lost[rows] = torch.linalg.vector_norm(exact - rounded * scales, dim=1)
        self._laid_out = torch.ops.onednn.qlinear_prepack(integers, [_ROWS, weight.shape[1]])
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)

    @staticmethod
    def of(weight: Tensor) -> Screen | None:
        """Return the screen of a matrix; None where it is small, or the processor has no such instruction."""
        if weight.numel() < _FEWEST_WEIGHTS:
            return None
        try:
            return Screen(weight) if _has_instruction(weight.dtype) else None
        except (AttributeError, NotImplementedError, RuntimeError):  # torch was built without such products
            return None

    def at_most(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return how high the scores of states [N, C] are at most, in a unit for each row: float32 [N, V], [N, 1]."""
        exact = states.float()
        units, rounded = _rounded(exact)
        lengths = torch.linalg.vector_norm(rounded, dim=1)
        lost = torch.linalg.vector_norm((exact / units).sub_(rounded), dim=1).add_(lengths, alpha=_SLACK)
        # What rounding left is told with the widest row's, so that it is one number for each token.
        more = self._lengths * lost.amax() + self._lost * lengths.amax()
        bounds = torch.ops.onednn.qlinear_pointwise(
            rounded.add_(_ZERO).to(torch.uint8), 1.0, _ZERO, self._laid_out, self._scales, self._zeros, more, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        return bounds, units

    def around(self, scores: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same by the scores [N, V] that a model's own number format has."""
        most_lost = torch.linalg.vector_norm(states.float(), dim=1, keepdim=True) * self._lengths * _SLACK
        exact = scores.float()
        return exact + most_lost + exact.abs() * torch.finfo(scores.dtype).eps, torch.ones(len(states), 1)


def _rounded(exact: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale of each of some vectors [N, C], and their numbers in it, as integers: [N, 1], float32 [N, C]."""
    scales = exact.abs().amax(dim=1, keepdim=True).div_(_LEVELS).clamp_min_(_LEAST)
    return scales, (exact / scales).round_()


def _has_instruction(dtype: torch.dtype) -> bool:
    """Say whether products of 8-bit integers are exact, and much faster than those of a format.

    Without that instruction sums of two of them are cut at 16 bits. Where matrices are multiplied in tiles (AMX), those
    of bfloat16 leave little to save.
    """
    return torch.cpu._is_vnni_supported() and (dtype == torch.float32 or not torch.cpu._is_amx_tile_supported())
