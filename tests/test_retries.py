"""Texts that break a rule: generated again, the best kept, the rest quarantined; and judged again when rules change."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from enrich.errors import ConfigError, Interrupted
from enrich.job import Summary
from enrich.output.quarantine import read_quarantine

HOME = Path(__file__).parent.parent / "sample_catalogs" / "home.parquet"
# Random weights write some six words in float32, now more, now fewer: about half of the attempts fail.
RULES = "all=off,too_short=retry,min_words=7"
CATALOG = pl.DataFrame({"id": [str(n) for n in range(40)], "title": [f"Oak table number {n}" for n in range(40)]})


@pytest.fixture
def enrich(enrich: Callable[..., Summary]) -> Callable[..., Summary]:
    return partial(enrich, dtype="float32")


def rows(path: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(path).rows(named=True)


def outcomes(path: Path) -> list[tuple[Any, ...]]:
    return [
        (row["description"], *(row["generation"][name] for name in ("status", "attempt", "flags", "key")))
        for row in rows(path)
    ]


def test_texts_that_fail_are_tried_again_and_what_stays_bad_is_quarantined(enrich, tmp_path: Path) -> None:
    summary = enrich(CATALOG, rules=RULES, max_quarantined="100%")
    found = rows(tmp_path / "out.parquet")
    assert summary.generated + summary.quarantined == 40
    assert 0 < summary.quarantined < 40
    assert 0 < summary.retried < summary.generated
    for row in found:
        if row["generation"]["status"] == "generated":
            assert len(row["description"].split()) >= 7
            assert "too_short" not in row["generation"]["flags"]
        else:
            assert row["description"] is None
            assert "too_short" in row["generation"]["flags"]
    attempts = {row["generation"]["attempt"] for row in found if row["generation"]["status"] == "generated"}
    assert {1, 2} <= attempts


def test_the_quarantine_file_has_every_attempt_and_why(enrich, tmp_path: Path) -> None:
    summary = enrich(CATALOG, rules=RULES, max_quarantined="100%")
    lines = list(read_quarantine(tmp_path / "out.parquet.quarantine.jsonl"))
    found = rows(tmp_path / "out.parquet")
    assert [line["row"] - 1 for line in lines] == [
        n for n, row in enumerate(found) if row["generation"]["status"] == "quarantined"
    ]
    assert len(lines) == summary.quarantined
    for line in lines:
        assert [attempt["attempt"] for attempt in line["attempts"]] == [1, 2, 3]
        assert line["key"] == found[line["row"] - 1]["generation"]["key"]
        assert line["title"].startswith("Oak table")
        for attempt in line["attempts"]:
            assert {failure["rule"] for failure in attempt["failures"]} <= {"too_short", "empty"}
            assert all(failure["severity"] == "retry" and failure["reason"] for failure in attempt["failures"])


def test_an_attempt_gives_what_it_gives_alone(enrich, tmp_path: Path) -> None:
    """The first attempt's texts are those of a run that takes them as they are."""
    enrich(CATALOG, "plain.parquet")
    enrich(CATALOG, rules=RULES, max_quarantined="100%")
    plain = rows(tmp_path / "plain.parquet")
    for before, after in zip(plain, rows(tmp_path / "out.parquet"), strict=True):
        assert before["generation"]["key"] == after["generation"]["key"]
        first = len((before["description"] or "").split()) >= 7
        accepted = after["generation"]["status"] == "generated"
        assert (accepted and after["generation"]["attempt"] == 1) == first
        if first:
            assert before["description"] == after["description"]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, 64])
