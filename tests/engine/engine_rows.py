"""The rows that every engine is tested with."""

from __future__ import annotations

import random

from enrich.engine.protocol import Completion, Engine, Request

WIDTH = 32
VOCABULARY = 390


def make_requests(num: int, seed: int = 0) -> list[Request]:
    rng = random.Random(seed)
    return [
        Request(tuple(rng.randrange(1, VOCABULARY) for _ in range(rng.randint(1, WIDTH))), seed=rng.getrandbits(63))
        for _ in range(num)
    ]


def run(engine: Engine, requests: list[Request], batch_rows: int) -> list[Completion]:
    """Generate all rows; each comes out exactly once, in whatever order."""
    found = list(engine.generate(requests, WIDTH, batch_rows, lambda: False))
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return [completion for _, completion in sorted(found, key=lambda one: one[0])]
