"""What a peer is asked to do, and the line of JSON that asks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

TEMPERATURE, TOP_K = 0.8, 50


@dataclass(frozen=True)
class Job:
    """Prompts as token ids, and how many new tokens each row asks for; no token ends a text before.

    `limit` is the most new tokens of any row, `batch` how many rows go through the model at once.
    """

    prompts: list[list[int]]
    new_tokens: list[int]
    limit: int
    sampled: bool
    batch: int

    def line(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(line: str) -> Job:
        """Read it from JSON."""
        return Job(**json.loads(line))

    def short(self) -> Job:
        """Return a few tokens of a few rows of it, to set up what is set up once."""
        few = [min(4, most) for most in self.new_tokens[:16]]
        return Job(self.prompts[:16], few, self.limit, self.sampled, self.batch)

    def batches(self) -> list[list[int]]:
        """Return the rows' indices by length of prompt, `batch` at a time, as who knows no better way does it."""
        order = sorted(range(len(self.prompts)), key=lambda row: len(self.prompts[row]))
        return [order[start : start + self.batch] for start in range(0, len(order), self.batch)]


Run = Callable[[Job], list[int] | tuple[list[int], dict[str, Any]]]
"""Does a job: returns how many tokens each row has got, and figures of its own if there are any."""


@dataclass(frozen=True)
class Peer:
    """A peer whose model is loaded: how to have it work, its version, and how it is set."""

    run: Run
    version: str
    setting: str = ""
