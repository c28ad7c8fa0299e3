from __future__ import annotations

from enrich.engine.protocol import Request
from enrich.engine.waiting import Waiting


def test_rows_come_in_their_order_those_given_back_first_and_more_may_come() -> None:
    requests = [Request((1,), seed) for seed in range(3)]
    waiting = Waiting(requests)
    taken = waiting.take(2)
    assert taken == [(0, requests[0]), (1, requests[1])]
    requests.append(Request((2,), 3))
    waiting.give_back(taken)
    assert len(waiting) == 4
    assert [index for index, _ in waiting.take(3)] == [0, 1, 2]
    assert [index for index, _ in waiting.take(9)] == [3]
    assert not waiting
    assert waiting.take(1) == []
    requests.append(Request((3,), 4))
    assert waiting
