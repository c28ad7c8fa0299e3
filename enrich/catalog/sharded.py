"""One shard of a catalog, in the form of a catalog."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from enrich.catalog import Catalog, Products
from enrich.errors import CatalogError
from enrich.shard import ROW, Shard


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
        for batch, products in self._catalog.batches():
            names = zip(products.ids, products.titles, strict=True)
            mine = pa.array([row for row, name in enumerate(names) if self._shard.has(*name)], pa.int64())
            if len(mine):
                places = pc.add(mine, products.first)
                rows = pa.RecordBatch.from_arrays([*batch.take(mine).columns, places], schema=self.schema)
                yield rows, Products(rows, self.roles, count, products.where)
                count += len(mine)
