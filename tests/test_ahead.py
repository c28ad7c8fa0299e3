from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from enrich.ahead import one_ahead


def test_items_come_in_their_order() -> None:
    assert list(one_ahead(range(100))) == list(range(100))
    assert list(one_ahead([])) == []


def test_the_next_item_and_no_further_one_is_made_while_one_is_in_use() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    ahead = one_ahead(items())
    for number in range(3):
        assert next(ahead) == number
        assert made[number + 1].wait(10)
        assert not any(event.is_set() for event in made[number + 2 :])
    ahead.close()


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no second one")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="no second one"):
        next(ahead)


def test_closing_leaves_no_thread() -> None:
    before = threading.active_count()
    ahead = one_ahead(range(10))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
