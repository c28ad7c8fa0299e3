from __future__ import annotations

from itertools import pairwise

from enrich.quality.verdict import Failure, Severity, Verdict


def verdict(*severities: Severity) -> Verdict:
    return Verdict(tuple(Failure(f"rule_{n}", severity, "why") for n, severity in enumerate(severities)))


def test_the_best_attempt_is_the_one_with_the_least_severe_failures_then_with_the_fewest() -> None:
    from_best = [
        verdict(),
        verdict(Severity.FLAG),
        verdict(Severity.FLAG, Severity.FLAG),
        verdict(Severity.AGAIN),
        verdict(Severity.AGAIN, Severity.FLAG, Severity.FLAG),
        verdict(Severity.RETRY),
        verdict(Severity.FLAG, Severity.RETRY),
        verdict(Severity.RETRY, Severity.RETRY),
        verdict(Severity.QUARANTINE),
    ]
    assert all(better.rank < worse.rank for better, worse in pairwise(from_best))
    assert verdict(Severity.RETRY, Severity.FLAG).rank == verdict(Severity.FLAG, Severity.RETRY).rank
    assert [one.accepted for one in from_best] == [True] * 5 + [False] * 4
    assert [one.is_good for one in from_best] == [True] * 3 + [False] * 6
