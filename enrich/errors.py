"""What can go wrong, and the exit code that tells a scheduler about it.

EnrichError
├── ConfigError (2)             an option, a configuration file, a template
├── CatalogError (2)            the catalog can't be read or mapped
├── ModelError (2)              the model can't be found, or may not be loaded
├── RemoteError (2)             remote storage refuses: no such bucket or object, no credentials, access denied
├── CheckpointMismatch (2)      the checkpoint on disk belongs to another run
├── TooManyQuarantined (3)      too many rows came by no usable text; nothing was published
├── TooMuchDrift (3)            the texts differ too much from last night's; nothing was published
├── ReconciliationError (4)     rows in and rows out differ; nothing was published
├── TryAgain (75)               locked by another run, out of time or of a resource: a rerun resumes
└── Interrupted (128 + signal)  stopped from outside; what was done is committed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enrich.summary import Summary


class EnrichError(Exception):
    """Base of every error that is reported as one line, without a traceback."""

    exit_code = 2


class ConfigError(EnrichError):
    """An option has a value that can't be used."""


class CatalogError(EnrichError):
    """A catalog can't be read, or its columns can't be mapped to roles."""


class ModelError(EnrichError):
    """A model isn't there, is incomplete, or would need unsafe loading."""


class RemoteError(EnrichError):
    """Remote storage refuses, and would again: no such bucket or object, no credentials, access denied."""


class CheckpointMismatch(EnrichError):
    """The checkpoint was made from another catalog or with other options."""


class TooManyQuarantined(EnrichError):
    """More rows than allowed came by no usable text, so the output was withheld."""

    exit_code = 3


class TooMuchDrift(EnrichError):
    """The texts differ more from the last output's than allowed, so the output was withheld."""

    exit_code = 3


class ReconciliationError(EnrichError):
    """Rows in and rows out differ, so the output was withheld."""

    exit_code = 4


class TryAgain(EnrichError):
    """Something temporary is in the way; the same command later goes on from here.

    `summary` is that of a run that has published what it could before.
    """

    exit_code = 75

    def __init__(self, message: str, summary: Summary | None = None) -> None:
        super().__init__(message)
        self.summary = summary


class Interrupted(EnrichError):
    """The run was asked to stop by a signal and has committed what was done."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def one_line(error: BaseException) -> str:
    """Return another library's error as part of a line: without line ends, and not too long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
