"""Staging: a run on remote storage is a run on local copies, with its checkpoint mirrored and its files sent back.

The job and its stages know local paths only. What is remote is copied into a directory of the run's own; each commit of
the checkpoint is sent before the run goes on, so that a run killed anywhere is gone on with from anywhere; what the job
has published locally is sent when it has ended well, the output last.

In the bucket, a checkpoint is `<output>.checkpoint/manifest.jsonl`, which lists the parts that count, and beside it the
parts, under the run's id: a run that begins anew takes the place of another in one step, with its manifest.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock

from enrich.checkpoint import MANIFEST, PROGRESS, SURVEY, WITHHELD, Checkpoint, listed_parts
from enrich.config import RunConfig
from enrich.errors import CatalogError, EnrichError, Interrupted, TooManyQuarantined, TooMuchDrift, TryAgain
from enrich.names import Names
from enrich.output.quarantine import quarantine_path
from enrich.storage.lease import Lease
from enrich.storage.remote import Remote, Version, check_available
from enrich.storage.url import Url, is_remote

log = logging.getLogger("enrich")

CHECKPOINT, LEFT_BEHIND = ".checkpoint", ".checkpoint.old"
_AT_ONCE = 8  # small objects fetched or sent
_PREFIX = "enrich-work-"


@dataclass(frozen=True)
class Stage:
    """What a run on remote storage is given in place of it.

    `config` names the local copies, `names` what the user calls them, `after_commit` sends the checkpoint.
    """

    config: RunConfig
    names: Names = field(default_factory=Names)
    after_commit: Callable[[Checkpoint, Path | None], None] | None = None


@contextmanager
def staged(
    config: RunConfig, should_stop: Callable[[], int] = lambda: 0, *, reads_only: bool = False
) -> Iterator[Stage]:
    """Lend local copies of what a configuration has in remote storage, and send back what the run has published.

    With `reads_only` nothing is sent, nor locked. A configuration without anything remote is lent as it is. Errors and
    log messages that pass through name the URLs. Raises TryAgain if another run has the output or has published
    meanwhile, Interrupted if asked to stop while something large is copied, and what `enrich.storage.remote` raises.
    """
    if not config.is_remote:
        yield Stage(config)
        return
    check_available()  # before anything is made

    def stop_if_asked() -> None:
        if number := should_stop():
            raise Interrupted(number, "stopped while copying to or from remote storage; the same command goes on")

    with ExitStack() as stack:
        work = stack.enter_context(work_directory(config.work_dir))
        places = {name: Url.parse(told) for name, told in config.places().items() if told and is_remote(told)}
        local = {name: _made(work / name) / url.name for name, url in places.items()}
        names = Names({str(work / name): url.parent for name, url in places.items()})
        stack.enter_context(named(names))
        copies = _Copies(Remote(stop_if_asked), local, places)
        mirror = None
        if (output := places.get("output")) is not None and not reads_only:
            # The mirror and the lock go on when a run is asked to stop: what is done is committed.
            lease = stack.enter_context(Lease(Remote(), output))
            mirror = _Mirror(Remote(), lease, output, local["output"])
        copies.pull()
        if mirror is not None and not config.restart:
            mirror.pull()
        copied: dict[str, Any] = {name: str(path) for name, path in local.items()}
        lent = replace(config, **copied)
        try:
            yield Stage(lent, names, mirror.after_commit if mirror else None)
        except TryAgain as error:
            # Time was up, and what there is has been published; the checkpoint stays, for the rest.
            if error.summary is not None and not reads_only:
                copies.push(mirror)
            raise
        except (TooManyQuarantined, TooMuchDrift):
            if mirror is not None:
                mirror.send_withheld()
            raise
        if not reads_only:
            copies.push(mirror)
        if mirror is not None:
            mirror.remove()


@contextmanager
def fetched(place: str | Path, *, with_quarantine: bool = False) -> Iterator[Path]:
    """Lend a local copy of a remote file to read; a local one is lent as it is. Raises CatalogError if there is none.

    With the quarantine file beside an output, if there is one, lend that beside the copy.
    """
    if not isinstance(place, str) or not is_remote(place):
        yield Path(place)
        return
    url = Url.parse(place)
    with work_directory(None) as work, named(Names({str(work): url.parent})):
        remote = Remote()
        if remote.download(url, work / url.name) is None:
            raise CatalogError(f"{url}: there is no such object")
        if with_quarantine:
            path = quarantine_path(work / url.name)
            if remote.download(url.with_name(path.name), path) is None:
                path.unlink(missing_ok=True)
        yield work / url.name


@contextmanager
def lent_to_send(place: str | Path) -> Iterator[Path]:
    """Lend a path to write a file under that is sent to a URL then; a local place is lent as it is."""
    if not isinstance(place, str) or not is_remote(place):
        yield Path(place)
        return
    url = Url.parse(place)
    with work_directory(None) as work, named(Names({str(work): url.parent})):
        yield work / url.name
        Remote().upload(work / url.name, url)


@contextmanager
def work_directory(parent: str | None) -> Iterator[Path]:
    """Make a directory that only this user can read, and remove it in the end; what killed runs left goes as well."""
    directory = Path(parent or tempfile.gettempdir())
    for left in directory.glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))
    with filelock.FileLock(work / ".lock"):
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _remove_if_left(directory: Path) -> None:
    lock_file = directory / ".lock"
    try:
        if not lock_file.is_file():  # another user's, or one that is just being made
            return
        with filelock.FileLock(lock_file, timeout=0):
            shutil.rmtree(directory, ignore_errors=True)
    except (filelock.Timeout, OSError):
        return


@contextmanager
def named(names: Names) -> Iterator[None]:
    """Put the user's names into the log messages and errors that pass."""

    def rename(record: logging.LogRecord) -> bool:
        record.msg, record.args = names(record.getMessage()), ()
        return True

    log.addFilter(rename)
    try:
        yield
    except EnrichError as error:
        error.args = (names(str(error)),)
        raise
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = names(error.filename)
        raise
    finally:
        log.removeFilter(rename)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


