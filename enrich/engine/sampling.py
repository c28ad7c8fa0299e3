"""Sampling: the next token of each row, drawn from the row's own counter-based random stream.

A draw depends on (seed, attempt, step) and on nothing else: not on the batch, on earlier draws, or on global state. One
uniform number is enough for a token, because it is drawn by inverting the cumulative distribution over the few tokens
that top-k and top-p leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from enrich.engine import ranking
from enrich.engine.protocol import Request, SamplingParams

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Words are 32 bits wide in int64 tensors of one shape; returns four such words. The 64-bit products wrap around in
    int64, which leaves their bits right.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, low0 = (product0 >> 32) & _MASK, product0 & _MASK
        high1, low1 = (product1 >> 32) & _MASK, product1 & _MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def number_format(device: torch.device) -> torch.dtype:
    """Return the format of random numbers on a device: float64, or float32 where it has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def uniform(seeds: Tensor, attempts: Tensor, step: int | Tensor, numbers: torch.dtype | None = None) -> Tensor:
    """Return one number in [0, 1) for each row: [batch], in the device's `number_format` or the one that is asked for.

    `step` is the number of tokens drawn before: one for all rows, or one each [batch]. Shapes are broadcast, so that
    seeds and attempts [batch, 1] and all steps [steps] give a table [batch, steps].
    """
    zeros = torch.zeros_like(seeds)
    words = philox((zeros + step, attempts, zeros, zeros), (seeds & _MASK, (seeds >> 32) & _MASK))
    if (numbers or number_format(seeds.device)) == torch.float32:
        return (words[0] >> 8).to(torch.float32) * 2.0**-24
    return ((words[0] >> 5) * 2**26 + (words[1] >> 6)).to(torch.float64) * 2.0**-53


def penalize_(logits: Tensor, generated: Tensor, penalty: float | Tensor) -> Tensor:
    """Make the tokens in `generated` [batch, so far] less likely in `logits` [batch, vocabulary], in place.

    `penalty` is one number, or one for each row [batch, 1]. A token that stands several times counts once.
    """
    if not generated.shape[1] or (isinstance(penalty, float) and penalty == 1.0):
        return logits
    scores = logits.gather(1, generated)
    return logits.scatter_(1, generated, _penalized(scores, penalty))


def _penalized(scores: Tensor, penalty: float | Tensor) -> Tensor:
    return torch.where(scores > 0, scores / penalty, scores * penalty)


def ban_repeats_(logits: Tensor, generated: Tensor, size: int, counts: Tensor | None = None) -> Tensor:
    """Rule out the tokens with which the last `size` tokens of a row would stand in it twice, in place.

    `generated` [batch, so far] and `counts` as for `choose`; `logits` are [batch, vocabulary].
    """
    length = generated.shape[1]
    if not size or length < size:
        return logits
    if counts is None:
        counts = torch.full_like(generated[:, 0], length)
    windows = generated.unfold(1, size, 1)  # [batch, so far - size + 1, size]
    ends = torch.arange(size - 1, length, device=generated.device)
    last = counts[:, None] - (size - 1) + torch.arange(size - 1, device=generated.device)
    recent = generated.gather(1, last.clamp(0, length - 1))  # [batch, size - 1]; rows that are done decode on
    again = (windows[:, :, :-1] == recent[:, None]).all(dim=2) & (ends < counts[:, None]) & (counts >= size)[:, None]
    banned = torch.zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
    banned.scatter_(1, torch.where(again, windows[:, :, -1], logits.shape[1]), True)
    return logits.masked_fill_(banned[:, :-1], -torch.inf)


def forbidden_mask(requests: Sequence[Request], vocabulary: int) -> Tensor | None:
    """Return where rows have tokens that they must not draw: bool [rows, vocabulary], or None if they have none."""
    if not any(request.forbidden for request in requests):
        return None
    mask = torch.zeros(len(requests), vocabulary, dtype=torch.bool)
    for row, request in enumerate(requests):
        mask[row, list(request.forbidden)] = True
    return mask


def restrain_(logits: Tensor, generated: Tensor, params: SamplingParams, counts: Tensor | None = None) -> Tensor:
    """Apply the ban on repeats and the repetition penalty to `logits` in place; arguments as for `choose`."""
    ban_repeats_(logits, generated, params.no_repeat_ngram, counts)
    penalty: float | Tensor = params.repetition_penalty
    if counts is not None and penalty != 1.0 and generated.shape[1]:
        columns = torch.arange(generated.shape[1], device=generated.device)
        generated = torch.where(columns < counts[:, None], generated, generated[:, :1])
        penalty = torch.where(counts > 0, penalty, 1.0)[:, None]
    return penalize_(logits, generated, penalty)


