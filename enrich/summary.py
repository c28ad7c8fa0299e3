"""What a run did, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_ADDED_UP = (
    "rows", "generated", "reused", "kept", "quarantined", "prompt_tokens", "generated_tokens", "resumed_rows", "edited",
    "skipped", "pending", "retried",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What a run did. Token counts are over the rows it generated, speed over those since it was last resumed.

    `retried` of the generated rows have the text of a later attempt than the first. `edited` of the kept rows have a
    text that a person changed in the published file. `unchanged` says that there was nothing to do and the published
    file was left as it is; `drift` how far the texts are from those of the output that was there (see
    `enrich.output.drift`), None if there was none.
    """

    rows: int
    generated: int
    reused: int
    kept: int
    quarantined: int
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    tokens_per_second: float
    padding_waste: float
    resumed_rows: int
    output: str
    run_id: str
    edited: int = 0
    skipped: int = 0
    pending: int = 0
    retried: int = 0
    unchanged: bool = False
    drift: float | None = None


def total(parts: Sequence[dict[str, Any]], *, output: str, seconds: float, run_id: str) -> Summary:
    """Return the summary of the whole from those of its shards."""
    totals: dict[str, Any] = {name: sum(part[name] for part in parts) for name in _ADDED_UP}
    tokens = totals["prompt_tokens"]
    wasted = sum(part["padding_waste"] * part["prompt_tokens"] for part in parts)
    return Summary(
        **totals,
        seconds=seconds,
        tokens_per_second=round(sum(part["tokens_per_second"] for part in parts), 1),
        padding_waste=round(wasted / tokens, 4) if tokens else 0.0,
        output=output,
        run_id=run_id,
    )
