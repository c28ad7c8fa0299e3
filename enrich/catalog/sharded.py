"""One shard of a catalog, in the form of a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from enrich.catalog import Catalog, Products
from enrich.errors import CatalogError
from enrich.shard import ROW, Shard


class _Named(NamedTuple):
    group: str
    id: str
    title: str


class ShardOfCatalog:
    """A catalog as if it had one shard's rows only, with a column more that holds their places in the whole."""

    def __init__(self, catalog: Catalog, shard: Shard) -> None:
        if ROW in catalog.schema.names:
            raise CatalogError(f"{catalog.path}: has a column {ROW!r}, which shards need for themselves; rename it")
        self._catalog, self._shard = catalog, shard
        self.path, self.identity, self.roles, self.notes = catalog.path, catalog.identity, catalog.roles, catalog.notes
        self.schema = catalog.schema.append(pa.field(ROW, pa.int64(), nullable=False))

    def batches(self) -> Iterator[tuple[pa.RecordBatch, Products]]:
        """Yield the shard's rows; their products are numbered among themselves."""
        count = 0
        titled = _Named("", "", "")  # the last row with a title: those of its variants go where it goes
        for batch, products in self._catalog.batches():
            chosen = []
            for row, named in enumerate(map(_Named, products.groups, products.ids, products.titles)):
                titled = named if named.title else titled
                is_variant = not named.title and named.group and named.group == titled.group
                owner = titled if is_variant else named
                if self._shard.has(owner.id, owner.title):
                    chosen.append(row)
            mine = pa.array(chosen, pa.int64())
            if len(mine):
                places = pc.add(mine, products.first)
                rows = pa.RecordBatch.from_arrays([*batch.take(mine).columns, places], schema=self.schema)
                yield rows, Products(rows, self.roles, count, products.where)
                count += len(mine)