def test_batches_do_not_matter(enrich, tmp_path: Path, batch_size: int) -> None:
    enrich(CATALOG, "a.parquet", rules=RULES, max_quarantined="100%", batch_size=16)
    enrich(CATALOG, "b.parquet", rules=RULES, max_quarantined="100%", batch_size=batch_size)
    assert outcomes(tmp_path / "a.parquet") == outcomes(tmp_path / "b.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("calls", [5, 25, 45, 70])
def test_a_run_broken_off_amid_retries_ends_as_one_that_was_not(enrich, tmp_path: Path, calls: int) -> None:
    options = {"rules": RULES, "max_quarantined": "100%", "batch_size": 16, "commit_rows": 1}
    enrich(CATALOG, "whole.parquet", **options)
    asked = 0

    def should_stop() -> int:
        nonlocal asked
        asked += 1
        return 15 if asked > calls else 0

    with pytest.raises(Interrupted):
        enrich(CATALOG, should_stop=should_stop, **options)
    enrich(CATALOG, **options)
    assert outcomes(tmp_path / "out.parquet") == outcomes(tmp_path / "whole.parquet")
    name = ".quarantine.jsonl"
    assert (tmp_path / f"out.parquet{name}").read_text() == (tmp_path / f"whole.parquet{name}").read_text()


def test_an_old_description_outlives_texts_that_fail(enrich, tmp_path: Path) -> None:
    catalog = CATALOG.with_columns(pl.lit("A table of oak, made by people who know how.").alias("description"))
    options = {"rules": "all=off,too_short=retry,min_words=90", "overwrite": True, "max_quarantined": "100%"}
    enrich(catalog, **options)
    for row in rows(tmp_path / "out.parquet"):
        assert row["generation"]["status"] == "quarantined"
        assert row["description"] == "A table of oak, made by people who know how."
    again = enrich(catalog[::-1], **options)  # nor is it taken for one that a person has edited in the output
    assert (again.edited, again.kept, again.quarantined) == (0, 0, 40)


def test_a_severity_of_quarantine_is_not_tried_again_and_a_flag_is_only_noted(enrich, tmp_path: Path) -> None:
    enrich(CATALOG, "q.parquet", rules=RULES.replace("retry", "quarantine"), max_quarantined="100%")
    enrich(CATALOG, "f.parquet", rules=RULES.replace("retry", "flag"))
    for quarantined, flagged in zip(rows(tmp_path / "q.parquet"), rows(tmp_path / "f.parquet"), strict=True):
        assert quarantined["generation"]["attempt"] == flagged["generation"]["attempt"] == 1
        assert flagged["generation"]["status"] == "generated"
        fails = "too_short" in flagged["generation"]["flags"]
        assert (quarantined["generation"]["status"] == "quarantined") == fails
    lines = list(read_quarantine(tmp_path / "q.parquet.quarantine.jsonl"))
    assert all(len(line["attempts"]) == 1 for line in lines)


def test_when_rules_change_only_texts_that_fail_are_generated_anew(enrich, tmp_path: Path) -> None:
    enrich(CATALOG)
    before = rows(tmp_path / "out.parquet")
    failing = [len((row["description"] or "").split()) < 7 for row in before]
    summary = enrich(CATALOG, rules=RULES, max_quarantined="100%")
    after = rows(tmp_path / "out.parquet")
    assert summary.reused == failing.count(False)
    assert summary.generated + summary.quarantined == failing.count(True)
    for fails, old, new in zip(failing, before, after, strict=True):
        if not fails:
            assert new["description"] == old["description"]
            assert new["generation"]["status"] == "reused"
    # The same rules once more: nothing to do, and a file that stays.
    assert enrich(CATALOG, rules=RULES, max_quarantined="100%").unchanged
    # As a run from nothing would have it.
    enrich(CATALOG, "anew.parquet", rules=RULES, max_quarantined="100%")
    texts = [row["description"] for row in rows(tmp_path / "anew.parquet")]
    assert texts == [row["description"] for row in after]


def test_laxer_rules_free_the_quarantined(enrich, tmp_path: Path) -> None:
    strict = enrich(CATALOG, rules=RULES, max_quarantined="100%")
    lax = enrich(CATALOG)
    assert strict.quarantined
    assert lax.quarantined == 0
    assert lax.generated == strict.quarantined
    assert not (tmp_path / "out.parquet.quarantine.jsonl").exists()


def test_a_flag_that_a_new_rule_sets_is_published_without_generating(enrich, tmp_path: Path) -> None:
    enrich(CATALOG)
    summary = enrich(CATALOG, rules=RULES.replace("retry", "flag"))
    assert summary.generated == 0
    assert not summary.unchanged
    flags = [row["generation"]["flags"] for row in rows(tmp_path / "out.parquet")]
    assert any("too_short" in one for one in flags)
    assert enrich(CATALOG, rules=RULES.replace("retry", "flag")).unchanged


def test_rows_quarantined_before_keep_their_line(enrich, tmp_path: Path) -> None:
    options = {"rules": RULES, "max_quarantined": "100%"}
    first = enrich(CATALOG, **options)
    lines = list(read_quarantine(tmp_path / "out.parquet.quarantine.jsonl"))
    more = pl.concat([CATALOG, pl.DataFrame({"id": ["x"], "title": ["One more oak table"]})])
    second = enrich(more, **options)
    assert second.quarantined >= first.quarantined
    assert list(read_quarantine(tmp_path / "out.parquet.quarantine.jsonl"))[: len(lines)] == lines


def test_shards_with_retries_merge_into_the_whole(enrich, tmp_path: Path) -> None:
    from enrich import job

    options = {"rules": RULES, "max_quarantined": "100%"}
    enrich(CATALOG, "whole.parquet", **options)
    for shard in ("1/2", "2/2"):
        enrich(CATALOG, shard=shard, **options)
    job.merge(tmp_path / "out.parquet")
    assert outcomes(tmp_path / "out.parquet") == outcomes(tmp_path / "whole.parquet")
    name = ".quarantine.jsonl"
    whole = list(read_quarantine(tmp_path / f"whole.parquet{name}"))
    assert list(read_quarantine(tmp_path / f"out.parquet{name}")) == whole
    assert len(list(tmp_path.glob(f"*{name}"))) == 2


def test_a_setting_that_can_not_be_is_told_before_anything_is_done(enrich, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rules: unknown rule or limit 'too_shrt'; did you mean 'too_short'"):
        enrich(CATALOG, rules="too_shrt=off")
    with pytest.raises(ConfigError, match="should be off, flag, again, retry or quarantine"):
        enrich(CATALOG, rules="too_short=loud")
    assert not (tmp_path / "out.parquet").exists()


def test_a_rules_table_in_the_configuration_file(tmp_path: Path) -> None:
    from enrich.config import build_config

    file = tmp_path / "enrich.toml"
    file.write_text('[rules]\nmax_words = 80\nshouting = "flag"\nbanned_words = ["cheap", "low, end"]\n')
    config = build_config("c.csv", file, {})
    assert config.rule_settings() == {"max_words": "80", "shouting": "flag", "banned_words": "cheap|low, end"}
    json.dumps(config.as_dict())


def test_nearly_the_words_of_another_text_are_flagged(enrich, tmp_path: Path) -> None:
    """The same product twice, drawn greedily: the same text twice."""
    frame = pl.DataFrame({"id": ["1", "2", "3"], "title": ["Oak table", "Wool rug", "Oak table"]})
    options = {"temperature": 0.0, "rules": "all=off,near_duplicate=flag"}
    enrich(frame, **options)
    found = rows(tmp_path / "out.parquet")
    assert found[0]["description"] == found[2]["description"] != found[1]["description"]
    assert [row["generation"]["flags"] for row in found][::2] == [
        found[0]["generation"]["flags"], [*found[0]["generation"]["flags"], "near_duplicate"],
    ]  # fmt: skip
    assert enrich(frame, **options).unchanged
    enrich(frame, "off.parquet", temperature=0.0)
    assert "near_duplicate" not in rows(tmp_path / "off.parquet")[2]["generation"]["flags"]
    with pytest.raises(ConfigError, match="off or flag"):
        enrich(frame, "no.parquet", rules="near_duplicate=retry")


def test_again_tries_as_often_but_withholds_nothing(enrich, tmp_path: Path) -> None:
    strict = enrich(CATALOG, "strict.parquet", rules=RULES, max_quarantined="100%")
    again = enrich(CATALOG, rules=RULES.replace("retry", "again"))
    assert (again.generated, again.quarantined) == (40, 0)
    assert strict.quarantined > 0
    for one, other in zip(rows(tmp_path / "strict.parquet"), rows(tmp_path / "out.parquet"), strict=True):
        if one["generation"]["status"] == "generated":
            assert one["description"] == other["description"]
            assert one["generation"]["attempt"] == other["generation"]["attempt"]
        else:  # the first of three that are alike
            assert "too_short" in other["generation"]["flags"]
    assert enrich(CATALOG, rules=RULES.replace("retry", "again")).unchanged
