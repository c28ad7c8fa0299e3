"""What every engine is given and gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn.

    Temperature 0 takes the likeliest token; top_k 0, top_p 1 and min_p 0 leave all tokens in. min_p is the least
    probability, as a share of the likeliest token's (Nguyen et al. 2024). The repetition penalty is that of CTRL
    (Keskar et al. 2019, section 4.1). Like the ban on repeating no_repeat_ngram tokens in a row (0: none), it is on
    generated tokens only: a text may name what its prompt names. A text that has one of the strings of `stop` is done.
    """

    max_new_tokens: int = 128
    temperature: float = 0.4
    top_k: int = 50
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    min_p: float = 0.0
    no_repeat_ngram: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One row's prompt and the seed of its random stream; `attempt` picks another part of the stream.

    `max_new_tokens` cuts this row shorter than the parameters would; `forbidden` token ids are never drawn.
    """

    prompt_token_ids: tuple[int, ...]
    seed: int
    attempt: int = 1
    max_new_tokens: int | None = None
    forbidden: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """The generated token ids without the end-of-text token; `finish_reason` is `stop` or `length`.

    A text that was stopped by a string ends with the token that completed it.
    """

    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass
class EngineStats:
    """Positions computed, and how many of them held a token that was wanted; how many workers compute them."""

    prompt_tokens: int = 0
    prefill_positions: int = 0
    generated_tokens: int = 0
    decode_positions: int = 0
    workers: int = 1
    _in_flight: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(
        self, prompt_tokens: int = 0, prefill_positions: int = 0, generated_tokens: int = 0, decode_positions: int = 0
    ) -> None:
        """Add to the counts; threads of an engine may do so at the same time."""
        with self._lock:
            self.prompt_tokens += prompt_tokens
            self.prefill_positions += prefill_positions
            self.generated_tokens += generated_tokens
            self.decode_positions += decode_positions

    def note_slots(self, slots: int, active: int, worker: int | None = None) -> None:
        """Note how many rows a worker computes at once just now, and how many of them have a text to be written.

        Without one, it is this thread that computes.
        """
        with self._lock:
            self._in_flight[threading.get_ident() if worker is None else worker] = (slots if active else 0, active)

    @property
    def slots(self) -> int:
        """Rows that are computed at once just now, by all threads and workers."""
        with self._lock:
            return sum(slots for slots, _ in self._in_flight.values())

    @property
    def active_slots(self) -> int:
        """How many of the slots have a text that is not done."""
        with self._lock:
            return sum(active for _, active in self._in_flight.values())

    @property
    def padding_waste(self) -> float:
        """Share of the prefilled positions that held no token of a row's prompt."""
        return 1 - self.prompt_tokens / self.prefill_positions if self.prefill_positions else 0.0

    @property
    def decode_waste(self) -> float:
        """Share of the decoded positions whose row had finished, or was filler."""
        return 1 - self.generated_tokens / self.decode_positions if self.decode_positions else 0.0


def always() -> bool:
    """Say yes."""
    return True


class Engine(Protocol):
    """Generates the rows of one bucket at a time."""

    stats: EngineStats
    pads: bool  # whether prompts are computed as wide as their bucket, so that buckets must not be wide

    def generate(
        self,
        requests: Sequence[Request],
        width: int,
        batch_rows: int,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index into `requests`, completion) as rows finish.

        Requests that are appended while rows finish are generated as well, beside the others.
        Prompts are computed `width` positions wide, at most `batch_rows` at once. No row is begun unless
        `may_begin()`; those in flight are finished. Ends early, without the rows in flight, once `should_stop()`.
        Raises TryAgain if not even the smallest batch fits into memory, ModelError if scores are no numbers.
        """
