"""Opening: an enriched file, and what its run said of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.catalog import Roles
from enrich.errors import CatalogError
from enrich.generation import GENERATION_TYPE
from enrich.output import METADATA_KEY, read_facts

BATCH_ROWS = 16_384  # that are read at once, unless their cells are long


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
