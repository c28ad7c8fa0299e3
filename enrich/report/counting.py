"""Counting: the first reading of an output, every row of it, only the columns that are counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from enrich.batch_size import rows_at_once
from enrich.catalog import Products
from enrich.categories import Categories
from enrich.generation import EDITED, GENERATED, KEPT, QUARANTINED, REUSED
from enrich.quality.duplicates import Duplicates as NearDuplicates
from enrich.report.columns import add_up, mask_of, numbers_of, value_counts, words_in
from enrich.report.data import Category, DuplicateGroup, Duplicates, Row
from enrich.report.drawing import Draw, random_numbers
from enrich.report.opening import BATCH_ROWS, Output
from enrich.report.pace import Pace

_EXAMPLES = 3  # of each flag and reason
_MOST_QUARANTINED = 30
_KEPT_SHARE = 10  # of so many rows of the sample, one more that a person wrote
_NEAR_TEXTS = 2_000  # among which texts that are nearly the same are looked for
_TITLES = 4  # of each group
_GROUPS = 8  # of duplicates


def categories_of(output: Output) -> Categories:
    """Return the categories of the run, or the built-in ones if its own are not there any more."""
    directory = output.facts["config"].get("categories")
    return Categories(directory=Path(directory) if directory and Path(directory).is_dir() else None)


class Counting:
    """The first reading: every row is counted, and the rows to show are chosen."""

    def __init__(self, output: Output, sample: int, seed: int) -> None:
        self._output, self._seed = output, seed
        self._run_id = output.facts["summary"]["run_id"]
        self._categories = categories_of(output)
        self._names = [category.name for category in self._categories]
        self.num_rows = self.num_texts = 0
        self.statuses: Counter[str] = Counter()
        self.words, self.prompt_tokens, self.generated_tokens = (np.zeros(0, np.int64) for _ in range(3))
        self.finish_reasons: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self.flags: Counter[str] = Counter()
        self.flags_by_category: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.buckets: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))
        self.pace = Pace()
        self.sample, self.kept, self.quarantined = Draw(sample), Draw(sample // _KEPT_SHARE), Draw(_MOST_QUARANTINED)
        self.near = Draw(_NEAR_TEXTS)
        self.flagged: dict[str, Draw] = defaultdict(lambda: Draw(_EXAMPLES))
        # Of each category: rows, generated or reused, flagged, quarantined, words.
        self._of_category = np.zeros((len(self._names), 5), np.int64)
        self._digests: list[np.ndarray] = []
        self._digested: list[np.ndarray] = []
        self._groups: tuple[np.ndarray, np.ndarray] | None = None

    def read(self) -> None:
        """Read the whole file, only the columns that are counted."""
        roles = self._output.roles
        wanted = {
            roles.title, roles.id, roles.category, roles.general_category, self._output.text_column, "generation",
        }  # fmt: skip
        columns = [name for name in self._output.file.schema_arrow.names if name in wanted]
        bare = replace(roles, attributes=(), attribute_pairs=(), description=None)
        for batch in self._output.file.iter_batches(
            rows_at_once(self._output.file, BATCH_ROWS, columns), columns=columns
        ):
            products = Products(batch, bare, self.num_rows, f"{self._output.path}, from row {self.num_rows + 1}")
            self._count(batch, self._category_of(batch, products))
            self.num_rows += len(batch)
        self._find_groups()

    def _category_of(self, batch: pa.RecordBatch, products: Products) -> np.ndarray:
        """Return the number of each row's category; where its cells are plain text, each is looked at once."""
        names = [name for name in (self._output.roles.category, self._output.roles.general_category) if name]
        columns = [batch.column(name) for name in names]
        if not columns:
            return np.full(len(batch), self._number("default"))
        if not all(pa.types.is_string(column.type) or pa.types.is_large_string(column.type) for column in columns):
            return np.array([self._number(self._categories.of(product).name) for product in products])
        joined = pc.binary_join_element_wise(
            *(column.cast(pa.string()) for column in columns), "\0", null_handling="replace"
        )
        coded = joined.dictionary_encode()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        _, first = np.unique(codes, return_index=True)
        numbers = [self._number(self._categories.of(product).name) for product in products.at(first)]
        in_order: np.ndarray = np.array(numbers)[codes]
        return in_order

    def _number(self, name: str) -> int:
        return self._names.index(name)

    def _count(self, batch: pa.RecordBatch, category: np.ndarray) -> None:
        generation = batch.column("generation")
        text = batch.column(self._output.text_column).cast(pa.large_string())
        status = generation.field("status")
        ordinals = np.arange(self.num_rows, self.num_rows + len(batch))
        numbers = random_numbers(ordinals, self._seed)
        self.statuses.update(value_counts(status))
        is_model_s = mask_of(pc.and_(pc.is_in(status, pa.array([GENERATED, REUSED])), pc.is_valid(text)))
        is_quarantined = mask_of(pc.equal(status, QUARANTINED))
        trimmed = pc.fill_null(pc.utf8_trim_whitespace(text), "")
        words = words_in(text)
        self.num_texts += int(is_model_s.sum())
        self.words = add_up(self.words, words[is_model_s])
        self._count_texts(generation.filter(pa.array(is_model_s)))
        self._count_flags(generation.field("flags"), category, is_model_s, is_quarantined, numbers, ordinals)
        self.sample.offer(numbers[is_model_s], ordinals[is_model_s])
        self.near.offer(numbers[is_model_s], ordinals[is_model_s])
        self.quarantined.offer(numbers[is_quarantined], ordinals[is_quarantined])
        kept = mask_of(pc.and_(pc.equal(status, KEPT), pc.not_equal(trimmed, "")))
        self.kept.offer(numbers[kept], ordinals[kept])
        for column, values in enumerate((np.ones(len(batch)), is_model_s, None, is_quarantined, words * is_model_s)):
            if values is not None:
                self._of_category[:, column] += np.bincount(category, values, len(self._names)).astype(np.int64)
        plain = pc.replace_substring_regex(pc.utf8_lower(trimmed.filter(pa.array(is_model_s))), r"[\d\pP\pS\s]+", " ")
        self._digests.append(pl.Series(plain).hash().to_numpy())
        self._digested.append(ordinals[is_model_s])

    def _count_texts(self, made: pa.StructArray) -> None:
        prompt, new, edge = (numbers_of(made.field(n)) for n in ("prompt_tokens", "generated_tokens", "bucket"))
        self.prompt_tokens = add_up(self.prompt_tokens, prompt)
        self.generated_tokens = add_up(self.generated_tokens, new)
        self.finish_reasons.update(value_counts(made.field("finish_reason")))
        self.attempts.update(value_counts(made.field("attempt")))
        for one in np.unique(edge):
            chosen = edge == one
            self.buckets[int(one)] += [chosen.sum(), prompt[chosen].sum(), new[chosen].sum()]
        of_this_run = made.filter(pc.fill_null(pc.equal(made.field("run_id"), self._run_id), False))
        self.pace.add(of_this_run.field("generated_at"), of_this_run.field("generated_tokens"))

    def _count_flags(
        self,
        flags: pa.ListArray,
        category: np.ndarray,
        is_model_s: np.ndarray,
        is_quarantined: np.ndarray,
        numbers: np.ndarray,
        ordinals: np.ndarray,
    ) -> None:
        rows = pc.list_parent_indices(flags).to_numpy()
        names = flags.flatten()
        for name in names.unique().to_pylist():
            found = rows[mask_of(pc.equal(names, name))]
            in_texts, in_quarantine = found[is_model_s[found]], found[is_quarantined[found]]
            if len(in_quarantine):
                self.reasons[name] += len(in_quarantine)
            if len(in_texts):
                self.flags[name] += len(in_texts)
                self.flagged[name].offer(numbers[in_texts], ordinals[in_texts])
                for number, count in enumerate(np.bincount(category[in_texts])):
                    if count:
                        self.flags_by_category[name, self._names[number]] += int(count)
        flagged = np.unique(rows[mask_of(pc.not_equal(names, EDITED))]) if len(rows) else rows
        flagged = flagged[is_model_s[flagged]] if len(flagged) else flagged
        self._of_category[:, 2] += np.bincount(category[flagged], minlength=len(self._names))

    def categories(self) -> tuple[Category, ...]:
        """Return the categories that have rows, the largest first."""
        found = (
            Category(
                name,
                int(counts[0]),
                int(counts[1]),
                int(counts[2]),
                int(counts[3]),
                round(float(counts[4] / max(counts[1], 1)), 1),
            )
            for name, counts in zip(self._names, self._of_category, strict=True)
            if counts[0]
        )
        return tuple(sorted(found, key=lambda category: -category.rows))

    def _find_groups(self) -> None:
        digests = np.concatenate(self._digests) if self._digests else np.empty(0, np.uint64)
        ordinals = np.concatenate(self._digested) if self._digested else np.empty(0, np.int64)
        self._digests, self._digested = [], []
        values, counts = np.unique(digests, return_counts=True)
        shared = counts > 1
        self._num_groups, self._num_shared = int(shared.sum()), int(counts[shared].sum())
        largest = np.lexsort((values, -counts))[:_GROUPS]
        self._largest = [
            (int(counts[place]), ordinals[digests == values[place]][:_TITLES].tolist())
            for place in largest
            if counts[place] > 1
        ]

    def duplicates(self, rows: Mapping[int, Row]) -> Duplicates:
        """Return the groups of rows whose texts are the same."""
        groups = tuple(
            DuplicateGroup(count, rows[some[0]].text, tuple(rows[one].title for one in some))
            for count, some in self._largest
        )
        drawn = self.near.ordinals
        near = _near(drawn, rows)
        return Duplicates(
            self.num_texts, self._num_shared, self._num_groups, groups, len(drawn), sum(one.rows for one in near),
            near[:_GROUPS],
        )  # fmt: skip

    @property
    def shown(self) -> list[int]:
        """The ordinals of all rows that are shown anywhere, rising."""
        of_groups = [ordinal for _, some in self._largest for ordinal in some]
        return sorted({*of_groups, *self.near.ordinals, *self.shown_in_full})

    @property
    def shown_in_full(self) -> list[int]:
        """The ordinals of the rows that are shown with their facts marked."""
        draws = [self.sample, self.kept, self.quarantined, *self.flagged.values()]
        return [ordinal for draw in draws for ordinal in draw.ordinals]


def _near(drawn: Sequence[int], rows: Mapping[int, Row]) -> tuple[DuplicateGroup, ...]:
    """Return the groups of nearly the same texts among the rows drawn, the largest first, equal ones left out."""
    seen, members = NearDuplicates(), defaultdict(list)
    for ordinal in drawn:
        first = seen.add(ordinal, rows[ordinal].text)
        members[ordinal if first is None else first].append(rows[ordinal])
    found = (
        DuplicateGroup(len(group), group[0].text, tuple(row.title for row in group[:_TITLES]))
        for group in members.values()
        if len({row.text for row in group}) > 1
    )
    return tuple(sorted(found, key=lambda group: -group.rows))
