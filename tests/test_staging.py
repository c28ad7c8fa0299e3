from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest
from obstore.store import MemoryStore

from enrich import RunConfig, job, staging
from enrich.errors import ConfigError, Interrupted, RemoteError, TooMuchDrift, TryAgain
from enrich.stages import survey
from enrich.staging import fetched, staged, work_directory
from enrich.storage.remote import Remote
from enrich.storage.url import Url

OUT = "out/home.parquet"
ROWS = 30


class Bucket:
    """A bucket in memory, which all of `enrich.storage.remote` is pointed at."""

    def __init__(self, catalog: pl.DataFrame) -> None:
        self.store = MemoryStore()
        self.put("in/home.parquet", catalog)

    def put(self, key: str, frame: pl.DataFrame) -> None:
        content = io.BytesIO()
        frame.write_parquet(content)
        obstore.put(self.store, key, content.getvalue())

    def read(self, key: str) -> pl.DataFrame:
        return pl.read_parquet(bytes(obstore.get(self.store, key).bytes()))

    def versions(self) -> dict[str, Any]:
        return {meta["path"]: meta["e_tag"] for batch in obstore.list(self.store) for meta in batch}

    def keys(self, part: str) -> list[str]:
        return sorted(key for key in self.versions() if part in key)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket(
        pl.DataFrame({"id": [f"p{n}" for n in range(ROWS)], "title": [f"Oak chair {n}" for n in range(ROWS)]})
    )
    monkeypatch.setattr(Remote, "_store", lambda *_: made.store)
    return made


@pytest.fixture
def enrich(tiny_gpt2: Path, tmp_path: Path) -> Callable[..., job.Summary]:
    def run(**options: Any) -> job.Summary:
        should_stop = options.pop("should_stop", lambda: 0)
        told = {"model": str(tiny_gpt2), "max_new_tokens": 8, "commit_rows": 10, "rules": "all=off", "batch_size": 8}
        told |= {"output": f"s3://b/{OUT}", "work_dir": str(tmp_path)} | options
        return job.run(RunConfig("s3://b/in/home.parquet", **told), should_stop=should_stop)

    return run


def stop_after(bucket: Bucket, parts: int) -> Callable[[], int]:
    return lambda: 15 if len(bucket.keys(".checkpoint/")) >= parts + 3 else 0  # beside manifest, progress and survey


def is_left_clean(bucket: Bucket) -> bool:
    return not bucket.keys(".checkpoint") and not bucket.keys(".lock")


def test_a_run_and_an_unchanged_one(bucket: Bucket, enrich: Callable[..., job.Summary], tmp_path: Path) -> None:
    summary = enrich(changes="s3://b/out/changes.parquet")
    assert (summary.generated, summary.output) == (ROWS, f"s3://b/{OUT}")
    assert bucket.read(OUT)["description"].null_count() == 0
    assert len(bucket.read("out/changes.parquet")) == ROWS
    assert is_left_clean(bucket) and not list(tmp_path.iterdir())
    before = bucket.versions()
    assert enrich().unchanged
    assert bucket.versions() == before


