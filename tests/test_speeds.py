from __future__ import annotations

import pytest

from enrich.speeds import Speed
from enrich.usage import Usage


def test_a_row_takes_what_rows_of_its_bucket_took_or_else_what_its_length_says() -> None:
    wide = Usage(
        rows=100, texts=150, prompt_tokens=15_000, prefill_positions=15_000, generated_tokens=9_000, seconds=30
    )
    speed = Speed({100: wide, 20: Usage(rows=3, texts=3, prefill_positions=60, generated_tokens=270, seconds=9.0)}, 0.0)
    assert speed.seconds_of_row(100) == pytest.approx(0.3)
    of_all = speed.total  # too few rows of the narrow bucket are known
    new = of_all.generated_tokens / of_all.rows
    usual = of_all.prefill_positions / of_all.texts + new
    assert speed.seconds_of_row(20) == pytest.approx(39 / 103 * (20 + new) / usual)
