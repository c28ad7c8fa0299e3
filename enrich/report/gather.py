"""Gathering: an output read twice in bounded memory, once to count, once for the rows that are shown.

Which rows are shown follows from a seed and their positions alone, so that the same file gives the same report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from enrich.batch_size import rows_at_once
from enrich.catalog import Products, Roles
from enrich.categories import Categories
from enrich.categories import Category as OfCategory
from enrich.errors import CatalogError, ConfigError
from enrich.generation import EDITED, GENERATED, GENERATION_TYPE, KEPT, PENDING, QUARANTINED, REUSED, SKIPPED
from enrich.output import METADATA_KEY, read_facts
from enrich.output.drift import Profile
from enrich.output.quarantine import quarantine_path, read_quarantine
from enrich.product import Attribute, Product
from enrich.quality import Rulebook
from enrich.quality.duplicates import Duplicates as NearDuplicates
from enrich.quality.highlight import highlight
from enrich.report import histograms
from enrich.report.data import (
    Attempt,
    BucketUse,
    Category,
    Count,
    Drift,
    DuplicateGroup,
    Duplicates,
    Figure,
    Flag,
    Histogram,
    Quarantine,
    Quarantined,
    Report,
    Row,
)
from enrich.report.pace import Pace
from enrich.rulebooks import rulebooks
from enrich.timing.usage import read_usage

STATUSES = (GENERATED, REUSED, KEPT, QUARANTINED, SKIPPED, PENDING)
_BATCH_ROWS = 16_384
_EXAMPLES = 3  # of each flag and reason
_MOST_QUARANTINED = 30
_KEPT_SHARE = 10  # of so many rows of the sample, one more that a person wrote
_GROUPS = 8  # of duplicates
_NEAR_TEXTS = 2_000  # among which texts that are nearly the same are looked for
_TITLES = 4  # of each group
_LONGEST_TEXT = 2_000  # characters shown of one
_LONGEST_CELL = 200
_MOST_ATTRIBUTES = 12


@dataclass(frozen=True)
class Output:
    """An enriched file that is open, and what its run said of itself."""

    path: Path
    file: pq.ParquetFile
    facts: dict[str, Any]

    @property
    def roles(self) -> Roles:
        """The columns' roles."""
        told = dict(self.facts["roles"])
        told["attributes"] = tuple(told.get("attributes") or ())
        told["attribute_pairs"] = tuple((name, value) for name, value in told.get("attribute_pairs") or ())
        return Roles(**told)

    @property
    def text_column(self) -> str:
        """The column that received the texts."""
        return str(self.facts["config"]["output_column"])


def open_output(path: Path) -> Output:
    """Open an enriched file. Its content stays readable if another is put in its place.

    Raises CatalogError if it is not there, no Parquet file, or not written by `enrich run`.
    """
    if not path.is_file():
        raise CatalogError(f"{path}: no such file; `enrich run` writes it")
    try:
        facts = read_facts(path)
        file = pq.ParquetFile(path.open("rb"), pre_buffer=False)
    except (pa.ArrowException, ValueError) as error:
        raise CatalogError(f"{path}: can't be read as Parquet: {str(error).splitlines()[0]}") from error
    if not {"summary", "roles", "config"} <= facts.keys() or "generation" not in file.schema_arrow.names:
        raise CatalogError(f"{path}: not written by `enrich run`, it has no metadata {METADATA_KEY!r}")
    output = Output(path, file, facts)
    try:
        columns = {output.roles.title, output.text_column}
        whole = columns <= set(file.schema_arrow.names) and {"rows", "run_id", "unchanged"} <= facts["summary"].keys()
    except (KeyError, TypeError, ValueError, AttributeError):
        whole = False
    if not whole or file.schema_arrow.field("generation").type != GENERATION_TYPE:
        raise CatalogError(f"{path}: its metadata {METADATA_KEY!r} are not those of this file; run `enrich run` again")
    return output