def test_a_run_killed_when_all_is_done_has_only_to_publish(
    bucket: Bucket, enrich: Callable[..., job.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staging._Copies, "push", killed)
        enrich()
    assert not bucket.keys("home.parquet.q") and OUT not in bucket.versions()
    summary = enrich()
    assert (summary.rows, summary.resumed_rows) == (ROWS, ROWS)
    assert len(bucket.read(OUT)) == ROWS and is_left_clean(bucket)


def test_a_run_killed_after_publishing_leaves_its_changes(
    bucket: Bucket, enrich: Callable[..., job.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staging._Mirror, "remove", killed)
        enrich(changes="s3://b/out/changes.parquet")
    before = bucket.versions()
    assert bucket.keys("manifest.jsonl")
    assert enrich(changes="s3://b/out/changes.parquet").unchanged
    after = bucket.versions()
    assert after["out/changes.parquet"] == before["out/changes.parquet"] and after[OUT] == before[OUT]
    assert is_left_clean(bucket)


def killed(*_: object) -> None:
    raise KeyboardInterrupt  # what no handler of ours takes for its own


def test_texts_of_a_run_whose_catalog_has_changed_outlast_two_kills(
    bucket: Bucket, enrich: Callable[..., job.Summary]
) -> None:
    with pytest.raises(Interrupted):
        enrich(should_stop=stop_after(bucket, 1))
    (first,) = {key.split("/")[2] for key in bucket.keys("part-")}
    catalog = bucket.read("in/home.parquet")
    bucket.put("in/home.parquet", pl.concat([catalog, catalog.head(1).with_columns(id=pl.lit("new"))]))
    asked = 0

    def stop_once_begun() -> int:
        nonlocal asked
        asked += bool(bucket.keys(".checkpoint.old"))
        return 15 if asked else 0

    with pytest.raises(Interrupted):
        enrich(should_stop=stop_once_begun)
    assert bucket.keys(".checkpoint.old") and not [key for key in bucket.keys(".checkpoint/") if first in key]
    summary = enrich()
    assert summary.reused >= 10 and summary.rows == ROWS + 1
    assert is_left_clean(bucket)


def test_a_manifest_lists_only_what_is_there(
    bucket: Bucket, enrich: Callable[..., job.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Remote.upload

    def failing(self: Remote, path: Path, url: Url) -> None:
        if "part-000002" in str(url):
            raise TryAgain("the network is down")
        upload(self, path, url)

    with monkeypatch.context() as patch, pytest.raises(TryAgain, match="the network is down"):
        patch.setattr(Remote, "upload", failing)
        enrich()
    manifest = bytes(obstore.get(bucket.store, f"{OUT}.checkpoint/manifest.jsonl").bytes()).decode()
    assert manifest.count("part-") == len(bucket.keys("part-")) == 1
    assert enrich().resumed_rows == 10


def test_the_catalog_is_surveyed_once_for_a_run_and_who_goes_on_with_it(
    bucket: Bucket, enrich: Callable[..., job.Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        enrich(should_stop=stop_after(bucket, 1))
    monkeypatch.setattr(survey, "_read", killed)
    assert enrich().resumed_rows >= 10


def test_restart_drops_the_remote_checkpoint(bucket: Bucket, enrich: Callable[..., job.Summary]) -> None:
    with pytest.raises(Interrupted):
        enrich(should_stop=stop_after(bucket, 1))
    assert enrich(restart=True).resumed_rows == 0
    assert is_left_clean(bucket)


def test_an_output_that_is_withheld_lies_with_the_checkpoint(
    bucket: Bucket, enrich: Callable[..., job.Summary]
) -> None:
    enrich()
    before = bucket.versions()[OUT]
    with pytest.raises(
        TooMuchDrift, match=rf"s3://b/{OUT} was withheld: .* s3://b/{OUT}\.checkpoint/withheld\.parquet"
    ):
        enrich(max_new_tokens=2, max_drift=0.01)
    assert bucket.versions()[OUT] == before
    assert len(bucket.read(f"{OUT}.checkpoint/withheld.parquet")) == ROWS
    assert enrich(max_new_tokens=2).resumed_rows == ROWS
    assert is_left_clean(bucket)


def test_messages_name_what_the_user_has_named(
    bucket: Bucket, enrich: Callable[..., job.Summary], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "enrich")
    with pytest.raises(Exception, match=r"^s3://b/in/home\.parquet: no column 'Name'"):
        enrich(title_column="Name")
    enrich()
    assert "s3://b/in/home.parquet: id=id" in caplog.text and str(tmp_path) not in caplog.text
    with (
        pytest.raises(Exception, match=r"^s3://b/in/none\.parquet: there is no such object"),
        fetched("s3://b/in/none.parquet"),
    ):
        pass


def test_a_refusal_leaves_nothing_on_this_machine(
    bucket: Bucket, enrich: Callable[..., job.Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RemoteError("access denied")

    monkeypatch.setattr(Remote, "upload_over", refuse)
    with pytest.raises(RemoteError):
        enrich()
    assert not list(tmp_path.iterdir())
    assert bucket.keys("manifest.jsonl") and not bucket.keys(".lock")


def test_what_is_local_is_lent_as_it_is() -> None:
    config = RunConfig("catalog.csv")
    with staged(config) as stage:
        assert stage.config is config and stage.after_commit is None
        assert stage.names("/tmp/x") == "/tmp/x"


def test_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="shards work on local files only"):
        job.plan(RunConfig("s3://b/c.csv"), 2)


def test_a_working_directory_is_private_and_goes_even_after_a_kill(tmp_path: Path) -> None:
    with work_directory(str(tmp_path)) as alive:
        assert alive.stat().st_mode & 0o777 == 0o700
        left = tmp_path / "enrich-work-left"
        left.mkdir()
        (left / ".lock").touch()
        (tmp_path / "enrich-work-of-something-else").mkdir()
        with work_directory(str(tmp_path)):
            assert alive.is_dir() and not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["enrich-work-of-something-else"]
