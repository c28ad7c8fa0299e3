"""The record of how a row came by its text, and its form as the `generation` column of the output."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

GENERATED, REUSED, KEPT, QUARANTINED, SKIPPED, PENDING = (
    "generated",  # by this run
    "reused",  # by an earlier run, carried over
    "kept",  # a person's words
    "quarantined",  # no text that could be used
    "skipped",  # not a product of its own: a variant's row under its product
    "pending",  # not reached before the deadline
)
EDITED = "edited"  # the flag of a generated text that a person changed in the published file


@dataclass(frozen=True, slots=True)
class Generation:
    """How a row came by its text. Fields that do not apply to its status are None."""

    status: str
    key: str | None = None
    model: str | None = None
    model_revision: str | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    finish_reason: str | None = None
    seed: int | None = None
    attempt: int | None = None
    bucket: int | None = None
    text_digest: str | None = None
    flags: tuple[str, ...] = ()
    generated_at: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A text that was not good enough; `failures` are the rules that it breaks, each as (rule, severity, reason)."""

    attempt: int
    text: str
    failures: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row that was not simply kept: its text, or None, and how it came by it.

    A quarantined row has all its `attempts`.
    """

    ordinal: int
    text: str | None
    generation: Generation
    attempts: tuple[Attempt, ...] = ()


def text_digest(text: str) -> str:
    """Return 16 hex digits by which a text that was changed since is known."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


GENERATION_TYPE = pa.struct(
    [
        pa.field("status", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("model", pa.string()),
        pa.field("model_revision", pa.string()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("generated_tokens", pa.int32()),
        pa.field("finish_reason", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("attempt", pa.int32()),
        pa.field("bucket", pa.int32()),
        pa.field("text_digest", pa.string()),
        pa.field("flags", pa.list_(pa.string())),
        pa.field("generated_at", pa.timestamp("us", tz="UTC")),
        pa.field("run_id", pa.string()),
    ]
)