def gather(output: Output, *, before: Output | None = None, sample: int = 300, seed: int = 0) -> Report:
    """Count what is in an output and draw the rows to show.

    `before` is the output of the night before: its texts stand beside the sample's, found by product id, and its
    distribution of lengths beside tonight's. Raises CatalogError if rows can't be read.
    """
    counting = _Counting(output, sample, seed)
    counting.read()
    rows = _Shown(output, counting, before).rows
    attempts = _attempts(output, {rows[ordinal].row: rows[ordinal] for ordinal in counting.quarantined.ordinals})
    summary, facts = output.facts["summary"], output.facts
    statuses = tuple(Count(name, counting.statuses[name]) for name in STATUSES if counting.statuses[name])
    texts = counting.num_texts
    words = histograms.of(counting.words)
    return Report(
        output=str(output.path),
        sentence=_sentence(facts, counting.num_rows),
        reconciliation=f"{summary['rows']:,} rows in = "
        + (" + ".join(f"{count.rows:,} {count.name}" for count in statuses) or "0"),
        reconciles=counting.num_rows == summary["rows"]
        and (summary["unchanged"] or all(counting.statuses[name] == summary.get(name, 0) for name in STATUSES)),
        rows=counting.num_rows,
        statuses=statuses,
        summary=summary,
        categories=counting.categories(),
        throughput=counting.pace.throughput(),
        buckets=_buckets(counting, facts),
        prompt_tokens=histograms.of(counting.prompt_tokens),
        generated_tokens=histograms.of(counting.generated_tokens),
        words=words,
        finish_reasons=_counts(counting.finish_reasons),
        attempts=tuple(Count(str(number), rows) for number, rows in sorted(counting.attempts.items())),
        flags=tuple(
            Flag(
                name,
                number,
                round(number / max(texts, 1), 4),
                _counts({category: n for (flag, category), n in counting.flags_by_category.items() if flag == name}),
                tuple(rows[ordinal] for ordinal in counting.flagged[name].ordinals),
            )
            for name, number in counting.flags.most_common()
        ),
        quarantine=Quarantine(
            counting.statuses[QUARANTINED],
            _counts(counting.reasons),
            tuple(Quarantined(rows[ordinal], attempts[ordinal + 1]) for ordinal in counting.quarantined.ordinals),
        ),
        drift=_drift(facts, before),
        duplicates=counting.duplicates(rows),
        sample=tuple(rows[ordinal] for ordinal in sorted((*counting.sample.ordinals, *counting.kept.ordinals))),
        sample_seed=seed,
        configuration={name: value for name, value in facts["config"].items() if value not in (None, [])},
        roles={name: value for name, value in facts["roles"].items() if value},
        model=facts.get("model", {}) | {name: facts[name] for name in ("device", "dtype") if name in facts},
        versions=facts.get("versions", {}),
        finished_at=facts.get("finished_at"),
    )


def _categories(output: Output) -> Categories:
    """Return the categories of the run, or the built-in ones if its own are not there any more."""
    directory = output.facts["config"].get("categories")
    return Categories(directory=Path(directory) if directory and Path(directory).is_dir() else None)


def _rulebooks(output: Output, categories: Categories) -> dict[OfCategory, Rulebook]:
    told = output.facts["config"]
    settings = (setting.partition("=") for setting in told.get("rules") or ())
    strict = bool(told.get("strict_facts"))
    try:
        return rulebooks(categories, {name: value for name, _, value in settings}, strict_facts=strict)
    except ConfigError:  # of another version, or another set of categories
        return rulebooks(categories, {})


