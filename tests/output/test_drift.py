from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.generation import Generation, Outcome
from enrich.outcomes import outcome_table
from enrich.output.drift import Profile, Profiler

CALM = Profile(mean_words=40, repeated=0.1, flagged=0.2, quarantined=0.0)


def columns(rows: list[tuple[str | None, Generation]]) -> tuple[pa.Array, pa.StructArray]:
    table = outcome_table([Outcome(number, *row) for number, row in enumerate(rows)]).combine_chunks()
    return table["text"].chunk(0), table["generation"].chunk(0)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_words_are_what_python_splits(texts: list[str]) -> None:
    profiler = Profiler()
    profiler.add(*columns([(text, Generation("generated")) for text in texts]))
    assert profiler.profile().mean_words == round(sum(len(text.split()) for text in texts) / len(texts), 2)


def test_a_profile_counts_generated_texts_only() -> None:
    profiler = Profiler()
    rows = [
        ("four words are here", Generation("generated", flags=("repeated_sentence",))),
        (" and \u00a0\n two", Generation("reused", flags=("edited",))),
        ("a person's own words, which are many more", Generation("kept", flags=("edited",))),
        (None, Generation("quarantined", flags=("no_title",))),
        (None, Generation("pending")),
    ]
    for some in (rows[:2], rows[2:]):
        profiler.add(*columns(some))
    assert profiler.profile() == Profile(
        mean_words=3, repeated=0.5, flagged=0.5, quarantined=pytest.approx(1 / 3, abs=1e-4)
    )
    assert Profiler().profile() == Profile(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("now", "drift", "name"),
    [
        (CALM, 0.0, "mean_words"),
        (Profile(50, 0.1, 0.2, 0.0), 0.25, "mean_words"),
        (Profile(32, 0.1, 0.2, 0.0), 0.25, "mean_words"),
        (Profile(40, 0.1, 0.5, 0.0), 0.3, "flagged"),
        (Profile(42, 0.1, 0.2, 0.4), 0.4, "quarantined"),
        (Profile(0, 0.1, 0.2, 0.0), 1.0, "mean_words"),
    ],
)
def test_drift_is_the_largest_change(now: Profile, drift: float, name: str) -> None:
    found, what = now.drift_from(CALM)
    assert found == pytest.approx(drift)
    assert what.startswith(name)


def test_a_profile_is_read_back_or_is_none() -> None:
    assert Profile.read({"profile": CALM.as_dict()}) == CALM
    assert Profile.read({}) is Profile.read({"profile": {"mean_words": 3}}) is Profile.read({"profile": None}) is None


def test_the_mean_weighs_by_rows() -> None:
    assert Profile.mean([(CALM, 1), (Profile(20, 0.0, 0.0, 0.4), 3)]) == Profile(25, 0.025, 0.05, pytest.approx(0.3))
    assert Profile.mean([]) == Profile(0, 0, 0, 0)
