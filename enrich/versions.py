"""Versions of what takes part in a run."""

from __future__ import annotations

import platform
from importlib import metadata

import enrich


def versions() -> dict[str, str]:
    """Return the versions of the project, of Python and of the libraries on which texts and files depend."""
    libraries = ("polars", "pyarrow", "torch", "transformers")
    return {"enrich": enrich.__version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in libraries
    }