class _Draw:
    """Keeps the rows with the smallest random numbers, which are a fair sample of all that were offered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = np.empty(0, np.uint64)
        self._ordinals = np.empty(0, np.int64)

    def offer(self, numbers: np.ndarray, ordinals: np.ndarray) -> None:
        numbers, ordinals = np.append(self._numbers, numbers), np.append(self._ordinals, ordinals)
        if len(numbers) > self._most:
            chosen = np.argsort(numbers, kind="stable")[: self._most]
            numbers, ordinals = numbers[chosen], ordinals[chosen]
        self._numbers, self._ordinals = numbers, ordinals

    @property
    def ordinals(self) -> list[int]:
        return sorted(self._ordinals.tolist())


def _random(ordinals: np.ndarray, seed: int) -> np.ndarray:
    """Return a random 64-bit number for each row (SplitMix64), the same however the file is cut into batches."""
    with np.errstate(over="ignore"):
        z = ordinals.astype(np.uint64) + np.uint64(seed % 2**63) * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


class _Counting:
    """The first reading: every row is counted, and the rows to show are chosen."""

    def __init__(self, output: Output, sample: int, seed: int) -> None:
        self._output, self._seed = output, seed
        self._run_id = output.facts["summary"]["run_id"]
        self._categories = _categories(output)
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
        self.sample, self.kept, self.quarantined = _Draw(sample), _Draw(sample // _KEPT_SHARE), _Draw(_MOST_QUARANTINED)
        self.near = _Draw(_NEAR_TEXTS)
        self.flagged: dict[str, _Draw] = defaultdict(lambda: _Draw(_EXAMPLES))
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
            rows_at_once(self._output.file, _BATCH_ROWS, columns), columns=columns
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
        numbers = _random(ordinals, self._seed)
        self.statuses.update(_value_counts(status))
        is_model_s = _mask(pc.and_(pc.is_in(status, pa.array([GENERATED, REUSED])), pc.is_valid(text)))
        is_quarantined = _mask(pc.equal(status, QUARANTINED))
        trimmed = pc.fill_null(pc.utf8_trim_whitespace(text), "")
        words = pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy(zero_copy_only=False)
        words = np.where(_mask(pc.equal(trimmed, "")), 0, words)
        self.num_texts += int(is_model_s.sum())
        self.words = _add(self.words, words[is_model_s])
        self._count_texts(generation.filter(pa.array(is_model_s)))
        self._count_flags(generation.field("flags"), category, is_model_s, is_quarantined, numbers, ordinals)
        self.sample.offer(numbers[is_model_s], ordinals[is_model_s])
        self.near.offer(numbers[is_model_s], ordinals[is_model_s])
        self.quarantined.offer(numbers[is_quarantined], ordinals[is_quarantined])
        kept = _mask(pc.and_(pc.equal(status, KEPT), pc.not_equal(trimmed, "")))
        self.kept.offer(numbers[kept], ordinals[kept])
        for column, values in enumerate((np.ones(len(batch)), is_model_s, None, is_quarantined, words * is_model_s)):
            if values is not None:
                self._of_category[:, column] += np.bincount(category, values, len(self._names)).astype(np.int64)
        plain = pc.replace_substring_regex(pc.utf8_lower(trimmed.filter(pa.array(is_model_s))), r"[\d\pP\pS\s]+", " ")
        self._digests.append(pl.Series(plain).hash().to_numpy())
        self._digested.append(ordinals[is_model_s])

    def _count_texts(self, made: pa.StructArray) -> None:
        prompt, new, edge = (_numbers(made.field(n)) for n in ("prompt_tokens", "generated_tokens", "bucket"))
        self.prompt_tokens = _add(self.prompt_tokens, prompt)
        self.generated_tokens = _add(self.generated_tokens, new)
        self.finish_reasons.update(_value_counts(made.field("finish_reason")))
        self.attempts.update(_value_counts(made.field("attempt")))
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
            found = rows[_mask(pc.equal(names, name))]
            in_texts, in_quarantine = found[is_model_s[found]], found[is_quarantined[found]]
            if len(in_quarantine):
                self.reasons[name] += len(in_quarantine)
            if len(in_texts):
                self.flags[name] += len(in_texts)
                self.flagged[name].offer(numbers[in_texts], ordinals[in_texts])
                for number, count in enumerate(np.bincount(category[in_texts])):
                    if count:
                        self.flags_by_category[name, self._names[number]] += int(count)
        flagged = np.unique(rows[_mask(pc.not_equal(names, EDITED))]) if len(rows) else rows
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


class _Shown:
    """The second reading: the rows to show, in full."""

    def __init__(self, output: Output, counting: _Counting, before: Output | None) -> None:
        self._output, self._before = output, {}
        self._categories = _categories(output)
        self._rulebooks = _rulebooks(output, self._categories)
        wanted = np.array(counting.shown, np.int64)
        table = _taken(output, wanted)
        roles = output.roles
        batch = table.combine_chunks().to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], table.schema)
        products = list(Products(batch, roles, 0, str(output.path)))
        if before is not None:
            self._before = _texts_by_id(before, {product.id for product in products if product.id})
        in_full = set(counting.shown_in_full)
        records = batch.column("generation").to_pylist()
        texts = batch.column(output.text_column).to_pylist()
        self.rows = {
            ordinal: self._row(ordinal, product, text or "", record, in_full=ordinal in in_full)
            for ordinal, product, text, record in zip(wanted.tolist(), products, texts, records, strict=True)
        }

    def _row(self, ordinal: int, product: Product, text: str, record: Mapping[str, Any], *, in_full: bool) -> Row:
        shown = _cut(text, _LONGEST_TEXT)
        flags = tuple(record["flags"] or ())
        failures = (
            self._rulebooks[self._categories.of(product)].judge(text, product).failures
            if in_full and flags and text
            else ()
        )
        before = self._text_before(product, record["status"], text)
        return Row(
            row=ordinal + 1,
            id=_cut(product.id, _LONGEST_CELL),
            title=_cut(product.title, _LONGEST_CELL),
            category=_cut(product.category, _LONGEST_CELL),
            attributes=tuple(
                (_cut(attribute.name, _LONGEST_CELL), _cut(attribute.value, _LONGEST_CELL))
                for attribute in product.attributes[:_MOST_ATTRIBUTES]
            ),
            status=record["status"],
            flags=flags,
            attempt=record["attempt"],
            finish_reason=record["finish_reason"],
            prompt_tokens=record["prompt_tokens"],
            generated_tokens=record["generated_tokens"],
            before=None if before is None else _cut(before, _LONGEST_TEXT),
            text=shown,
            pieces=highlight(shown, product) if in_full else (),
            in_other=product.id in self._before,
            findings=tuple(f"{one.rule}: {_cut(one.reason, _LONGEST_CELL)}" for one in failures),
        )

    def _text_before(self, product: Product, status: str, text: str) -> str | None:
        """Return the text that a row had: last night's if that is known, else the catalog's."""
        if product.id in self._before:
            return self._before[product.id]
        if self._output.roles.description not in (None, self._output.text_column):
            return product.description
        if status == KEPT:
            return text
        return None if self._output.facts["config"].get("overwrite") else ""


def _attempts(output: Output, rows: Mapping[int, Row]) -> Mapping[int, tuple[Attempt, ...]]:
    """Return the attempts at some quarantined rows, by the row's number, from the file beside the output."""
    found: dict[int, tuple[Attempt, ...]] = defaultdict(tuple)
    for line in read_quarantine(quarantine_path(output.path)):
        row = rows.get(int(line["row"]))
        if row is not None:
            product = Product(
                row.row - 1, row.id, row.title, row.category, tuple(Attribute(*pair) for pair in row.attributes), ""
            )
            found[row.row] = tuple(_attempt(one, product) for one in line["attempts"] if isinstance(one, dict))
    return found


