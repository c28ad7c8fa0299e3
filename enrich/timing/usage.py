"""What the engine spent on each bucket: rows, positions and seconds, for reports and for the next run's plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol


class Stats(Protocol):
    """What an engine counts; see `enrich.engine.protocol.EngineStats`."""

    prompt_tokens: int
    prefill_positions: int
    generated_tokens: int
    decode_positions: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one bucket took. Positions are those computed, tokens those of them that were wanted.

    `rows` counts those that were begun, `texts` the attempts at them.
    """

    rows: int = 0
    texts: int = 0
    prompt_tokens: int = 0
    prefill_positions: int = 0
    generated_tokens: int = 0
    decode_positions: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.rows + other.rows,
            self.texts + other.texts,
            self.prompt_tokens + other.prompt_tokens,
            self.prefill_positions + other.prefill_positions,
            self.generated_tokens + other.generated_tokens,
            self.decode_positions + other.decode_positions,
            self.seconds + other.seconds,
        )

    @property
    def padding_waste(self) -> float | None:
        """Share of the prompts' positions computed that held no token; None if none were computed."""
        return 1 - self.prompt_tokens / self.prefill_positions if self.prefill_positions else None

    @property
    def slot_use(self) -> float | None:
        """Share of the decoded positions that held a token of a text; None if nothing was decoded."""
        return self.generated_tokens / self.decode_positions if self.decode_positions else None

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens over the bucket's time; None if that was not measured."""
        return self.generated_tokens / self.seconds if self.seconds else None


class Meter:
    """Adds up the usage of each bucket as its batches are done."""

    def __init__(self) -> None:
        self.by_edge: dict[int, Usage] = {}
        self._last = (0, 0, 0, 0)

    def note(self, parts: Mapping[int, Usage], stats: Stats, seconds: float) -> None:
        """Count what one or several buckets took together, by what the statistics have grown since.

        `parts` are each bucket's rows, texts and tokens as far as they are finished. What is computed beside these is
        shared out by them, and so are the seconds.
        """
        now = (stats.prompt_tokens, stats.prefill_positions, stats.generated_tokens, stats.decode_positions)
        grown = [after - before for after, before in zip(now, self._last, strict=True)]
        self._last = now
        left, seconds_left = grown, seconds
        weights = {edge: part.prompt_tokens + part.generated_tokens for edge, part in parts.items()}
        weight_left = sum(weights.values())
        for edge, part in parts.items():
            share = weights[edge] / weight_left if weight_left else 1.0
            taken, own_seconds = [round(number * share) for number in left], seconds_left * share
            left = [number - own for number, own in zip(left, taken, strict=True)]
            weight_left, seconds_left = weight_left - weights[edge], seconds_left - own_seconds
            prompt, prefill, new, decode = taken
            usage = Usage(part.rows, part.texts, prompt, prefill, new, decode, own_seconds)
            self.by_edge[edge] = self.by_edge.get(edge, Usage()) + usage

    def as_list(self) -> list[dict[str, Any]]:
        """Return the usage in JSON's types, a dictionary for each bucket, narrowest first."""
        return [
            {"edge": edge} | asdict(usage) | {"seconds": round(usage.seconds, 3)}
            for edge, usage in sorted(self.by_edge.items())
        ]


def read_usage(values: Any) -> dict[int, Usage]:
    """Read what `Meter.as_list` has made; what is not of that form is left out."""
    found: dict[int, Usage] = {}
    for value in values if isinstance(values, list) else ():
        try:
            edge = int(value["edge"])
            found[edge] = found.get(edge, Usage()) + Usage(
                int(value["rows"]),
                int(value["texts"]),
                int(value["prompt_tokens"]),
                int(value["prefill_positions"]),
                int(value["generated_tokens"]),
                int(value["decode_positions"]),
                float(value["seconds"]),
            )
        except (KeyError, TypeError, ValueError):
            continue
    return found


def total_usage(parts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the usage of several runs' facts together, in JSON's types."""
    meter = Meter()
    for facts in parts:
        for edge, usage in read_usage(facts.get("buckets")).items():
            meter.by_edge[edge] = meter.by_edge.get(edge, Usage()) + usage
    return meter.as_list()
