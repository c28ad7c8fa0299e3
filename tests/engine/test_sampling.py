from __future__ import annotations

import pytest
import torch
from transformers import MinPLogitsWarper, NoRepeatNGramLogitsProcessor

from enrich.engine.protocol import SamplingParams
from enrich.engine.sampling import ban_repeats_, choose, draw, no_numbers, penalize_, philox, uniform
from enrich.errors import ModelError

GREEDY = SamplingParams(temperature=0, repetition_penalty=1.0)
FREE = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that Random123 publishes for philox4x32-10
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = philox(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert [int(word) for word in words] == expected


def test_uniforms_depend_on_seed_attempt_and_step_alone() -> None:
    seeds = torch.tensor([5, 2**62 + 9, 5, 7])
    attempts = torch.tensor([1, 1, 2, 1])
    together = uniform(seeds, attempts, 3)
    alone = torch.cat([uniform(seeds[i : i + 1], attempts[i : i + 1], 3) for i in range(4)])
    assert torch.equal(together, alone)
    assert len(set(together.tolist()) | set(uniform(seeds, attempts, 4).tolist())) == 8


def test_uniforms_are_uniform_across_seeds_and_steps() -> None:
    draws = torch.cat([uniform(torch.arange(1000), torch.ones(1000, dtype=torch.int64), step) for step in range(40)])
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, bins=20, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    num = 20_000
    logits = probabilities.log().repeat(num, 1)
    uniforms = uniform(torch.arange(num), torch.ones(num, dtype=torch.int64), 0)
    tokens = choose(logits, torch.empty(num, 0, dtype=torch.int64), uniforms, FREE)
    shares = torch.bincount(tokens, minlength=4) / num
    assert torch.allclose(shares, probabilities, atol=0.012)


def pick(logits: list[float], u: float, params: SamplingParams, generated: list[int] | None = None) -> int:
    rows = torch.tensor([logits])
    seen = torch.tensor([generated or []], dtype=torch.int64)
    return int(choose(rows, seen, torch.tensor([u], dtype=torch.float64), params))


def test_greedy_takes_the_likeliest() -> None:
    assert pick([0.1, 3.0, 2.9], 0.999, GREEDY) == 1


def test_top_k_leaves_the_k_likeliest() -> None:
    params = SamplingParams(temperature=1.0, top_k=2, top_p=1.0, repetition_penalty=1.0)
    assert {pick([1.0, 1.1, 0.9, -1.0], u / 100, params) for u in range(100)} == {0, 1}


def test_top_p_keeps_the_token_that_crosses_the_line_and_always_the_first() -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log().tolist()
    params = SamplingParams(temperature=1.0, top_k=0, top_p=0.7, repetition_penalty=1.0)
    assert {pick(logits, u / 100, params) for u in range(100)} == {0, 1}
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1e-9, repetition_penalty=1.0)
    assert {pick(logits, u / 100, params) for u in range(100)} == {0}


@pytest.mark.parametrize("min_p", [0.02, 0.2, 0.9])
def test_min_p_keeps_what_transformers_keeps(min_p: float) -> None:
    torch.manual_seed(3)
    rows = torch.randn(5, 12) * 2
    params = SamplingParams(temperature=0.7, top_k=0, top_p=1.0, repetition_penalty=1.0, min_p=min_p)
    kept = MinPLogitsWarper(min_p)(None, rows / 0.7).isfinite()
    for row, expected in zip(rows, kept, strict=True):
        drawn = {pick(row.tolist(), u / 600, params) for u in range(600)}
        assert drawn == set(torch.nonzero(expected).flatten().tolist())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeats_are_banned_as_transformers_bans_them(size: int) -> None:
    torch.manual_seed(size)
    generated = torch.randint(0, 5, (200, 12))
    for length in range(13):
        expected = NoRepeatNGramLogitsProcessor(size)(generated[:, :length], torch.zeros(200, 5))
        assert ban_repeats_(torch.zeros(200, 5), generated[:, :length], size).equal(expected)
        counts = torch.full((200,), length)
        assert ban_repeats_(torch.zeros(200, 5), generated, size, counts).equal(expected)


def test_the_largest_uniform_stays_inside_what_is_kept() -> None:
    params = SamplingParams(temperature=1.0, top_k=2, top_p=1.0, repetition_penalty=1.0)
    assert pick([5.0, 4.0, 3.0], 1 - 2**-53, params) == 1


def test_penalty_divides_positive_and_multiplies_negative_scores_once() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    assert penalize_(logits.clone(), torch.tensor([[0, 1, 0]]), 2.0).tolist() == [[1.0, -4.0, 1.0]]
    assert penalize_(logits, torch.empty(1, 0, dtype=torch.int64), 2.0) is logits
    assert logits.tolist() == [[2.0, -2.0, 1.0]]


def test_top_k_larger_than_the_vocabulary_is_all_of_it() -> None:
    params = SamplingParams(temperature=1.0, top_k=500, top_p=1.0, repetition_penalty=1.0)
    assert pick([0.0, 0.0, 9.0], 0.5, params) == 2


def test_scores_that_tie_are_each_drawn_as_often() -> None:
    params = SamplingParams(temperature=1.0, top_k=4, top_p=1.0, repetition_penalty=1.0)
    assert {pick([1.0, 7.0, 5.0, 7.0, 7.0, -1.0], u / 100, params) for u in range(100)} == {1, 2, 3, 4}
    shares = [pick([7.0, 7.0, 0.0], u / 100, params) for u in range(100)]
    assert shares.count(0) == pytest.approx(shares.count(1), abs=2)


def test_what_numpy_draws_is_what_torch_would() -> None:
    torch.manual_seed(0)
    logits, uniforms = torch.randn(64, 700) * 3, torch.rand(64, dtype=torch.float64)
    params = SamplingParams(temperature=0.8, top_k=50, top_p=1.0, repetition_penalty=1.0)
    scores, tokens = logits.topk(50, dim=1)
    shares = torch.softmax(scores.double() / 0.8, dim=1).cumsum(dim=1)
    index = torch.searchsorted(shares, uniforms[:, None], right=True)
    assert torch.equal(draw(logits, uniforms, params), tokens.gather(1, index).squeeze(1))
    assert torch.equal(draw(logits, uniforms, GREEDY), logits.argmax(dim=1))


def test_a_table_of_uniforms_holds_each_step_s() -> None:
    seeds, attempts = torch.arange(5), torch.tensor([1, 2, 1, 1, 3])
    table = uniform(seeds[:, None], attempts[:, None], torch.arange(7))
    assert table.shape == (5, 7)
    assert all(torch.equal(table[:, step], uniform(seeds, attempts, step)) for step in range(7))


@pytest.mark.parametrize("params", [GREEDY, FREE, SamplingParams(top_k=5, top_p=0.9)], ids=["greedy", "free", "top"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(params: SamplingParams, value: float) -> None:
    logits = torch.randn(3, 40)
    logits[0] = -torch.inf
    logits[0, 7] = 1.0  # what is forbidden has no end downwards, and may
    draw(logits.clone(), torch.rand(3, dtype=torch.float64), params)
    logits[1, 9] = value
    assert no_numbers(logits).tolist() == [False, True, False]
    with pytest.raises(ModelError, match=r"NaN.*float32"):
        draw(logits, torch.rand(3, dtype=torch.float64), params)