def _attempt(one: Mapping[str, Any], product: Product) -> Attempt:
    text = _cut(str(one.get("text") or ""), _LONGEST_TEXT)
    failures = (f"{failure.get('rule')}: {failure.get('reason')}" for failure in one.get("failures") or ())
    return Attempt(
        int(one.get("attempt") or 0), text, highlight(text, product), tuple(_cut(f, _LONGEST_CELL) for f in failures)
    )


def _taken(output: Output, wanted: np.ndarray) -> pa.Table:
    """Read some rows in full, one row group after the other."""
    roles = output.roles
    named = {roles.title, roles.id, roles.category, roles.general_category, roles.description, *roles.attributes}
    named |= {name for pair in roles.attribute_pairs for name in pair} | {output.text_column, "generation"}
    columns = [name for name in output.file.schema_arrow.names if name in named]
    rows = rows_at_once(output.file, _BATCH_ROWS, columns)
    found, first = [], 0
    for group in range(output.file.num_row_groups):
        end = first + output.file.metadata.row_group(group).num_rows
        here = wanted[(wanted >= first) & (wanted < end)]
        if len(here):
            for batch in output.file.iter_batches(rows, [group], columns):
                inside = here[(here >= first) & (here < first + len(batch))] - first
                if len(inside):
                    found.append(batch.take(pa.array(inside)))
                first += len(batch)
        first = end
    schema = pa.schema([output.file.schema_arrow.field(name) for name in columns])
    return pa.Table.from_batches(found, schema)


def _texts_by_id(before: Output, ids: set[str]) -> dict[str, str]:
    """Return the texts that some products had in an earlier output."""
    name = before.roles.id
    if name is None or not ids:
        return {}
    texts: dict[str, str] = {}
    bare = Roles(title=name, id=name)
    columns = list(dict.fromkeys([name, before.text_column]))
    for batch in before.file.iter_batches(rows_at_once(before.file, _BATCH_ROWS, columns), columns=columns):
        # Ids as they are read off a catalog, where they may be numbers or have markup around them.
        found = zip(Products(batch, bare, 0, str(before.path)).ids, batch.column(before.text_column), strict=True)
        texts |= {key: text.as_py() or "" for key, text in found if key in ids}
    return texts


