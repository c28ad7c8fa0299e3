from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.buckets import Bucket, batch_rows, edge_of, group, joined

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy

LONGEST = 5000
longests = st.integers(1, 40_000)


@st.composite
def lengths_within(draw: st.DrawFn) -> tuple[list[int], int]:
    longest = draw(longests)
    return draw(st.lists(st.integers(1, longest), max_size=60)), longest


@unhurried
@given(lengths_within())
def test_each_item_is_in_exactly_one_bucket_and_fits_it(case: tuple[list[int], int]) -> None:
    lengths, longest = case
    buckets = group(lengths, longest)
    assert sorted(item for bucket in buckets for item in bucket.items) == list(range(len(lengths)))
    for bucket in buckets:
        assert bucket.items
        assert list(bucket.items) == sorted(bucket.items)  # in the order they came
        assert all(edge_of(lengths[item], longest) == bucket.edge for item in bucket.items)
        assert max(lengths[item] for item in bucket.items) <= bucket.edge <= longest
        assert bucket.prompt_tokens == sum(lengths[item] for item in bucket.items)
        assert bucket.padding_tokens == sum(bucket.edge - lengths[item] for item in bucket.items)


@unhurried
@given(lengths_within())
def test_the_longest_bucket_comes_first(case: tuple[list[int], int]) -> None:
    edges = [bucket.edge for bucket in group(*case)]
    assert edges == sorted(set(edges), reverse=True)


@unhurried
@given(lengths_within(), st.data())
def test_an_items_bucket_does_not_depend_on_its_neighbours(case: tuple[list[int], int], data: st.DataObject) -> None:
    lengths, longest = case
    shuffled = data.draw(st.permutations(lengths))
    for some in (shuffled, lengths[:1]):
        for bucket in group(some, longest):
            assert all(edge_of(some[item], longest) == bucket.edge for item in bucket.items)


@unhurried
@given(longests, st.data())
def test_edges_are_fixed_rise_with_the_length_and_waste_little(longest: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, longest))
    edge = edge_of(length, longest)
    assert length <= edge <= longest
    assert edge_of(edge, longest) == edge  # an edge is in its own bucket
    assert length == 1 or edge_of(length - 1, longest) <= edge
    assert edge <= max(16, length + 7, length * 5 / 4) or length > 32_768
    if edge < longest:  # then it is one of the fixed edges, whatever the longest is
        assert edge == edge_of(length, longest + 1) == edge_of(length, 10**6)


def test_there_are_few_edges() -> None:
    assert len({edge_of(length, 32_768) for length in range(1, 32_769)}) < 50


@pytest.mark.parametrize(
    ("length", "longest", "edge"),
    [(1, 1, 1), (1, 900, 16), (16, 900, 16), (17, 900, 24), (896, 900, 896), (897, 900, 900), (900, 900, 900),
     (40_000, 50_000, 50_000)],
)  # fmt: skip
def test_edge_of(length: int, longest: int, edge: int) -> None:
    assert edge_of(length, longest) == edge


@pytest.mark.parametrize(("length", "longest"), [(0, 10), (-1, 10), (11, 10), (1, 0), (40_001, 40_000)])
def test_a_length_out_of_range_is_a_value_error(length: int, longest: int) -> None:
    with pytest.raises(ValueError, match=f"a prompt of {length} tokens where 1 to {longest}"):
        edge_of(length, longest)
    with pytest.raises(ValueError, match="tokens"):
        group([length], longest)


def test_nothing_makes_no_bucket() -> None:
    assert group([], 10) == []


def test_group_takes_a_generator() -> None:
    assert group((length for length in [3, 20, 5]), 100) == [Bucket(24, (1,), 20), Bucket(16, (0, 2), 8)]


@unhurried
@given(st.integers(1, 40_000), st.integers(1, 5_000), st.integers(1, 2_000), st.integers(1, 10**6))
def test_batches_keep_to_the_budget(edge: int, max_new_tokens: int, batch_size: int, batch_tokens: int) -> None:
    rows = batch_rows(edge, max_new_tokens, batch_size, batch_tokens)
    assert 1 <= rows <= batch_size
    assert rows == 1 or rows * (edge + max_new_tokens) <= batch_tokens
    # as many as the budget has room for
    assert rows == batch_size or (rows + 1) * (edge + max_new_tokens) > batch_tokens


def test_small_neighbours_are_joined_until_there_are_enough_items() -> None:
    grouped = group([200, 190, 100, 99, 60, 40, 39, 38, 20], longest=512)
    assert [bucket.edge for bucket in grouped] == [224, 192, 104, 64, 40, 24]
    together = joined(grouped, 4)
    assert [(bucket.edge, len(bucket.items)) for bucket in together] == [(224, 2), (104, 3), (40, 4)]
    assert [bucket.prompt_tokens for bucket in together] == [390, 259, 137]
    assert sorted(item for bucket in together for item in bucket.items) == list(range(9))
    assert joined(grouped, 1) == grouped