class _Copies:
    """Local copies of remote files: those of a run's places, and the quarantine files beside them."""

    def __init__(self, remote: Remote, local: dict[str, Path], places: dict[str, Url]) -> None:
        self._remote, self._local, self._places = remote, local, places
        self._pulled: dict[Path, str] = {}  # what came, as hashes
        self._seen: Version | None = None  # the output's

    def pull(self) -> None:
        """Fetch what a run reads. Raises CatalogError if the catalog is not there."""
        for name in ("catalog", "previous", "output"):
            if name in self._places:
                url, path = self._places[name], self._local[name]
                seen = self._fetch(url, path)
                if name == "catalog" and seen is None:
                    raise CatalogError(f"{url}: there is no such object")
                if name == "output":
                    self._seen = seen
                if name != "catalog":
                    beside = quarantine_path(path)
                    self._fetch(url.with_name(beside.name), beside)

    def _fetch(self, url: Url, path: Path) -> Version | None:
        seen = self._remote.download(url, path)
        if seen is None:
            path.unlink(missing_ok=True)
        else:
            log.debug("fetched %s, %s bytes", url, f"{path.stat().st_size:,}")
            self._pulled[path] = _hash(path)
        return seen

    def push(self, mirror: _Mirror | None) -> None:
        """Send what the run has published in the order in which it does: the output last, if nobody else has meanwhile.

        What it has left as it was is not sent.
        """
        output = self._places.get("output")
        sends_output = output is not None and self._is_new(self._local["output"])
        if mirror is not None:
            mirror.check()
        if output is not None and sends_output:
            self._remote.check_still(output, self._seen)  # or the others would be sent for nothing
        if "changes" in self._places:
            self._send(self._local["changes"], self._places["changes"])
        if output is not None:
            quarantine = quarantine_path(self._local["output"])
            self._send(quarantine, output.with_name(quarantine.name))
        if "report" in self._places:
            self._send(self._local["report"], self._places["report"])
        if output is not None and sends_output:
            if mirror is not None:
                mirror.check()
            self._remote.upload_over(self._local["output"], output, self._seen)
            log.debug("sent %s", output)

    def _is_new(self, path: Path) -> bool:
        return path.is_file() and self._pulled.get(path) != _hash(path)

    def _send(self, path: Path, url: Url) -> None:
        if self._is_new(path):
            self._remote.upload(path, url)
            log.debug("sent %s", url)
        elif path in self._pulled and not path.exists():
            self._remote.delete(url)