def _buckets(counting: _Counting, facts: Mapping[str, Any]) -> tuple[BucketUse, ...]:
    measured = read_usage(facts.get("buckets"))
    uses = []
    for edge, (rows, prompt, new) in sorted(counting.buckets.items()):
        usage = measured.get(edge)
        speed = usage.tokens_per_second if usage else None
        slots = usage.slot_use if usage else None
        waste = 1 - prompt / (edge * rows) if edge else None
        uses.append(
            BucketUse(
                edge, int(rows), int(prompt), int(new),
                None if waste is None else round(float(waste), 4),
                None if slots is None else round(slots, 4),
                None if speed is None else round(speed, 1),
            )
        )  # fmt: skip
    return tuple(uses)


def _drift(facts: Mapping[str, Any], before: Output | None) -> Drift | None:
    earlier: Mapping[str, Any] = before.facts if before else facts.get("before") or {}
    now, then = Profile.read(facts), Profile.read(earlier)
    if now is None or then is None:
        return None
    figures = tuple(Figure(name, value, now.as_dict()[name]) for name, value in then.as_dict().items())
    return Drift(
        drift=round(now.drift_from(then)[0], 4),
        before_run_id=earlier.get("summary", earlier).get("run_id"),
        before_finished_at=earlier.get("finished_at"),
        figures=figures,
        words=_words_of(before) if before else None,
    )


def _words_of(output: Output) -> Histogram:
    counts = np.zeros(0, np.int64)
    columns = [output.text_column, "generation.status"]
    for batch in output.file.iter_batches(rows_at_once(output.file, _BATCH_ROWS, columns), columns=columns):
        status = batch.column("generation").field("status")
        text = batch.column(output.text_column).cast(pa.large_string())
        text = text.filter(pc.and_(pc.is_in(status, pa.array([GENERATED, REUSED])), pc.is_valid(text)))
        trimmed = pc.utf8_trim_whitespace(text)
        words = pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy(zero_copy_only=False)
        counts = _add(counts, np.where(_mask(pc.equal(trimmed, "")), 0, words))
    return histograms.of(counts)


def _sentence(facts: Mapping[str, Any], rows: int) -> str:
    summary, model = facts["summary"], facts.get("model", {}).get("name") or facts["config"]["model"]
    catalog = Path(facts["config"]["catalog"]).name
    made, reused = summary["generated"], summary["reused"]
    if made:
        speed = f" at {summary['tokens_per_second']:,.0f} tokens a second" if summary["tokens_per_second"] else ""
        did = f"{Path(model).name} wrote {made:,} description{'s' * (made != 1)}{speed} for {catalog}"
    else:
        did = f"Nothing was to be written for {catalog}"
    carried = f", {reused:,} were carried over from an earlier run" if reused else ""
    left = summary["quarantined"]
    failed = (
        f", and {left:,} of {rows:,} rows got no usable text" if left else ", and no row was left without a usable text"
    )
    return did + carried + failed + "."


def _counts(found: Mapping[str, int]) -> tuple[Count, ...]:
    return tuple(Count(name, rows) for name, rows in sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _value_counts(column: pa.Array) -> dict[Any, int]:
    return {one["values"]: one["counts"] for one in column.drop_null().value_counts().to_pylist()}


def _mask(array: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def _numbers(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False), np.int64)


_LARGEST = 1 << 17  # words or tokens of a text; what is longer counts as this


def _add(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Add how often each value occurs to such counts."""
    more = np.bincount(np.minimum(values.astype(np.int64), _LARGEST)) if len(values) else np.zeros(0, np.int64)
    longer, shorter = (counts, more) if len(counts) >= len(more) else (more, counts)
    longer = longer.copy()
    longer[: len(shorter)] += shorter
    return longer


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def rows_of(report: Report) -> Iterable[Row]:
    """Yield every row that a report shows, wherever it does."""
    yield from report.sample
    for flag in report.flags:
        yield from flag.examples
    yield from (one.row for one in report.quarantine.examples)


__all__: Sequence[str] = ("Output", "gather", "open_output", "rows_of")
