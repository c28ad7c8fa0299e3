from __future__ import annotations

import pytest
import torch
from screens import SCREENS, screen_all

from enrich.engine import head as heads
from enrich.engine import sampling
from enrich.engine.head import Head
from enrich.engine.protocol import SamplingParams
from enrich.engine.sampling import Restraint
from enrich.engine.screen import Screen
from enrich.errors import ModelError

pytestmark = SCREENS

FORMATS = [torch.float32, torch.bfloat16]
PLAIN = SamplingParams(max_new_tokens=8, repetition_penalty=1.0)
STRICT = SamplingParams(max_new_tokens=8, repetition_penalty=1.3, no_repeat_ngram=2)
ROWS, HIDDEN, VOCABULARY = 70, 96, 3000


@pytest.fixture(autouse=True)
def _screened(monkeypatch: pytest.MonkeyPatch) -> None:
    screen_all(monkeypatch)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrices(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states [N, C] and weights [V, C]."""
    return normal(ROWS, HIDDEN, seed=1).to(dtype), (normal(VOCABULARY, HIDDEN, seed=2) * 0.1).to(dtype)


def prepared(weight: torch.Tensor, k: int) -> Head:
    head = Head(weight)
    head.prepare(k)
    return head


def restraint(params: SamplingParams, forbidden: torch.Tensor | None = None) -> Restraint:
    """Return that of rows with 0 to 7 tokens so far."""
    counts = torch.arange(ROWS) % 8
    generated = torch.randint(0, 40, (ROWS, 7), generator=torch.Generator().manual_seed(3))
    return Restraint(params, generated, counts, forbidden)


def expected(states: torch.Tensor, weight: torch.Tensor, rest: Restraint, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    scores = states.double() @ weight.double().T
    found = rest.on_(scores).topk(k, dim=1)
    return found.values, found.indices


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", ["normal", "outliers", "zeros", "steep"])
def test_no_score_is_higher_than_the_screen_says(dtype: torch.dtype, kind: str) -> None:
    states, weight = matrices(dtype)
    if kind == "outliers":
        states[:, 5] *= 200
        weight[:, 7] *= 50
    elif kind == "zeros":
        states[3], weight[8] = 0, 0
    elif kind == "steep":
        weight *= torch.logspace(-3, 2, VOCABULARY)[:, None].to(dtype)
    screen = Screen.of(weight)
    assert screen
    scores = states.double() @ weight.double().T
    for bounds, units in (screen.at_most(states), screen.around((states.float() @ weight.float().T).to(dtype), states)):
        above = bounds * units.double() - scores
        assert above.min() >= 0
    if kind == "normal":
        assert (screen.at_most(states)[0] * screen.at_most(states)[1] - scores).max() < scores.std()


@pytest.mark.parametrize("params", [PLAIN, STRICT])
@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 1), (torch.float32, 50), (torch.bfloat16, 1)])
def test_the_highest_are_those_of_exact_scores(dtype: torch.dtype, k: int, params: SamplingParams) -> None:
    states, weight = matrices(dtype)
    weight[:40] *= 3  # so that what is penalized and banned is often among the highest
    forbidden = torch.zeros(ROWS, VOCABULARY, dtype=torch.bool)
    forbidden[::2] = normal(ROWS // 2, VOCABULARY, seed=4) > 0
    rest = restraint(params, forbidden)
    head = Head(weight)
    assert not head.can_find(k)
    head.prepare(k)
    assert head.can_find(k)
    scores, tokens = head.highest(states, rest, k)
    values, indices = expected(states, weight, rest, k)
    assert torch.equal(tokens, indices)
    assert torch.allclose(scores.double(), values, atol=1e-5)


def test_in_sixteen_bits_the_highest_is_found_where_rounded_scores_are_equal() -> None:
    _, weight = matrices(torch.bfloat16)
    states = normal(500, HIDDEN, seed=1).to(torch.bfloat16)
    rest = Restraint(PLAIN, torch.zeros(500, 0, dtype=torch.int64), torch.zeros(500, dtype=torch.int64), None)
    _, indices = expected(states, weight, rest, 1)
    head = prepared(weight, 1)
    assert torch.equal(head.highest(states, rest, 1)[1], indices)
    assert not torch.equal(head(states).float().argmax(dim=1, keepdim=True), indices)


@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 50), (torch.bfloat16, 1)])
def test_a_row_s_highest_do_not_depend_on_its_neighbours(dtype: torch.dtype, k: int) -> None:
    states, weight = matrices(dtype)
    states[::9] *= 40
    rest = restraint(STRICT)
    head = prepared(weight, k)
    scores, tokens = head.highest(states, rest, k)
    for begin, end in ((0, 1), (1, 4), (5, 69)):
        some = head.highest(states[begin:end], rest.of(slice(begin, end)), k)
        assert torch.equal(some[0], scores[begin:end])
        assert torch.equal(some[1], tokens[begin:end])


@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 50), (torch.bfloat16, 1)])
def test_a_screen_that_leaves_too_many_is_asked_no_more_and_the_highest_stay_the_same(
    dtype: torch.dtype, k: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "enrich")
    states, weight = matrices(dtype)
    rest = restraint(STRICT)
    expected = prepared(weight, k).highest(states, rest, k)
    monkeypatch.setattr(heads, "_MANY", (0, 0))
    asked = 0
    at_most = Screen.at_most

    def counting(self: Screen, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal asked
        asked += 1
        return at_most(self, states)

    monkeypatch.setattr(Screen, "at_most", counting)
    head = prepared(weight, k)
    for _ in range(8):
        found = head.highest(states, rest, k)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    assert asked == 8  # of 16 times
    assert [record.message for record in caplog.records if "it is done without" in record.message]


def test_a_row_that_may_draw_few_tokens_has_no_others_among_its_highest() -> None:
    states, weight = matrices(torch.float32)
    forbidden = torch.ones(ROWS, VOCABULARY, dtype=torch.bool)
    forbidden[:, [7, 2999]] = False
    scores, tokens = prepared(weight, 50).highest(states, restraint(PLAIN, forbidden), 50)
    assert set(tokens[:, :2].flatten().tolist()) == {7, 2999}
    assert torch.isneginf(scores[:, 2:]).all()
    uniforms = torch.linspace(0, 0.9999, ROWS, dtype=torch.float64)
    assert set(sampling.pick(scores, tokens, uniforms, SamplingParams(top_p=1.0)).tolist()) == {7, 2999}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["states", "weights", "all forbidden"])
@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 50), (torch.bfloat16, 1)])
def test_scores_that_are_no_numbers_are_an_error(value: float, where: str, dtype: torch.dtype, k: int) -> None:
    states, weight = matrices(dtype)
    forbidden = None
    if where == "states":
        states[4, 4] = value
    elif where == "weights":
        weight[4, 4] = value
    else:
        forbidden = torch.zeros(ROWS, VOCABULARY, dtype=torch.bool)
        forbidden[6] = True
    with pytest.raises(ModelError, match="not numbers"):
        prepared(weight, k).highest(states, restraint(PLAIN, forbidden), k)


def test_a_small_matrix_and_one_in_another_format_are_not_screened(monkeypatch: pytest.MonkeyPatch) -> None:
    states, weight = matrices(torch.float32)
    assert not prepared(weight.to(torch.bfloat16), 50).can_find(50)
    monkeypatch.undo()
    head = prepared(weight, 1)
    assert not head.can_find(1)
    assert torch.allclose(head(states), states @ weight.T, atol=1e-4)
