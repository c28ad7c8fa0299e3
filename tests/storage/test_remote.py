from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError, PreconditionError
from obstore.store import MemoryStore

from enrich.errors import ConfigError, RemoteError, TryAgain
from enrich.storage.remote import Changed, Patience, Remote
from enrich.storage.url import Url

URL = Url.parse("s3://bucket/dir/object")


@pytest.fixture
def remote() -> Remote:
    return Remote(patience=Patience(pause=0.01), _stores={("s3", "bucket"): MemoryStore()})


class Failing:
    """Stands for a function of obstore that fails for a while."""

    def __init__(self, does: Any, errors: list[Exception], *, after: bool = False) -> None:
        self.does, self.errors, self.after, self.calls = does, errors, after, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        error = self.errors.pop(0) if self.errors else None
        if error and not self.after:
            raise error
        result = self.does(*arguments, **options)
        if error:
            raise error
        return result


def test_files_and_bytes_there_and_back(remote: Remote, tmp_path: Path) -> None:
    assert remote.read(URL) is None and remote.version(URL) is None and remote.below(URL) == []
    assert remote.download(URL, tmp_path / "none") is None
    version = remote.write(URL, b"content")
    assert remote.read(URL) == (b"content", version)
    assert remote.version(URL) == version
    (tmp_path / "large").write_bytes(os.urandom(20 << 20))
    remote.upload(tmp_path / "large", URL)
    assert remote.download(URL, tmp_path / "copy") == remote.version(URL)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()
    remote.write(URL / "below", b"x")
    assert [str(entry.url) for entry in remote.below(URL)] == ["s3://bucket/dir/object/below"]
    remote.delete(URL)
    remote.delete(URL)
    assert remote.read(URL) is None


@pytest.mark.parametrize("size", [10, 40 << 20], ids=["small", "in parts"])
def test_only_what_was_seen_is_written_over(remote: Remote, tmp_path: Path, size: int) -> None:
    new = tmp_path / "new"
    new.write_bytes(os.urandom(size))
    remote.upload_over(new, URL, None)
    seen = remote.version(URL)
    other = remote.write(URL, b"of another")
    for outdated in (None, seen):
        with pytest.raises(Changed, match="s3://bucket/dir/object was written by someone else meanwhile"):
            remote.upload_over(new, URL, outdated)
    assert remote.read(URL) == (b"of another", other)
    remote.upload_over(new, URL, other)
    assert remote.version(URL) not in (None, other)


def test_what_fails_in_passing_is_tried_again(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Failing(obstore.put, [GenericError("connection reset"), GenericError("status code: 503 Service Unavailable")])
    monkeypatch.setattr(obstore, "put", put)
    remote.write(URL, b"x")
    assert put.calls == 3
    get = Failing(obstore.get, [GenericError("no route")] * 3)
    monkeypatch.setattr(obstore, "get", get)
    with pytest.raises(TryAgain, match=r"s3://bucket/dir/object: no route; tried 3 times"):
        remote.read(URL)
    assert get.calls == 3


def test_a_write_whose_answer_was_lost_counts(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstore, "put", Failing(obstore.put, [GenericError("cut")], after=True))
    version = remote.replace(URL, b"mine", None)  # the second request finds the object that the first has made
    assert remote.read(URL) == (b"mine", version)
    with pytest.raises(Changed):
        remote.replace(URL, b"others", None)


ERRORS = [
    (
        PermissionDeniedError("403 <Error><Code>SignatureDoesNotMatch</Code>"),
        r"access denied \(SignatureDoesNotMatch\)",
    ),
    (GenericError("status code: 400 Bad Request: <Error><Code>ExpiredToken</Code>"), "ExpiredToken"),
    (
        GenericError("Error performing PUT http://169.254.169.254/latest/api/token"),
        "no credentials; .*AWS_ACCESS_KEY_ID",
    ),
    (GenericError("Generic S3 error: Missing AccessKeyId\n\nDebug source:"), "no credentials"),
    (GenericError("HTTP error: builder error"), "AWS_ALLOW_HTTP=true"),
    (GenericError("Received redirect without LOCATION"), "AWS_REGION"),
    (FileNotFoundError("404 <Code>NoSuchBucket</Code>"), "there is no bucket 'bucket'"),
    (ValueError("Could not parse path"), "Could not parse path"),
]


@pytest.mark.parametrize(("error", "told"), ERRORS, ids=lambda value: type(value).__name__)
def test_what_would_fail_again_is_told_at_once(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    get = Failing(obstore.get, [error])
    monkeypatch.setattr(obstore, "get", get)
    with pytest.raises(RemoteError, match=told) as caught:
        remote.read(URL)
    assert get.calls == 1
    assert "\n" not in str(caught.value) and str(caught.value).startswith("s3://bucket/dir/object: ")
    assert caught.value.exit_code == 2


def test_no_secret_is_told(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    error = GenericError("GET https://host/c/k?sig=whisper failed for hushhush")
    monkeypatch.setattr(obstore, "get", Failing(obstore.get, [error] * 3))
    with pytest.raises(TryAgain) as caught:
        remote.read(URL)
    assert "https://host/c/k failed for ***" in str(caught.value)


def test_a_conflict_that_a_broken_read_hides_is_not_taken_for_success(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore, "put", Failing(obstore.put, [PreconditionError("412")]))
    with pytest.raises(Changed):
        remote.replace(URL, b"mine", None)


def test_credentials_for_every_scheme_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "YWJj")
    remote = Remote()
    for text in ("s3://b/k", "gs://b/k", "az://container/k"):
        assert remote._store(Url.parse(text)) is remote._store(Url.parse(text + "2"))
    assert len(remote._stores) == 3


def test_without_the_package_the_command_that_helps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"pip install 'enrich\[remote\]'"):
        Remote()
