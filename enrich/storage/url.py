"""URLs of objects in remote storage: which there are, taken apart and put together, without what would serve them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from enrich.errors import ConfigError

SCHEMES = ("s3", "gs", "az")
_REMOTE = re.compile(rf"({'|'.join(SCHEMES)})://", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_remote(path: str | os.PathLike[str] | None) -> bool:
    """Say whether a path as a user gives it names an object in remote storage."""
    return isinstance(path, str) and _REMOTE.match(path) is not None


def is_url(path: str | None) -> bool:
    """Say whether a path looks like a URL, of remote storage or not."""
    return path is not None and _ANY_SCHEME.match(path) is not None


@dataclass(frozen=True)
class Url:
    """An object's URL: the scheme says where, the bucket (az: the container) and the key which."""

    scheme: str
    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Take a URL apart, its key as it stands. Raises ConfigError for what can't be an object's."""
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if "@" in bucket or ":" in bucket:
            # Not even repeated: what stands there is a password.
            raise ConfigError(f"a {scheme}:// URL has no place for credentials; they are taken from the environment")
        if "?" in key or "#" in key:
            raise ConfigError(f"a {scheme}:// URL has no place for a query, which may be signed, or a fragment")
        if scheme.lower() not in SCHEMES:
            raise ConfigError(f"{text!r}: can be {', '.join(f'{name}://' for name in SCHEMES)}")
        if not bucket or urlsplit(f"{scheme}://{bucket}").hostname is None:
            raise ConfigError(f"{text!r}: names no bucket, as in s3://bucket/catalog.csv")
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise ConfigError(f"{text!r}: must name an object, as in s3://bucket/catalog.csv, without empty parts")
        return cls(scheme.lower(), bucket, key)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """What stands behind the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """What stands before the last slash."""
        return str(self).rpartition("/")[0]

    def with_name(self, name: str) -> Url:
        """Return the URL of the object of that name beside this one."""
        return replace(self, key="".join(self.key.rpartition("/")[:2]) + name)

    def with_suffix(self, suffix: str) -> Url:
        """Return the URL with something put behind its name."""
        return replace(self, key=self.key + suffix)

    def __truediv__(self, name: str) -> Url:
        return replace(self, key=f"{self.key}/{name}")
