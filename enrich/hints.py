"""Hints: the name that was likely meant by one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def likely(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """Return the one of the known names that is most like another, None if none is; `likeness` is from 0 to 1."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str, *, likeness: float = 0.6) -> str:
    """Return the end of a message about a name that does not exist: the likely one, or `otherwise`."""
    found = likely(name, known, likeness=likeness)
    return f"did you mean {found!r}?" if found else otherwise
