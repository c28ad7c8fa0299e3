from __future__ import annotations

import json
from pathlib import Path

import pytest

from enrich.timing.speeds import Speed, note_speed, read_speed, speeds_path
from enrich.timing.usage import Usage


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


@pytest.mark.parametrize("nothing", ["rows", "texts", "prefill_positions", "seconds"])
def test_speeds_of_no_run_that_can_be_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bucket = {"edge": 40, "rows": 50, "texts": 50, "prompt_tokens": 9, "prefill_positions": 99, "generated_tokens": 9}
    bucket |= {"decode_positions": 9, "seconds": 2.0}
    note_speed("usual", [bucket], 1.0)
    note_speed("odd", [bucket], 1.0)
    written = json.loads(speeds_path().read_text())
    written["odd"]["buckets"][0][nothing] = 0  # by another program, or a hand
    speeds_path().write_text(json.dumps(written))
    assert read_speed("usual") is not None
    assert read_speed("odd") is None
