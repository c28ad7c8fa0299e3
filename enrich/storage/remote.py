"""Remote storage: objects on S3, GCS or Azure read and written whole, with patience for what passes.

Credentials come from the environment, as obstore finds them there, and stand in no message. What fails in passing (5xx,
a cut connection, a timeout) is tried again, longer and longer apart: single requests by obstore, whole operations here.
An upload is seen when it is complete, and not before; one that fails leaves the object as it was.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from enrich.errors import ConfigError, RemoteError, TryAgain
from enrich.storage.url import Url

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ObjectStore

log = logging.getLogger("enrich")
T = TypeVar("T")

_CHUNK = 8 << 20  # bytes; at once in memory are a few of them
_CONCURRENT = 4
_MOST_PARTS = 9_000  # of a multipart upload; S3 takes 10,000
_WHOLE = 32 << 20  # bytes up to which an object is written by one request, which the server can make conditional

_CODE = re.compile(r"<Code>(\w+)</Code>|\"code\": ?\"?(\w+)")
_STATUS = re.compile(r"status code: (\d{3})")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_NO_CREDENTIALS = re.compile(
    r"169\.254\.|fd00:ec2|metadata\.google\.internal|Missing(?:Secret)?AccessKey|Missing (?:Secret|Access|Account)"
    r"|Account must be specified|InstanceCredentials",
    re.IGNORECASE,
)
_PASSING_CODES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"}
_PASSING_STATUSES = {"408", "409", "429"}
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET", "GOOGLE_SERVICE_ACCOUNT_KEY")  # fmt: skip
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
    "gs": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def check_available() -> None:
    """Raise ConfigError, naming the command that helps, if the package that reaches remote storage is missing."""
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise ConfigError("remote storage needs the extra `remote`: pip install 'enrich[remote]'") from error


@dataclass(frozen=True)
class Version:
    """Which content of an object was seen: what its server calls it."""

    e_tag: str | None
    version: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Entry:
    """An object as a listing has it."""

    url: Url
    size: int
    last_modified: datetime


class Changed(TryAgain):
    """An object is not the one that was to be replaced."""


@dataclass(frozen=True)
class Patience:
    """How long what fails in passing is tried again: each request by `requests`, the whole `attempts` times."""

    attempts: int = 3
    pause: float = 1.0  # seconds before the second attempt, four times as long before the next
    requests: int = 10
    request_seconds: float = 60.0
    first_pause: float = 0.1
    longest_pause: float = 5.0


@dataclass
class Remote:
    """Remote storage. `moved` is called as often as something has been done, and may raise to break it off.

    Every method raises RemoteError for what would fail again, TryAgain for what may pass but did not in time, and
    ConfigError if the storage can't be reached with what the environment has.
    """

    moved: Callable[[], None] = lambda: None
    patience: Patience = field(default_factory=Patience)
    _stores: dict[tuple[str, str], ObjectStore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_available()

    def download(self, url: Url, path: Path) -> Version | None:
        """Copy an object into a file; return its version, or None if there is no such object."""
        import obstore

        def attempt() -> Version:
            found = obstore.get(self._store(url), url.key)
            written = 0
            with path.open("wb") as file:
                for chunk in found.stream(min_chunk_size=_CHUNK):
                    written += file.write(chunk)
                    self.moved()
            if written != found.meta["size"]:
                raise ConnectionError(f"{written} of {found.meta['size']} bytes came")
            return _version(found.meta)

        return self._tried(url, attempt)

    def read(self, url: Url) -> tuple[bytes, Version] | None:
        """Return a small object and its version; None if there is no such object."""
        import obstore

        def attempt() -> tuple[bytes, Version]:
            found = obstore.get(self._store(url), url.key)
            return bytes(found.bytes()), _version(found.meta)

        return self._tried(url, attempt)

    def version(self, url: Url) -> Version | None:
        """Return an object's version; None if there is no such object."""
        import obstore

        return self._tried(url, lambda: _version(obstore.head(self._store(url), url.key)))

    def open(self, url: Url) -> Any:
        """Open an object to read parts of it, as a file; None if there is no such object."""
        import obstore

        return self._tried(url, lambda: obstore.open_reader(self._store(url), url.key))

    def write(self, url: Url, content: bytes) -> Version:
        """Write a small object, whatever was there."""
        return self._put(url, content, "overwrite")

    def replace(self, url: Url, content: bytes, seen: Version | None) -> Version:
        """Write a small object if it is still the one that was seen, or still none. Raises Changed otherwise."""
        return self._put(url, content, _mode(seen))

    def upload(self, path: Path, url: Url) -> None:
        """Copy a file into an object, whatever was there."""
        import obstore

        size = path.stat().st_size
        if size <= _CHUNK:
            self._put(url, path.read_bytes(), "overwrite")
            return
        options: dict[str, Any] = {"chunk_size": _chunk_size(size), "max_concurrency": _CONCURRENT}
        self._tried(url, lambda: obstore.put(self._store(url), url.key, self._chunks(path), **options), writes=True)

    def upload_over(self, path: Path, url: Url, seen: Version | None) -> None:
        """Copy a file into an object if it is still the one that was seen, or still none. Raises Changed otherwise.

        The server itself sees to that in one step up to 32 MiB; there is no condition for larger ones, which come in
        several requests: they are checked last thing before they are completed.
        """
        import obstore

        size = path.stat().st_size
        if size <= _WHOLE:
            self._put(url, path.read_bytes(), _mode(seen))
            return

        options: dict[str, Any] = {"chunk_size": _chunk_size(size), "max_concurrency": _CONCURRENT}
        self._tried(
            url,
            lambda: obstore.put(
                self._store(url), url.key, self._chunks(path, lambda: self.check_still(url, seen)), **options
            ),
            writes=True,
        )

    def check_still(self, url: Url, seen: Version | None) -> None:
        """Raise Changed if an object is not the one that was seen, or if there is one now."""
        if self.version(url) != seen:
            raise _changed(url)

    def delete(self, url: Url) -> None:
        """Remove an object, if it is there."""
        import obstore

        self._tried(url, lambda: obstore.delete(self._store(url), url.key))

    def below(self, url: Url) -> list[Entry]:
        """List the objects whose keys begin with this one's and a slash."""
        import obstore

        def attempt() -> list[Entry]:
            found = obstore.list(self._store(url), prefix=url.key)
            metas = [meta for batch in found for meta in batch]
            return [
                Entry(Url(url.scheme, url.bucket, meta["path"]), meta["size"], meta["last_modified"]) for meta in metas
            ]

        return self._tried(url, attempt) or []

    def _chunks(self, path: Path, last: Callable[[], None] | None = None) -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self.moved()
                yield chunk
        if last is not None:
            with ThreadPoolExecutor(1) as other:  # obstore can't be called by what it calls itself
                other.submit(last).result()

    def _put(self, url: Url, content: bytes, mode: PutMode) -> Version:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def attempt() -> Version:
            try:
                return _version(obstore.put(self._store(url), url.key, content, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError) as error:
                # A request whose answer was lost is sent again, and meets what it has written itself.
                found = self.read(url)
                if found is not None and found[0] == content:
                    return found[1]
                raise _changed(url) from error

        written = self._tried(url, attempt, writes=True)
        assert written is not None
        self.moved()
        return written

    def _store(self, url: Url) -> ObjectStore:
        from obstore.store import from_url

        key = (url.scheme, url.bucket)
        if key not in self._stores:
            patience = self.patience
            self._stores[key] = from_url(
                f"{url.scheme}://{url.bucket}",
                client_options={
                    "connect_timeout": "10s",
                    "read_timeout": "60s",
                    "timeout": "300s",
                    "allow_http": _allows_http(),
                },
                retry_config={
                    "max_retries": patience.requests,
                    "retry_timeout": timedelta(seconds=patience.request_seconds),
                    "backoff": {
                        "init_backoff": timedelta(seconds=patience.first_pause),
                        "max_backoff": timedelta(seconds=patience.longest_pause),
                        "base": 2,
                    },
                },
            )
        return self._stores[key]

    def _tried(self, url: Url, attempt: Callable[[], T], *, writes: bool = False) -> T | None:
        """Return what an attempt returns, None if it finds no such object; try again what fails in passing."""
        from obstore.exceptions import BaseError

        pause = self.patience.pause
        for number in range(1, self.patience.attempts + 1):
            try:
                return attempt()
            except FileNotFoundError as error:
                if writes or _NO_BUCKET.search(str(error)):
                    raise RemoteError(f"{url}: there is no bucket {url.bucket!r}") from None
                return None
            except (BaseError, ConnectionError, TimeoutError, ValueError) as error:
                refusal = _refusal(url, error)
                if refusal is not None:
                    raise refusal from None
                what = f"{url}: {_told(error)}"
                if number == self.patience.attempts:
                    raise TryAgain(f"{what}; tried {number} times, try again later") from None
                log.warning("%s; trying again in %.0f s", what, pause)
                self.moved()
                time.sleep(pause * random.uniform(0.75, 1.25))
                pause *= 4
        raise AssertionError("unreachable")


def _allows_http() -> bool:
    # Options that are given replace what obstore reads from the environment.
    told = [os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "AZURE", "GOOGLE")]
    return any(value.lower() in ("1", "true", "yes", "on") for value in told)


