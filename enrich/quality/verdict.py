"""A verdict: what is wrong with a text, how badly, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """What follows from a rule that a text breaks."""

    OFF = 0
    FLAG = 1  # noted
    AGAIN = 2  # the text is generated again; if no attempt is better, it is published, and that noted
    RETRY = 3  # the text is generated again; if no attempt is free of such failures, the row is quarantined
    QUARANTINE = 4  # the row is quarantined at once: for what a person has to see

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Failure:
    """A rule that a text breaks, and in what: "says walnut, the row oak"."""

    rule: str
    severity: Severity
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All failures of one text, in the rules' order."""

    failures: tuple[Failure, ...] = ()

    @property
    def severity(self) -> Severity:
        """The worst of the failures, OFF if there is none."""
        return max((failure.severity for failure in self.failures), default=Severity.OFF)

    @property
    def accepted(self) -> bool:
        """Whether the text can be published."""
        return self.severity < Severity.RETRY

    @property
    def is_good(self) -> bool:
        """Whether another attempt is not worth its while."""
        return self.severity < Severity.AGAIN

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules broken."""
        return tuple(failure.rule for failure in self.failures)

    @property
    def rank(self) -> tuple[int, ...]:
        """By which the best of several attempts is told: least severe failures, then fewest. Lower is better."""
        severities = [failure.severity for failure in self.failures]
        return tuple(severities.count(level) for level in sorted(Severity, reverse=True) if level)
