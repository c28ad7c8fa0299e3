"""Showing: the second reading of an output, the rows that were drawn, in full."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from enrich.batch_size import rows_at_once
from enrich.catalog import Products, Roles
from enrich.categories import Categories
from enrich.categories import Category as OfCategory
from enrich.errors import ConfigError
from enrich.generation import KEPT
from enrich.output.quarantine import quarantine_path, read_quarantine
from enrich.product import Attribute, Product
from enrich.quality import Rulebook
from enrich.quality.highlight import highlight
from enrich.report.columns import cut
from enrich.report.counting import Counting, categories_of
from enrich.report.data import Attempt, Row
from enrich.report.opening import BATCH_ROWS, Output
from enrich.rulebooks import rulebooks

_LONGEST_TEXT = 2_000  # characters shown of one
_LONGEST_CELL = 200
_MOST_ATTRIBUTES = 12


def _rulebooks(output: Output, categories: Categories) -> dict[OfCategory, Rulebook]:
    told = output.facts["config"]
    settings = (setting.partition("=") for setting in told.get("rules") or ())
    strict = bool(told.get("strict_facts"))
    try:
        return rulebooks(categories, {name: value for name, _, value in settings}, strict_facts=strict)
    except ConfigError:  # of another version, or another set of categories
        return rulebooks(categories, {})


class Shown:
    """The second reading: the rows to show, in full."""

    def __init__(self, output: Output, counting: Counting, before: Output | None) -> None:
        self._output, self._before = output, {}
        self._categories = categories_of(output)
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
        shown = cut(text, _LONGEST_TEXT)
        flags = tuple(record["flags"] or ())
        failures = (
            self._rulebooks[self._categories.of(product)].judge(text, product).failures
            if in_full and flags and text
            else ()
        )
        before = self._text_before(product, record["status"], text)
        return Row(
            row=ordinal + 1,
            id=cut(product.id, _LONGEST_CELL),
            title=cut(product.title, _LONGEST_CELL),
            category=cut(product.category, _LONGEST_CELL),
            attributes=tuple(
                (cut(attribute.name, _LONGEST_CELL), cut(attribute.value, _LONGEST_CELL))
                for attribute in product.attributes[:_MOST_ATTRIBUTES]
            ),
            status=record["status"],
            flags=flags,
            attempt=record["attempt"],
            finish_reason=record["finish_reason"],
            prompt_tokens=record["prompt_tokens"],
            generated_tokens=record["generated_tokens"],
            before=None if before is None else cut(before, _LONGEST_TEXT),
            text=shown,
            pieces=highlight(shown, product) if in_full else (),
            in_other=product.id in self._before,
            findings=tuple(f"{one.rule}: {cut(one.reason, _LONGEST_CELL)}" for one in failures),
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


def attempts_at(output: Output, rows: Mapping[int, Row]) -> Mapping[int, tuple[Attempt, ...]]:
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
    text = cut(str(one.get("text") or ""), _LONGEST_TEXT)
    failures = (f"{failure.get('rule')}: {failure.get('reason')}" for failure in one.get("failures") or ())
    return Attempt(
        int(one.get("attempt") or 0), text, highlight(text, product), tuple(cut(f, _LONGEST_CELL) for f in failures)
    )


def _taken(output: Output, wanted: np.ndarray) -> pa.Table:
    """Read some rows in full, one row group after the other."""
    roles = output.roles
    named = {roles.title, roles.id, roles.category, roles.general_category, roles.description, *roles.attributes}
    named |= {name for pair in roles.attribute_pairs for name in pair} | {output.text_column, "generation"}
    columns = [name for name in output.file.schema_arrow.names if name in named]
    rows = rows_at_once(output.file, BATCH_ROWS, columns)
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
    for batch in before.file.iter_batches(rows_at_once(before.file, BATCH_ROWS, columns), columns=columns):
        # Ids as they are read off a catalog, where they may be numbers or have markup around them.
        found = zip(Products(batch, bare, 0, str(before.path)).ids, batch.column(before.text_column), strict=True)
        texts |= {key: text.as_py() or "" for key, text in found if key in ids}
    return texts
