"""The survey: the whole catalog read once, each row keyed, and the texts of earlier runs found."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

import enrich
from enrich.checkpoint import Checkpoint
from enrich.errors import CatalogError
from enrich.keys import KeyMaker
from enrich.output import facts_or_none
from enrich.prompts import render
from enrich.reuse import Carried, Earlier, WantedRows
from enrich.stages.setup import LEFT_BEHIND, Run, stop_if_asked

log = logging.getLogger("enrich")


@dataclass(frozen=True)
class Survey:
    """One reading of the whole catalog before anything is generated: it is whole, and what there is to do."""

    rows: int
    kept: int
    wanted: WantedRows
    carried: Carried

    @property
    def to_do(self) -> int:
        """How many rows have to be generated, by this run or the one that it resumes."""
        return len(self.wanted) - len(self.carried)


def survey_catalog(run: Run, checkpoint: Checkpoint) -> Survey:
    """Read the catalog, key the rows that need a text, and find those that have one from before."""
    earlier = _earlier(run)
    keys = KeyMaker(run.files.revision, asdict(run.params), run.config.seed)
    wanted, edited, rows, kept = WantedRows(), dict[int, int](), 0, 0
    for batch, products in run.catalog.batches():
        stop_if_asked(run, "nothing was generated yet")
        rows += len(batch)
        for product in products:
            if run.is_kept(product):
                kept += 1
            elif product.title:
                arranged = run.categories.of(product).arrange(product)
                key = keys.key(product.id, render(run.template(product), arranged))
                wanted.add(product.ordinal, key)
                position = earlier.edited_position(product.id)
                if position is not None:
                    edited[product.ordinal] = position
    carried = earlier.match(wanted, edited)
    if lost := earlier.num_edited - len(carried.edited):
        log.warning("%s texts that were edited in the published file belong to no row of the catalog now", f"{lost:,}")
    carried = carried.without(map(checkpoint.is_done, carried.ordinals))
    log.info(
        "%s rows: %s to do, %s found from before, %s keep their description",
        *(f"{number:,}" for number in (rows, len(wanted) - len(carried), len(carried), kept)),
    )
    return Survey(rows, kept, wanted, carried)


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
