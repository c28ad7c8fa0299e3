"""One shard of a catalog, in the form of a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from enrich.catalog import Catalog
from enrich.errors import CatalogError
from enrich.product import Product
from enrich.shard import ROW, Shard


class ShardOfCatalog:
    """A catalog as if it had one shard's rows only, with a column more that holds their places in the whole."""

    def __init__(self, catalog: Catalog, shard: Shard) -> None:
        if ROW in catalog.schema.names:
            raise CatalogError(f"{catalog.path}: has a column {ROW!r}, which shards need for themselves; rename it")
        self._catalog, self._shard = catalog, shard
        self.path, self.identity, self.roles, self.notes = catalog.path, catalog.identity, catalog.roles, catalog.notes
        self.schema = catalog.schema.append(pa.field(ROW, pa.int64(), nullable=False))

    def batches(self) -> Iterator[tuple[pa.RecordBatch, list[Product]]]:
        """Yield the shard's rows; their products are numbered among themselves."""
        count = 0
        for batch, products in self._catalog.batches():
            mine = [place for place, product in enumerate(products) if self._shard.has(product)]
            if mine:
                rows = pa.array([products[place].ordinal for place in mine], pa.int64())
                columns = [*batch.take(pa.array(mine, pa.int64())).columns, rows]
                chosen = [replace(products[place], ordinal=count + n) for n, place in enumerate(mine)]
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema), chosen
                count += len(mine)
