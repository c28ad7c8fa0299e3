from __future__ import annotations

import numpy as np
import pytest
import torch

from enrich.engine.ranking import highest, likely, ranked, reaching
from enrich.errors import ModelError


def drawn(rows: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("vocabulary", [7, 400, 2000, 6144])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_highest_are_found_whatever_the_vocabulary_s_size(vocabulary: int, k: int) -> None:
    scores = drawn(9, vocabulary)
    found, tokens = highest(scores, k)
    expected = scores.topk(k, dim=1)
    assert np.array_equal(found, expected.values.numpy())
    assert np.array_equal(tokens, expected.indices.numpy())


def test_all_scores_can_be_ranked() -> None:
    scores = drawn(5, 300)
    found, tokens = highest(scores, 300)
    assert np.array_equal(found, scores.sort(dim=1, descending=True).values.numpy())
    assert np.array_equal(np.sort(tokens, axis=1), np.tile(np.arange(300), (5, 1)))


@pytest.mark.parametrize("vocabulary", [300, 3000])
def test_of_equal_scores_the_first_come_first(vocabulary: int) -> None:
    scores = drawn(4, vocabulary).round()  # few values, so that many are equal
    found, tokens = highest(scores, 40)
    order = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :40]
    assert np.array_equal(tokens, order)
    assert np.array_equal(found, np.take_along_axis(scores.numpy(), order, axis=1))
    assert highest(scores, 1)[1].tolist() == order[:, :1].tolist()


def test_what_is_likely_has_the_highest_and_little_else() -> None:
    scores = drawn(16, 6144)
    rows, tokens = likely(scores, 50)
    chosen = set(zip(rows.tolist(), tokens.tolist(), strict=True))
    assert chosen >= {(row, token) for row, line in enumerate(scores.topk(50).indices.tolist()) for token in line}
    assert len(chosen) < 16 * 75
    assert sorted(chosen) == list(zip(rows.tolist(), tokens.tolist(), strict=True))


def test_scores_reach_what_they_equal() -> None:
    rows, tokens = reaching(np.array([[1.0, 2, 3], [3, 2, 1], [0, 0, 0]]), np.array([[2.0], [3], [1]]))
    assert list(zip(rows.tolist(), tokens.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0)]


def test_a_row_with_fewer_scores_is_filled_up_with_none() -> None:
    scores, rows = np.array([-1.5, 2, -0.0, 7], dtype=np.float32), np.array([0, 0, 0, 2])
    found, tokens = ranked(scores, rows, np.array([4, 9, 11, 3]), 3, 2)
    assert found.tolist() == [[2, 0], [-np.inf, -np.inf], [7, -np.inf]]
    assert tokens.tolist() == [[9, 11], [0, 0], [3, 0]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("vocabulary", [300, 3000])
@pytest.mark.parametrize("k", [1, 50])
@pytest.mark.parametrize("place", [0, -1])  # the last is in no strip
def test_scores_that_are_no_numbers_are_an_error(value: float, vocabulary: int, k: int, place: int) -> None:
    scores = drawn(3, vocabulary)
    scores[1, place] = value
    with pytest.raises(ModelError, match="not numbers"):
        highest(scores, k)