def _mode(seen: Version | None) -> PutMode:
    if seen is None:
        return "create"
    mode: UpdateVersion = {}
    if seen.e_tag is not None:
        mode["e_tag"] = seen.e_tag
    if seen.version is not None:
        mode["version"] = seen.version
    return mode


def _version(meta: Any) -> Version:
    return Version(meta["e_tag"], meta["version"])


def _changed(url: Url) -> Changed:
    return Changed(
        f"{url} was written by someone else meanwhile, and is left as it is; the same command starts from it"
    )


def _chunk_size(size: int) -> int:
    return max(_CHUNK, -(-size // _MOST_PARTS))


def _refusal(url: Url, error: Exception) -> Exception | None:
    """Return what to raise for an error that would come again; None for one that may pass."""
    from obstore.exceptions import NotSupportedError, PermissionDeniedError, UnauthenticatedError
    from obstore.exceptions import UnknownConfigurationKeyError as UnknownKeyError

    text = str(error)
    code = next((one or two for one, two in _CODE.findall(text)), "")
    status = next(iter(_STATUS.findall(text)), "")
    needed = _VARIABLES[url.scheme]
    if _NO_CREDENTIALS.search(text):
        return RemoteError(f"{url}: no credentials; they are taken from the environment ({needed})")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in ("401", "403"):
        return RemoteError(f"{url}: access denied{f' ({code})' if code else ''}; see the credentials in {needed}")
    if _NO_BUCKET.search(text):
        return RemoteError(f"{url}: there is no bucket {url.bucket!r}")
    if "builder error" in text and not _allows_http():
        return RemoteError(f"{url}: the endpoint is plain http, which AWS_ALLOW_HTTP=true allows")
    if isinstance(error, (ValueError, NotSupportedError, UnknownKeyError)):
        return RemoteError(f"{url}: {_told(error)}")
    if status.startswith(("3", "4")) and status not in _PASSING_STATUSES and code not in _PASSING_CODES:
        return RemoteError(f"{url}: {_told(error)}")
    if "redirect" in text.lower():
        return RemoteError(f"{url}: {_told(error)}; is AWS_REGION the bucket's?")
    return None


def _told(error: Exception) -> str:
    """Return an error as part of a line, without what could be secret in it."""
    text = " ".join(str(error).split("\n\nDebug source")[0].split())
    code = next((one or two for one, two in _CODE.findall(text)), "")
    text = text.split("<?xml")[0].split("<Error")[0].rstrip(" :") + (f" ({code})" if code else "")
    text = re.sub(r"\?[^\s)]*", "", text)  # a query may be signed
    for name in _SECRETS:
        if len(secret := os.environ.get(name, "")) >= 4:
            text = text.replace(secret, "***")
    return text[:300] or type(error).__name__
