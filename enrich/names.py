"""Names: how the user calls what a run knows by a local path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Names:
    """Puts names that the user has given in place of those of local copies: `places` has them by local directory.

    The default changes nothing.
    """

    places: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        """Return a text, such as a path or a message, as the user would have it."""
        for local, told in self.places.items():
            text = text.replace(local, told)
        return text

    def of_all(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return options, of which those that are text are as the user has given them."""
        return {name: self(value) if isinstance(value, str) else value for name, value in values.items()}
