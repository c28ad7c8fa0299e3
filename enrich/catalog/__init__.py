"""The catalog: a file of products, streamed in input order and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from enrich.catalog.formats import open_source
from enrich.catalog.products import Products
from enrich.catalog.roles import RoleOptions, Roles, find_roles

__all__ = ["Catalog", "Products", "RoleOptions", "Roles"]


class Catalog:
    """A catalog file whose columns are mapped to roles.

    Raises CatalogError from the constructor if the file can't be read or mapped, from `batches` if a row can't.
    """

    def __init__(
        self,
        path: Path,
        told: RoleOptions,
        *,
        delimiter: str | None = None,
        encoding: str | None = None,
        limit: int | None = None,
    ) -> None:
        self.path = path
        self._source = open_source(path, delimiter, encoding)
        self._limit = limit
        self._told_encoding = bool(encoding)
        self.schema: pa.Schema = self._source.schema
        self.identity = self._source.identity
        self.roles: Roles = find_roles(self.schema.names, told, str(path))

    @property
    def notes(self) -> list[str]:
        """What was found out about the file that the user should know."""
        encoding = getattr(self._source, "encoding", "utf-8")
        if self._told_encoding or encoding == "utf-8":
            return []
        return [f"{self.path} is not UTF-8; read as {encoding} (name another with --encoding)"]

    def batches(self) -> Iterator[tuple[pa.RecordBatch, Products]]:
        """Yield the source's rows as they are, each batch beside its products."""
        ordinal = 0
        for batch in self._source.batches():
            if self._limit is not None:
                batch = batch.slice(0, max(0, self._limit - ordinal))
            if len(batch):
                where = f"{self.path}, rows {ordinal + 1} to {ordinal + len(batch)}"
                yield batch, Products(batch, self.roles, ordinal, where)
            ordinal += len(batch)
            if self._limit is not None and ordinal >= self._limit:
                return
