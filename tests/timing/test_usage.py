from __future__ import annotations

from dataclasses import dataclass

import pytest

from enrich.timing.usage import Meter, Usage


@dataclass
class Counted:
    prompt_tokens: int = 0
    prefill_positions: int = 0
    generated_tokens: int = 0
    decode_positions: int = 0


def test_a_bucket_by_itself_has_all_that_was_computed() -> None:
    meter = Meter()
    meter.note({64: Usage(3, 4, 150, 0, 80)}, Counted(160, 192, 90, 128), seconds=2.0)
    assert meter.by_edge == {64: Usage(3, 4, 160, 192, 90, 128, 2.0)}


def test_buckets_that_went_together_share_what_was_computed_and_nothing_is_lost() -> None:
    meter, stats = Meter(), Counted(7, 7, 7, 7)
    meter.note({8: Usage(1, 1, 7, 0, 7)}, stats, seconds=1.0)
    stats = Counted(7 + 400, 7 + 431, 7 + 100, 7 + 129)
    parts = {64: Usage(4, 4, 240, 0, 60), 32: Usage(5, 6, 120, 0, 30), 16: Usage(1, 1, 40, 0, 10), 40: Usage()}
    meter.note(parts, stats, seconds=5.0)
    del meter.by_edge[8]
    assert sum(meter.by_edge.values(), Usage()) == Usage(10, 11, 400, 431, 100, 129, pytest.approx(5.0))
    assert meter.by_edge[64].seconds == pytest.approx(3.0)
    assert meter.by_edge[64].prompt_tokens == 240
    assert meter.by_edge[40] == Usage()


def test_time_in_which_nothing_was_finished_counts_too() -> None:
    meter = Meter()
    meter.note({16: Usage(), 24: Usage()}, Counted(10, 16, 3, 16), seconds=0.5)
    assert sum(meter.by_edge.values(), Usage()) == Usage(0, 0, 10, 16, 3, 16, 0.5)