@dataclass(frozen=True, slots=True)
class Restraint:
    """What lowers the scores of some rows' tokens; what a score is at most before says what it is at most after.

    `generated` and `counts` as for `choose`; `forbidden` [batch, vocabulary] says what must not be drawn, if anything.
    """

    params: SamplingParams
    generated: Tensor
    counts: Tensor
    forbidden: Tensor | None

    def of(self, rows: slice) -> Restraint:
        """Return that of some of the rows."""
        forbidden = None if self.forbidden is None else self.forbidden[rows]
        return Restraint(self.params, self.generated[rows], self.counts[rows], forbidden)

    def on_(self, logits: Tensor) -> Tensor:
        """Apply it to all scores [batch, vocabulary], in place."""
        if self.forbidden is not None:
            logits.masked_fill_(self.forbidden, -torch.inf)
        return restrain_(logits, self.generated, self.params, self.counts)

    def on_pairs_(self, scores: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Apply the repetition penalty alone to the scores of some tokens of some rows, all [pairs], in place."""
        penalty = self.params.repetition_penalty
        if penalty == 1.0 or not self.generated.shape[1]:
            return scores
        columns = torch.arange(self.generated.shape[1])
        repeats = (self.generated[rows] == tokens[:, None]) & (columns < self.counts[rows, None])
        return torch.where(repeats.any(dim=1), _penalized(scores, penalty), scores, out=scores)


def choose(
    logits: Tensor, generated: Tensor, uniforms: Tensor, params: SamplingParams, counts: Tensor | None = None
) -> Tensor:
    """Choose each row's next token: [batch].

    `logits` are [batch, vocabulary] float32, `generated` the tokens so far [batch, so far], of which only the first
    `counts` [batch] are meant where that is given, `uniforms` as `uniform` gives them [batch].
    """
    if params.no_repeat_ngram or params.repetition_penalty != 1.0:
        logits = restrain_(logits.clone(), generated, params, counts)
    return draw(logits, uniforms, params)


def draw(logits: Tensor, uniforms: Tensor, params: SamplingParams) -> Tensor:
    """Draw each row's next token by its scores [batch, vocabulary], which are penalized already: [batch].

    Raises ModelError on a CPU if they are no numbers. Elsewhere that would be to wait for the device; see `no_numbers`.
    """
    k = considered(params, logits.shape[1])
    if logits.device.type == "cpu":
        scores, tokens = ranking.highest(logits, k)
        return pick(torch.from_numpy(scores), torch.from_numpy(tokens), uniforms, params)
    return logits.argmax(dim=1) if k == 1 else pick(*logits.topk(k, dim=1), uniforms, params)


def considered(params: SamplingParams, vocabulary: int) -> int:
    """Return how many of the highest scores a draw depends on."""
    return 1 if params.temperature == 0 else min(params.top_k or vocabulary, vocabulary)


def pick(scores: Tensor, tokens: Tensor, uniforms: Tensor, params: SamplingParams) -> Tensor:
    """Draw each row's next token of the k highest scores, falling, and their tokens [batch, k]: [batch]."""
    if scores.shape[1] == 1:
        return tokens[:, 0]
    cumulative = torch.softmax(scores.to(uniforms.dtype) / params.temperature, dim=1).cumsum(dim=1)
    # Kept are the tokens before which less than top_p has been gathered; the first always is.
    last = (cumulative[:, :-1] < params.top_p * cumulative[:, -1:]).sum(dim=1, keepdim=True)
    if params.min_p:  # exp((score - highest) / temperature) is the ratio to the likeliest token's probability
        likely = (scores - scores[:, :1]) / params.temperature >= math.log(params.min_p)
        last = torch.minimum(last, likely.sum(dim=1, keepdim=True) - 1)
    target = uniforms[:, None] * cumulative.gather(1, last)
    index = torch.minimum((cumulative <= target).sum(dim=1, keepdim=True), last)
    return tokens.gather(1, index).squeeze(1)


def no_numbers(logits: Tensor) -> Tensor:
    """Say of each row of [batch, vocabulary] whether a score is NaN or infinite: bool [batch]."""
    return ~logits.amax(dim=1).isfinite()  # of which NaN is the highest
