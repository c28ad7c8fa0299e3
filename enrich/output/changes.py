"""The changes since the file published before: for systems that take in what is new instead of a whole catalog."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.generation import GENERATION_TYPE
from enrich.storage import durable

if TYPE_CHECKING:
    import polars as pl  # imported where it is used: a night on which nothing has changed needs none

ADDED, CHANGED, REMOVED = "added", "changed", "removed"


class ChangesWriter:
    """Writes the rows whose id is new, whose text is another than before, and the ids that are gone.

    Of each row on either side a hash of its id and one of its text are held in memory. Rows that share an id count as
    changed if none of them had the text before. Use it as a context manager: left without `publish`, it leaves nothing
    behind. With `path` None it does nothing.
    """

    def __init__(
        self, path: Path | None, before: Path, source: pa.Schema, id_column: str | None, text_column: str
    ) -> None:
        """Read the hashes of `before`, the file published last, if there is one."""
        self._path = path
        if path is None:
            return
        assert id_column is not None
        self._id, self._text = id_column, text_column
        self._schema = _schema(source, text_column)
        self._before = before
        self._known = self._read_known()
        self._seen: list[pl.Series] = []
        self._temporary = durable.temporary_of(path)
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")

    def _read_known(self) -> pl.DataFrame:
        import polars as pl

        if not self._before.is_file() or not {self._id, self._text} <= set(pq.read_schema(self._before).names):
            return pl.DataFrame(schema={"id": pl.UInt64, "text": pl.UInt64})
        scan = pl.scan_parquet(self._before, glob=False)
        hashes = (pl.col(self._id).cast(pl.String).hash().alias("id"), pl.col(self._text).hash().alias("text"))
        return scan.select(hashes).unique().collect(engine="streaming")

    def write(self, published: pa.RecordBatch) -> None:
        """Take in rows as they are published; write those that are new or have another text."""
        if self._path is None:
            return
        import polars as pl

        hashes = pl.DataFrame(
            {
                "id": pl.Series(pl.from_arrow(published.column(self._id))).cast(pl.String).hash(),
                "text": pl.Series(pl.from_arrow(published.column(self._text))).hash(),
            }
        )
        self._seen.append(hashes["id"])
        is_known = hashes["id"].is_in(self._known["id"].implode())
        others = hashes.with_row_index().join(self._known, on=["id", "text"], how="anti")["index"].sort().to_list()
        if others:
            change = pa.array([CHANGED if is_known[row] else ADDED for row in others])
            taken = published.take(pa.array(others))
            columns = [change if name == "change" else taken.column(name) for name in self._schema.names]
            columns = [column.cast(field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def publish(self) -> None:
        """Add the ids that are gone, and give the file its name."""
        if self._path is None:
            return
        if self._known.height:
            import polars as pl

            seen = pl.concat(self._seen) if self._seen else pl.Series(dtype=pl.UInt64)
            gone = (
                pl.scan_parquet(self._before, glob=False)
                .filter(~pl.col(self._id).cast(pl.String).hash().is_in(seen.unique().implode()))
                .select(self._id)
                .unique(maintain_order=True)
                .collect()
                .to_arrow()
            )
            if len(gone):
                self._writer.write_table(self._removed(gone))
        self._writer.close()
        durable.publish(self._temporary, self._path)

    def _removed(self, gone: pa.Table) -> pa.Table:
        columns = []
        for field in self._schema:
            if field.name == "change":
                columns.append(pa.array([REMOVED] * len(gone)))
            elif field.name == self._id:
                columns.append(gone[self._id].cast(field.type))
            else:
                columns.append(pa.nulls(len(gone), field.type))
        return pa.Table.from_arrays(columns, schema=self._schema)

    @staticmethod
    def write_none(path: Path, source: pa.Schema, text_column: str) -> None:
        """Write a file that says that nothing has changed."""
        with durable.aside(path) as temporary:
            durable.write_table(_schema(source, text_column).empty_table(), temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            durable.abandon(self._writer)
            self._temporary.unlink(missing_ok=True)


def _schema(source: pa.Schema, text_column: str) -> pa.Schema:
    fields = [field.with_nullable(True) for field in source if field.name not in (text_column, "change")]
    return pa.schema(
        [
            pa.field("change", pa.string()),
            *fields,
            pa.field(text_column, pa.string()),
            # Without the rule that its fields have on their own: a row that is gone has none.
            pa.field("generation", pa.struct([field.with_nullable(True) for field in GENERATION_TYPE])),
        ]
    )
