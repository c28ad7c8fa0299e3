"""The hub: models that have been fetched from it, and fetching one. huggingface_hub does the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enrich.errors import ModelError, one_line

# What is fetched of a model, and what of a directory its texts can depend on. No pickled weights, no code.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "enrich.toml")


@dataclass(frozen=True)
class Snapshot:
    """One version of a hub model on this machine; `revision` is its commit."""

    name: str
    revision: str
    directory: Path


def fetch(name: str, revision: str | None = None) -> Path:
    """Return a hub model's directory on this machine, its files fetched if they aren't here.

    Raises ModelError if it can't be had, with what to do.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    command = download_command(name, revision)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except GatedRepoError as error:
        raise ModelError(
            f"model {name}: its authors ask for consent; give it on https://huggingface.co/{name}, then `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"model {name}: the hub has no revision {revision} of it; see its page") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"model {name}: no embedded model, preset or directory, and not on the hub (a private one needs"
            " `hf auth login`); `enrich models` lists those that are here"
        ) from error
    except HFValidationError as error:
        raise ModelError(f"model {name}: no directory, and can't be a hub id: {one_line(error)}") from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub can't be reached"
        raise ModelError(
            f"model {name}: not on this machine, or not all of it, and {why}; fetch it with network access:"
            f" `{command}`; `enrich models` lists those that are here"
        ) from error
    except Exception as error:  # many kinds, of the network and the disk; all mean that it isn't to be had
        raise ModelError(f"model {name}: can't be fetched: {one_line(error)}; try `{command}`") from error


def cached(name: str, revision: str | None = None) -> Path | None:
    """Return a hub model's directory if it has been fetched; asks no one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def snapshots() -> Iterator[Snapshot]:
    """Yield the models in this machine's cache, by name: the version that `main` was at last, or else the newest."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, ValueError):  # none, or a file in its place
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id.lower()):
        if repo.repo_type == "model" and repo.revisions:
            best = max(repo.revisions, key=lambda one: ("main" in one.refs, one.last_modified))
            yield Snapshot(repo.repo_id, best.commit_hash, best.snapshot_path)


def download_command(name: str, revision: str | None = None) -> str:
    """Return the command that fetches a hub model."""
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")
