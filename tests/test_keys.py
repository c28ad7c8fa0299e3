from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.keys import KeyMaker, digest, key_of_run, row_keys, seed_of

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy

SAMPLING: dict[str, Any] = {"max_new_tokens": 128, "temperature": 0.7, "top_k": 50}
any_text = st.text(alphabet=st.characters(), max_size=20)  # lone surrogates too
rows = st.lists(st.tuples(st.sampled_from(["", "1", "2", "a"]), st.sampled_from(["p", "q", "1p"])), max_size=12)


def maker(model: str = "m", sampling: dict[str, Any] | None = None, seed: int = 0) -> KeyMaker:
    return KeyMaker(key_of_run(model, SAMPLING if sampling is None else sampling, seed))


def keys_of(some: list[tuple[str, str]], **settings: Any) -> list[str]:
    keys = maker(**settings)
    made = row_keys(b"".join(keys.content_key(*row) for row in some))
    return [made[start : start + 16].hex() for start in range(0, len(made), 16)]


def test_keys_are_the_same_from_run_to_run() -> None:
    # Pinned: another value would make every text of every catalog anew.
    assert keys_of([("17", "Title: Lamp")]) == ["ea15b8f65a380dd0a55ba62237d6ea78"]


@unhurried
@given(rows)
def test_equal_rows_get_keys_of_their_own(some: list[tuple[str, str]]) -> None:
    keys = keys_of(some)
    assert len(set(keys)) == len(some)
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)
    assert keys == keys_of(some)


@unhurried
@given(rows, rows, st.data())
def test_other_rows_change_no_key(
    mine: list[tuple[str, str]], others: list[tuple[str, str]], data: st.DataObject
) -> None:
    others = [(product_id + "-other", prompt) for product_id, prompt in others]
    positions = sorted(data.draw(st.integers(0, len(mine))) for _ in others)
    mixed: list[tuple[str, str]] = []
    for number in range(len(mine) + 1):
        inserted = [row for position, row in zip(positions, others, strict=True) if position == number]
        mixed += [*inserted, *mine[number : number + 1]]
    kept = [key for key, row in zip(keys_of(mixed), mixed, strict=True) if row in mine]
    assert kept == keys_of(mine)


@unhurried
@given(rows, st.data())
def test_sorting_the_rows_only_sorts_the_keys(some: list[tuple[str, str]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(some))
    assert sorted(zip(shuffled, keys_of(shuffled), strict=True)) == sorted(zip(some, keys_of(some), strict=True))


@pytest.mark.parametrize(
    "changed",
    [
        keys_of([("2", "prompt")]),
        keys_of([("", "1prompt")]),
        keys_of([("1p", "rompt")]),
        keys_of([("1", "Prompt")]),
        keys_of([("1", "prompt ")]),
        keys_of([("1", "prompt")], model="m2"),
        keys_of([("1", "prompt")], model="m0"),
        keys_of([("1", "prompt")], seed=1),
        keys_of([("1", "prompt")], sampling={**SAMPLING, "temperature": 0.8}),
        keys_of([("1", "prompt")], sampling={**SAMPLING, "top_k": 51}),
        keys_of([("1", "prompt")], sampling={**SAMPLING, "top_p": 0.9}),
        keys_of([("1", "prompt")], sampling={}),
        keys_of([("1", "prompt"), ("1", "prompt")])[1:],
    ],
)
def test_whatever_a_text_depends_on_changes_its_key(changed: list[str]) -> None:
    assert changed != keys_of([("1", "prompt")])


def test_the_order_in_which_sampling_parameters_are_named_does_not_matter() -> None:
    assert keys_of([("1", "p")], sampling=dict(reversed(SAMPLING.items()))) == keys_of([("1", "p")])


@unhurried
@given(st.lists(st.lists(any_text, max_size=4).map(tuple), max_size=6, unique=True))
def test_no_two_lists_of_parts_look_alike(lists: list[tuple[str, ...]]) -> None:
    for one, other in combinations(lists, 2):
        assert digest(one) != digest(other)


def test_parts_are_told_apart() -> None:
    parts = [(), ("",), ("", ""), ("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), ("ab", "c", ""), ("", "ab", "c")]
    assert len({digest(part) for part in parts}) == len(parts)
    assert digest(["ä"]) == digest(["ä".encode()])


def test_lone_surrogates_have_keys() -> None:
    keys = keys_of([("\ud800", "p"), ("\udfff", "p"), ("1", "\ud83d"), ("1", "\ud83d\ude00"), ("1", "😀")])
    assert len(set(keys)) == 5
    assert keys_of([("1", "p")], model="\udc80", sampling={"stop": "\udc80"})


@unhurried
@given(any_text, any_text, st.integers(0, 2**63 - 1))
def test_seeds_are_63_bits(product_id: str, prompt: str, seed: int) -> None:
    assert 0 <= seed_of(keys_of([(product_id, prompt)], seed=seed)[0]) < 2**63


def test_seeds_at_the_ends_and_across_the_range() -> None:
    assert seed_of("0" * 32) == 0
    assert seed_of("f" * 32) == 2**63 - 1
    seeds = {seed_of(key) for key in keys_of([("", "p")] * 1000)}
    assert len(seeds) == 1000
    assert min(seeds) < 2**58 and max(seeds) > 2**63 - 2**58
