"""The surveyor: what a survey has to find out of a batch of rows, in this process or in one beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from enrich.catalog import Products, Roles
from enrich.categories import Categories
from enrich.keys import KeyMaker, key_of_run
from enrich.wordings import wordings

if TYPE_CHECKING:
    from enrich.stages.setup import Run

# What was found of a row, as bits of a byte.
TITLED, DESCRIBED, VARIANT = 1, 2, 4


@dataclass(frozen=True)
class Instructions:
    """What a surveyor must know of a run, in plain values that can be told to another process as JSON."""

    roles: Roles
    template: str | None
    categories: str | None
    chat: bool
    overwrite: bool
    key_of_run: str

    @classmethod
    def of(cls, run: Run) -> Instructions:
        """Return those of a run."""
        config = run.config
        return cls(
            roles=run.catalog.roles,
            template=run.categories.template,
            categories=config.categories,
            chat=bool(config.chat),
            overwrite=config.overwrite,
            key_of_run=key_of_run(run.files.revision, config.sampling() | run.form, config.seed),
        )

    def as_json(self) -> str:
        """Return them in one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Instructions:
        """Return those that `as_json` has written."""
        values = json.loads(text)
        roles: dict[str, Any] = values.pop("roles")
        for name in ("attributes", "attribute_pairs"):
            roles[name] = tuple(tuple(one) if isinstance(one, list) else one for one in roles[name])
        return cls(roles=Roles(**roles), **values)


@dataclass(frozen=True)
class Findings:
    """What was found of a batch: a byte of marks for each row, and 16 bytes of content key for each that needs a text.

    As shop exports have it, a product's first row has its title, and one more without stands for each variant. So
    `last_titled` is the group (an id, if the catalog has none) of the last row with a title, None if there was none,
    and `untitled` are those of the rows before the first one, whose product may stand in the batch before.
    """

    marks: bytes
    keys: bytes
    last_titled: str | None
    untitled: tuple[str, ...]

    def behind(self, last_titled: str) -> bytes:
        """Return the marks as they are behind a batch whose last row with a title had the given group."""
        marks = bytearray(self.marks)
        for row, group in enumerate(self.untitled):
            if group and group == last_titled:
                marks[row] |= VARIANT
        return bytes(marks)


class Surveyor:
    """Marks and keys batches of rows."""

    def __init__(self, instructions: Instructions) -> None:
        """Read the categories and compile their templates. Raises ConfigError for one that is wrong."""
        self._roles, self._overwrite = instructions.roles, instructions.overwrite
        directory = Path(instructions.categories) if instructions.categories else None
        self._categories = Categories(instructions.template, directory)
        self._wordings = wordings(self._categories, chat=instructions.chat)
        self._keys = KeyMaker(instructions.key_of_run)

    def survey(self, batch: pa.RecordBatch, where: str) -> Findings:
        """Mark and key a batch. `where` tells a person where its rows stand; raises CatalogError for a bad cell."""
        products = Products(batch, self._roles, 0, where)
        marks = bytearray()
        last_titled: str | None = None
        untitled = 0  # rows before the first with a title
        groups = products.groups
        for group, title, description in zip(groups, products.titles, products.descriptions, strict=True):
            if title:
                last_titled = group
            elif last_titled is None:
                untitled += 1
            is_variant = not title and group and group == last_titled
            marks.append(TITLED * bool(title) | DESCRIBED * bool(description) | VARIANT * bool(is_variant))
        keys = bytearray()
        wanted = needs_text(np.frombuffer(marks, np.uint8), overwrite=self._overwrite)
        for product in products.at(np.flatnonzero(wanted)):
            category = self._categories.of(product)
            words = self._wordings[category].all_of(category.arrange(product))
            keys += self._keys.content_key(product.id, words)
        return Findings(bytes(marks), bytes(keys), last_titled, tuple(groups[:untitled]))


def is_kept(marks: np.ndarray, *, overwrite: bool) -> np.ndarray:
    """Say of each row, by its marks, whether it keeps its description."""
    return (marks & DESCRIBED > 0) & (not overwrite)


def needs_text(marks: np.ndarray, *, overwrite: bool) -> np.ndarray:
    """Say of each row, by its marks, whether a text has to be found for it."""
    needed: np.ndarray = (marks & TITLED > 0) & ~is_kept(marks, overwrite=overwrite)
    return needed
