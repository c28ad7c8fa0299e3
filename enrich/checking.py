"""Checking: the descriptions that a catalog has, whoever wrote them, held against the rules. No model is needed."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enrich.catalog import Catalog, RoleOptions
from enrich.categories import Categories
from enrich.product import Product
from enrich.quality import EMPTY, NEAR_DUPLICATE, RULES, Duplicates, Severity
from enrich.rulebooks import rulebooks


@dataclass(frozen=True)
class Example:
    """One text that breaks a rule; `row` counts from 1."""

    row: int
    id: str
    title: str
    reason: str


@dataclass(frozen=True)
class Broken:
    """How often one rule is broken, and some of the texts that do."""

    rule: str
    severity: str
    texts: int
    share: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Report:
    """What a check has found. `failing` texts break a rule whose severity is more than flag."""

    file: str
    rows: int
    texts: int
    failing: int
    flagged: int
    seconds: float
    rules: tuple[Broken, ...]

    @property
    def failing_share(self) -> float:
        """The share of the texts that fail."""
        return self.failing / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class Finding:
    """A text that breaks a rule, and in what."""

    product: Product
    rule: str
    severity: Severity
    reason: str


def findings(catalog: Catalog, categories: Categories, settings: Mapping[str, str], *, strict_facts: bool) -> Iterator[
    tuple[Product, list[Finding]]
]:  # fmt: skip
    """Yield each product that has a description, with what is wrong with that."""
    books = rulebooks(categories, settings, strict_facts=strict_facts)
    seen = Duplicates()
    for _, products in catalog.batches():
        for product in products:
            if not product.description:
                continue
            book = books[categories.of(product)]
            found = [
                Finding(product, failure.rule, failure.severity, failure.reason)
                for failure in book.judge(product.description, product).failures
            ]
            near = book.severities[NEAR_DUPLICATE]
            other = seen.add(product.ordinal, product.description) if near else None
            if other is not None:
                found.append(Finding(product, NEAR_DUPLICATE, near, f"is nearly that of row {other + 1}"))
            yield product, found


def check(
    path: Path,
    roles: RoleOptions,
    *,
    categories: Path | None = None,
    settings: Mapping[str, str] | None = None,
    strict_facts: bool = False,
    limit: int | None = None,
    examples: int = 3,
) -> Report:
    """Judge every description of a catalog. Raises CatalogError or ConfigError."""
    started = time.monotonic()
    catalog = Catalog(path, roles, limit=limit)
    texts = failing = flagged = rows = 0
    counts: Counter[str] = Counter()
    severities: dict[str, Severity] = {}
    shown: dict[str, list[Example]] = defaultdict(list)
    for product, found in findings(
        catalog, Categories(directory=categories), settings or {}, strict_facts=strict_facts
    ):
        texts += 1
        rows = product.ordinal + 1
        worst = max((one.severity for one in found), default=Severity.OFF)
        failing += worst >= Severity.RETRY
        flagged += Severity.OFF < worst < Severity.RETRY
        for one in found:
            counts[one.rule] += 1
            severities[one.rule] = max(severities.get(one.rule, Severity.OFF), one.severity)
            if len(shown[one.rule]) < examples:
                shown[one.rule].append(Example(product.ordinal + 1, product.id, product.title, one.reason))
    order = [EMPTY, *RULES]
    broken = (
        Broken(rule, str(severities[rule]), counts[rule], round(counts[rule] / texts, 4), tuple(shown[rule]))
        for rule in sorted(counts, key=order.index)
    )
    seconds = round(time.monotonic() - started, 3)
    return Report(str(path), rows, texts, failing, flagged, seconds, tuple(broken))
