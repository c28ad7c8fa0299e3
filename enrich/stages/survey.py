"""The survey: each row of the catalog marked and keyed, once for a run, and the texts of earlier runs found."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import enrich
from enrich.checkpoint import Checkpoint
from enrich.errors import CatalogError, one_line
from enrich.keys import row_keys
from enrich.output import facts_or_none
from enrich.reuse import Carried, Earlier, WantedRows
from enrich.stages.setup import LEFT_BEHIND, Run, stop_if_asked
from enrich.stages.survey_crew import survey_batches
from enrich.stages.surveyor import VARIANT, Instructions, is_kept, needs_text

log = logging.getLogger("enrich")

_KEPT_SCHEMA = pa.schema([pa.field("marks", pa.uint8(), nullable=False), pa.field("key", pa.binary(16))])


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
    """Read the catalog, key the rows that need a text, and find those that have one from before.

    A run that goes on where one was broken off finds marks and keys with its checkpoint.
    """
    earlier = _earlier(run)
    marks, keys = _kept(run, checkpoint) or _read(run)
    if not len(marks) and not run.config.shard:
        raise CatalogError(f"{run.config.catalog}: has no rows; an output that is there stays as it is")
    wanted = WantedRows(np.flatnonzero(needs_text(marks, overwrite=run.config.overwrite)), keys)
    carried = earlier.match(wanted, _edited(run, earlier, wanted))
    if lost := earlier.num_edited - len(carried.edited):
        log.warning("%s texts that were edited in the published file belong to no row of the catalog now", f"{lost:,}")
    is_done = checkpoint.done_mask(len(marks))
    carried = carried.without(is_done[carried.ordinals])
    keeps = is_kept(marks, overwrite=run.config.overwrite)
    is_waiting = ~keeps & ~is_done
    is_waiting[carried.ordinals] = False
    log.info(
        "%s rows: %s to do, %s reused, %s keep their description",
        *(f"{number:,}" for number in (len(marks), len(wanted) - len(carried), len(carried), int(keeps.sum()))),
    )
    return Survey(marks, keeps, wanted, carried, np.flatnonzero(is_waiting))


def keep_survey(survey: Survey, checkpoint: Checkpoint) -> None:
    """Put marks and keys beside the checkpoint's parts, unless they are there or nothing is to be generated."""
    if checkpoint.has_survey or not survey.to_do:
        return
    keys = pa.py_buffer(survey.wanted.keys)
    each = pa.FixedSizeBinaryArray.from_buffers(_KEPT_SCHEMA.field("key").type, len(survey.wanted), [None, keys])
    places = np.full(survey.rows, -1)
    places[survey.wanted.ordinals] = np.arange(len(survey.wanted))
    columns = [pa.array(survey.marks), each.take(pa.array(places, mask=places < 0))]
    checkpoint.keep_survey(pa.Table.from_arrays(columns, schema=_KEPT_SCHEMA))


def _kept(run: Run, checkpoint: Checkpoint) -> tuple[np.ndarray, bytes] | None:
    if not checkpoint.has_survey:
        return None
    try:
        table = checkpoint.read_survey().cast(_KEPT_SCHEMA)
        marks, keys = table["marks"].to_numpy(), table["key"].drop_null().combine_chunks()
        if int(needs_text(marks, overwrite=run.config.overwrite).sum()) != len(keys):
            raise ValueError("rows and keys do not fit together")
    except (OSError, pa.ArrowException, ValueError) as error:
        log.warning("%s: the survey is damaged (%s); the catalog is read again", checkpoint.directory, one_line(error))
        return None
    begin, end = 16 * keys.offset, 16 * (keys.offset + len(keys))
    return marks, bytes(memoryview(keys.buffers()[1])[begin:end])  # not as objects, which would take as much again


def _read(run: Run) -> tuple[np.ndarray, bytearray]:
    """Return each row's marks, and the keys of those that need a text."""
    marks, content_keys = bytearray(), bytearray()
    last_titled = ""
    for found in survey_batches(Instructions.of(run), run.catalog.batches()):
        stop_if_asked(run, "nothing was generated yet")
        marks += found.behind(last_titled)
        content_keys += found.keys
        last_titled = last_titled if found.last_titled is None else found.last_titled
    return np.frombuffer(marks, np.uint8), row_keys(content_keys)


def _edited(run: Run, earlier: Earlier, wanted: WantedRows) -> dict[int, int]:
    """Return, by ordinal, where an earlier text stands that a person has written for a product of the same id."""
    edited: dict[int, int] = {}
    for _, products in run.catalog.batches() if earlier.num_edited else ():
        stop_if_asked(run, "nothing was generated yet")
        begin, end = np.searchsorted(wanted.ordinals, [products.first, products.first + len(products)])
        for ordinal in wanted.ordinals[begin:end].tolist():
            position = earlier.edited_position(products.ids[ordinal - products.first])
            if position is not None:
                edited[ordinal] = position
    return edited


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