class _Mirror:
    """Keeps a remote copy of the checkpoint of a remote output: whatever it lists is there, whole."""

    def __init__(self, remote: Remote, lease: Lease, output: Url, local_output: Path) -> None:
        self._remote, self._lease = remote, lease
        self._url, self._old_url = output.with_suffix(CHECKPOINT), output.with_suffix(LEFT_BEHIND)
        self._directory = local_output.with_name(local_output.name + CHECKPOINT)
        self._old = local_output.with_name(local_output.name + LEFT_BEHIND)
        self._manifest: Version | None = None
        self._known: set[Url] = set()
        self._unsent: dict[Path, Url] = {}
        self._begun = False
        self._content = b""
        found = remote.read(self._url / MANIFEST)
        if found is not None:
            self._content, self._manifest = found

    def check(self) -> None:
        """Raise TryAgain if another run may be writing the output by now."""
        self._lease.check()

    def pull(self) -> None:
        """Fetch the checkpoint that an earlier run has left, and what that one had found of others."""
        wanted = {entry.url: self._old / entry.url.name for entry in self._remote.below(self._old_url)}
        if wanted:
            self._old.mkdir()
        if self._manifest is not None:
            self._directory.mkdir()
            (self._directory / MANIFEST).write_bytes(self._content)
            run_id = Checkpoint.run_id_of(self._directory)
            if run_id is not None:
                parts = self._url / run_id
                names = [*listed_parts(self._directory), SURVEY]
                wanted |= {parts / name: self._directory / name for name in names}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            versions = pool.map(self._remote.download, wanted.keys(), wanted.values())
            # A part that is gone is missed, and told of, when the checkpoint is opened; a survey is made again.
            self._known = {url for url, version in zip(wanted, versions, strict=True) if version is not None}
        if wanted:
            log.info("fetched the checkpoint %s, %s files", self._url, f"{len(self._known):,}")

    def after_commit(self, checkpoint: Checkpoint, part: Path | None) -> None:
        """Send a part, or the survey, and then the manifest that lists it; the first time, all there is."""
        self._lease.check()
        mine = self._url / checkpoint.run_id
        if part is not None:
            self._unsent[part] = mine / part.name
        if not self._begun:
            self._unsent |= {path: self._old_url / path.name for path in self._old.glob("*.parquet")}
            self._unsent |= {path: mine / path.name for path in self._directory.glob("*.parquet")}
        self._send()
        progress = self._directory / PROGRESS
        if progress.is_file():
            self._remote.write(self._url / PROGRESS, progress.read_bytes())
        content = (self._directory / MANIFEST).read_bytes()
        if self._manifest is None or content != self._content:
            self._manifest = self._remote.replace(self._url / MANIFEST, content, self._manifest)
            self._content = content
        if not self._begun:  # what other runs had listed is listed no more
            kept = {mine / path.name for path in self._directory.iterdir()} | {
                self._url / MANIFEST,
                self._url / PROGRESS,
            }
            kept |= {self._old_url / path.name for path in self._old.glob("*.parquet")}
            for entry in [*self._remote.below(self._url), *self._remote.below(self._old_url)]:
                if entry.url not in kept:
                    self._remote.delete(entry.url)
        self._begun = True

    def send_withheld(self) -> None:
        """Send an output that was withheld, and why its rows were, to lie with the checkpoint."""
        self._lease.check()
        withheld = self._directory / WITHHELD
        for path in (withheld, quarantine_path(withheld)):
            if path.is_file():
                self._remote.upload(path, self._url / path.name)

    def _send(self) -> None:
        """Send the parts that are not there yet; those that can't be sent now are sent before the next."""
        new = {path: url for path, url in self._unsent.items() if url not in self._known}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._remote.upload, new.keys(), new.values()))
        self._known |= set(new.values())
        self._unsent.clear()

    def remove(self) -> None:
        """Remove the remote checkpoint, manifest first, once the run has removed its own and its output is sent."""
        if self._directory.exists():
            return
        if self._manifest is not None:
            self._remote.delete(self._url / MANIFEST)
        for entry in [*self._remote.below(self._url), *self._remote.below(self._old_url)]:
            self._remote.delete(entry.url)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
