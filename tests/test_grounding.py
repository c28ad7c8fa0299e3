"""Grounded decoding: digits that the row does not have, and banned words, are never drawn."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from enrich.grounding import Grounding

TOKENS = ["the", " 24", "2", "4", "18", " x3", "8", " cheap", "Cheap", "en", " oak", "1st", ""]


def texts(ids: tuple[int, ...]) -> list[str]:
    return [TOKENS[token_id] for token_id in ids]


def test_digits_that_no_number_of_the_prompt_has() -> None:
    grounding = Grounding(TOKENS)
    assert texts(grounding.forbidden("title: table 24 x 18 in", ())) == [" x3"]
    assert texts(grounding.forbidden("title: table", ())) == [" 24", "2", "4", "18", " x3", "8", "1st"]
    assert texts(grounding.forbidden("title: 2 tables, 4 lamps", ())) == [" 24", "18", " x3", "8", "1st"]


def test_banned_words_unless_the_prompt_has_them() -> None:
    grounding = Grounding(TOKENS)
    banned = ("Cheap", "bargain bin")
    assert texts(grounding.forbidden("24 18 3", banned)) == [" cheap", "Cheap"]
    assert texts(grounding.forbidden("24 18 3, cheap chic", banned)) == []


def test_a_grounded_run_states_no_number_that_its_row_has_not(enrich, tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [str(n) for n in range(24)], "title": [f"Oak table {n % 7} ft" for n in range(24)]})

    def strays(name: str) -> int:
        rows = pl.read_parquet(tmp_path / name).rows(named=True)
        return sum(digits not in row["title"] for row in rows for digits in re.findall(r"\d", row["description"] or ""))

    enrich(frame, "free.parquet", temperature=1.5, top_k=0, max_new_tokens=40)
    summary = enrich(frame, "grounded.parquet", temperature=1.5, top_k=0, max_new_tokens=40, grounded=True)
    assert strays("free.parquet") > 0
    assert strays("grounded.parquet") == 0
    assert summary.generated > 0
    keys = [
        pl.read_parquet(tmp_path / f"{name}.parquet")["generation"].struct.field("key")[0]
        for name in ("free", "grounded")
    ]
    assert keys[0] != keys[1]
