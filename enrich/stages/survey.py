"""The survey: the whole catalog read once, each row keyed, and the texts of earlier runs found."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

import enrich
from enrich.checkpoint import Checkpoint
from enrich.errors import CatalogError
from enrich.keys import KeyMaker, row_keys
from enrich.output import facts_or_none
from enrich.reuse import Carried, Earlier, WantedRows
from enrich.stages.setup import LEFT_BEHIND, Run, stop_if_asked

log = logging.getLogger("enrich")


# What was found of a row, as bits of a byte.
TITLED, DESCRIBED, VARIANT = 1, 2, 4


@dataclass(frozen=True)
class Survey:
    """One reading of the whole catalog before anything is generated: it is whole, and what there is to do.

    `marks` holds a byte for each row; `waiting` the ordinals, rising, of the rows that have no outcome yet.
    """

    marks: np.ndarray
    is_kept: np.ndarray
    wanted: WantedRows
    carried: Carried
    waiting: np.ndarray

    @property
    def rows(self) -> int:
        """How many rows the catalog has."""
        return len(self.marks)

    @property
    def to_do(self) -> int:
        """How many rows have to be generated, by this run or the one that it resumes."""
        return len(self.wanted) - len(self.carried)

    def is_variant(self, ordinal: int) -> bool:
        """Say whether a row without a title stands for a variant of the product above it."""
        return bool(self.marks[ordinal] & VARIANT)


def survey_catalog(run: Run, checkpoint: Checkpoint) -> Survey:
    """Read the catalog, key the rows that need a text, and find those that have one from before."""
    earlier = _earlier(run)
    keys = KeyMaker(run.files.revision, run.config.sampling() | run.form, run.config.seed)
    marks, content_keys, edited = bytearray(), bytearray(), dict[int, int]()
    last_titled = ""  # id of the last row that had a title
    for _, products in run.catalog.batches():
        stop_if_asked(run, "nothing was generated yet")
        found = bytearray()
        for product_id, title, description in zip(products.ids, products.titles, products.descriptions, strict=True):
            if title:
                last_titled = product_id
            # As shop exports have it: the product's first row has its title, one more stands for each variant.
            is_variant = not title and product_id and product_id == last_titled
            found.append(TITLED * bool(title) | DESCRIBED * bool(description) | VARIANT * bool(is_variant))
        marks += found
        for product in products.at(np.flatnonzero(_is_wanted(run, np.frombuffer(found, np.uint8)))):
            arranged = run.categories.of(product).arrange(product)
            content_keys += bytes.fromhex(keys.content_key(product.id, run.wording(product).all_of(arranged)))
            position = earlier.edited_position(product.id)
            if position is not None:
                edited[product.ordinal] = position
    return _surveyed(run, checkpoint, earlier, np.frombuffer(marks, np.uint8), row_keys(content_keys), edited)


def _is_kept(run: Run, marks: np.ndarray) -> np.ndarray:
    return (marks & DESCRIBED > 0) & (not run.config.overwrite)


def _is_wanted(run: Run, marks: np.ndarray) -> np.ndarray:
    is_wanted: np.ndarray = (marks & TITLED > 0) & ~_is_kept(run, marks)
    return is_wanted


def _surveyed(
    run: Run,
    checkpoint: Checkpoint,
    earlier: Earlier,
    marks: np.ndarray,
    keys: bytearray,
    edited: dict[int, int],
) -> Survey:
    wanted = WantedRows(np.flatnonzero(_is_wanted(run, marks)), keys)
    carried = earlier.match(wanted, edited)
    if lost := earlier.num_edited - len(carried.edited):
        log.warning("%s texts that were edited in the published file belong to no row of the catalog now", f"{lost:,}")
    is_done = checkpoint.done_mask(len(marks))
    carried = carried.without(is_done[carried.ordinals])
    is_kept = _is_kept(run, marks)
    is_waiting = ~is_kept & ~is_done
    is_waiting[carried.ordinals] = False
    log.info(
        "%s rows: %s to do, %s found from before, %s keep their description",
        *(f"{number:,}" for number in (len(marks), len(wanted) - len(carried), len(carried), int(is_kept.sum()))),
    )
    return Survey(marks, is_kept, wanted, carried, np.flatnonzero(is_waiting))


def _earlier(run: Run) -> Earlier:
    """Open the texts of earlier runs."""
    earlier = Earlier()
    path = run.previous_path
    if run.config.previous and not path.is_file():
        raise CatalogError(f"--previous {path}: there is no such file")
    if not run.config.fresh:
        if path.is_file():
            earlier.add_published(path, facts_or_none(path), enrich.__version__, run.config.output_column)
        earlier.add_parts(run.beside_output(LEFT_BEHIND))
    for note in earlier.notes:
        log.warning("%s", note)
    return earlier
