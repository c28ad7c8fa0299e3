"""Reuse: the texts of earlier runs, found again by their keys.

The file published last is the cache; there is no second store to keep in step. So are the parts of a checkpoint whose
catalog has changed since. Of each earlier row only its key stays in memory; texts are read when they are wanted.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from enrich.batch_size import rows_at_once
from enrich.generation import (
    EDITED,
    GENERATED,
    GENERATION_TYPE,
    KEPT,
    QUARANTINED,
    REUSED,
    text_digest,
)
from enrich.outcomes import OUTCOME_SCHEMA, flagged
from enrich.storage import durable

if TYPE_CHECKING:
    import polars as pl  # imported where it is used: a night on which nothing has changed needs none

_BATCH_ROWS = 65_536
_READ_BYTES = 1 << 20  # at a time: otherwise the whole of a row group's column
_MOST_PARTITIONS = 256  # as many files are open at once


@dataclass(frozen=True)
class WantedRows:
    """The rows that need a text: their ordinals (rising, int64) and their keys, 16 bytes each."""

    ordinals: np.ndarray
    keys: bytes | bytearray

    def __len__(self) -> int:
        return len(self.ordinals)

    def key(self, ordinal: int) -> str:
        """Return the key of a row that is among them."""
        index = int(np.searchsorted(self.ordinals, ordinal))
        return self.keys[16 * index : 16 * index + 16].hex()


@dataclass(frozen=True)
class _Source:
    """A Parquet file with texts, and the position of its first row among all earlier rows."""

    path: Path
    text_column: str
    id_column: str | None
    first: int
    published: bool  # by a run, so that a text that differs from its digest was edited, not damaged

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (position of the first row, batch)."""
        position = self.first
        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_READ_BYTES) as file:
            for batch in file.iter_batches(rows_at_once(file, _BATCH_ROWS, columns), columns=list(columns)):
                yield position, batch
                position += len(batch)


class Earlier:
    """The texts of earlier runs: of the file published last, and of checkpoints left behind.

    `notes` says what was found but can't be used, and why.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.num_rows = 0
        self._sources: list[_Source] = []
        self._keys: list[pl.DataFrame] = []
        self._edited_keys: dict[str, int] = {}
        self._edited_ids: dict[str, int] = {}

    def add_published(self, path: Path, facts: Mapping[str, Any], version: str, text_column: str) -> None:
        """Take in a file that a run has published, `facts` being what it says of itself.

        One that can't be trusted is left out, with a note; of another version's, only what a person has written stays.
        """
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                schema = file.schema_arrow
            reason = _distrust(schema, facts, text_column)
            if reason is None:
                id_column = facts["roles"].get("id")
                id_column = id_column if id_column in schema.names else None
                ours = facts["versions"]["enrich"] == version
                self._add(path, text_column, id_column, published=True, only_edited=not ours)
                if not ours:
                    stay = f"{self.num_edited:,} edited texts stay, the others" if self.num_edited else "they"
                    written = f"{path} has the texts of version {facts['versions']['enrich']}"
                    self.notes.append(f"{written}: {stay} are generated anew by {version}")
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            reason = f"can't be read ({error})"
        if reason is not None:
            self.notes.append(f"{path} {reason}: none of its texts is reused")

    def add_parts(self, directory: Path) -> None:
        """Take in the parts of a checkpoint; damaged ones are left out, with a note."""
        for path in sorted(directory.glob("*.parquet")):
            try:
                self._add(path, "text", None, published=False)
            except (OSError, pa.ArrowException, ValueError) as error:
                self.notes.append(f"{path} can't be read ({error}): its texts are generated anew")

    def _add(
        self, path: Path, text_column: str, id_column: str | None, *, published: bool, only_edited: bool = False
    ) -> None:
        source = _Source(path, text_column, id_column, self.num_rows, published)
        columns = [text_column, "generation", *([id_column] if id_column else [])]
        frames, edited_keys, edited_ids, end = [], {}, {}, self.num_rows
        for position, batch in source.batches(columns):
            frame, edited = _usable(source, position, batch)
            frames.append(frame.filter(frame["position"].is_in(list(edited.values()))) if only_edited else frame)
            edited_keys.update(edited)
            if id_column:
                ids = batch.column(id_column)
                edited_ids.update({str(ids[place - position]): place for place in edited.values()})
            end = position + len(batch)
        self._sources.append(source)
        self._keys += frames
        self._edited_keys |= edited_keys
        self._edited_ids |= edited_ids
        self.num_rows = end

    @property
    def num_edited(self) -> int:
        """How many texts a person has changed since they were published."""
        return len(self._edited_keys)

    def edited_position(self, product_id: str) -> int | None:
        """Return where a text stands that a person has written for the product with this id, if one has."""
        return self._edited_ids.get(product_id)

    def match(self, wanted: WantedRows, edited: dict[int, int]) -> Carried:
        """Find the wanted rows' texts by key.

        `edited` gives, by ordinal, the positions of edited texts for rows with the same id. Such a text goes to the
        first row that has no other, unless it is found by its own key: ids may be shared by variants.
        """
        import polars as pl

        earlier = pl.concat(self._keys) if self._keys else _key_frame(b"").with_columns(position=pl.lit(0, pl.Int64))
        earlier = earlier.unique(["high", "low"], keep="first")
        rows = _key_frame(wanted.keys).with_columns(ordinal=wanted.ordinals)
        found = rows.join(earlier, on=["high", "low"], how="inner").select("ordinal", "position")
        matched = set(found.filter(pl.col("ordinal").is_in(list(edited)))["ordinal"])
        claimed = set(found.filter(pl.col("position").is_in(list(set(edited.values()))))["position"])
        by_id: dict[int, int] = {}
        for ordinal, position in edited.items():
            if ordinal not in matched and position not in claimed:
                by_id[ordinal] = position
                claimed.add(position)
        ordinals = np.concatenate([found["ordinal"].to_numpy(), np.fromiter(by_id, np.int64, len(by_id))])
        positions = np.concatenate([found["position"].to_numpy(), np.fromiter(by_id.values(), np.int64, len(by_id))])
        order = np.argsort(ordinals)
        written_over = np.sort(np.fromiter(self._edited_keys.values(), np.int64, len(self._edited_keys)))
        return Carried(self._sources, ordinals[order], positions[order], written_over)


def _distrust(schema: pa.Schema, facts: Mapping[str, Any], text_column: str) -> str | None:
    """Say why a file's texts can't be taken for those of a run, if so."""
    if not facts:
        return "was not written by `enrich run`"
    if "generation" not in schema.names or schema.field("generation").type != GENERATION_TYPE:
        return "has no column 'generation' of this version's form"
    if text_column not in schema.names or not (
        pa.types.is_string(schema.field(text_column).type) or pa.types.is_large_string(schema.field(text_column).type)
    ):
        return f"has no text column {text_column!r}"
    return None


def _usable(source: _Source, first: int, batch: pa.RecordBatch) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the keys and positions of the rows that can be carried over, and of those among them that were edited."""
    generation = batch.column("generation")
    status, keys, digests, flags = (
        pc.struct_field(generation, name) for name in ("status", "key", "text_digest", "flags")
    )
    texts = batch.column(source.text_column).to_pylist()
    has_text = np.fromiter(map(bool, texts), bool, len(texts))
    usable = _true(pc.is_in(status, pa.array([GENERATED, REUSED, KEPT, QUARANTINED])))
    usable &= _true(pc.match_substring_regex(keys, "^[0-9a-f]{32}$"))
    usable &= has_text | _true(pc.equal(status, QUARANTINED))  # else emptied by hand: to be written anew
    is_edited = _true(pc.not_equal(pa.array([text_digest(text) if text else None for text in texts]), digests))
    is_edited |= _true(pc.is_null(digests))
    is_edited[_parents(flags, EDITED)] = True
    is_edited &= has_text & usable
    if not source.published:
        usable &= ~is_edited
        is_edited[:] = False
    positions = np.flatnonzero(usable)
    frame = _key_frame(bytes.fromhex("".join(keys.take(pa.array(positions)).to_pylist())))
    edited = {keys[place].as_py(): first + place for place in np.flatnonzero(is_edited).tolist()}
    return frame.with_columns(position=first + positions), edited


def _true(mask: pa.BooleanArray) -> np.ndarray:
    return np.asarray(mask.fill_null(False), bool)


def _parents(lists: pa.ListArray, value: str) -> np.ndarray:
    """Return the places of the lists that hold a value."""
    found = pc.equal(lists.flatten(), value).fill_null(False)
    return np.asarray(pc.list_parent_indices(lists).filter(found))


def _key_frame(keys: bytes | bytearray) -> pl.DataFrame:
    """Return keys of 16 bytes as two columns of numbers: of bytes, polars would keep a view of 16 more for each."""
    import polars as pl

    halves = np.frombuffer(keys, np.uint64).reshape(-1, 2)
    return pl.DataFrame({"high": halves[:, 0], "low": halves[:, 1]})


class Carried:
    """Rows whose texts are carried over: `ordinals` (rising) of this run, `positions` among the earlier rows."""

    def __init__(
        self, sources: Sequence[_Source], ordinals: np.ndarray, positions: np.ndarray, edited_positions: np.ndarray
    ) -> None:
        self._sources = sources
        self._ordinals, self._positions = ordinals, positions
        self._edited_positions = edited_positions

    def __len__(self) -> int:
        return len(self._ordinals)

    def without(self, is_done: np.ndarray) -> Carried:
        """Leave out the rows for which `is_done`, a bool for each of `ordinals`, holds."""
        left = ~is_done
        return Carried(self._sources, self._ordinals[left], self._positions[left], self._edited_positions)

    @property
    def ordinals(self) -> np.ndarray:
        """The rows' ordinals, rising, int64."""
        return self._ordinals

    @property
    def edited(self) -> np.ndarray:
        """The positions among them whose texts a person has changed."""
        return np.intersect1d(self._positions, self._edited_positions)

    @cached_property
    def _in_order(self) -> bool:
        return bool(np.all(np.diff(self._positions) > 0))

    def outcomes(self, scratch: Path) -> Generator[pa.Table, None, None]:
        """Yield their outcomes, those with the lowest rows first.

        Rows that have kept their order are read as they stand. Others are sorted through files in the directory
        `scratch`, which is made and removed, so that memory holds one part of them at a time.
        """
        return self._tables() if self._in_order else self._sorted(scratch)

    def _tables(self) -> Generator[pa.Table, None, None]:
        """Yield outcomes in the order in which the earlier rows stand."""
        by_position = np.argsort(self._positions)
        positions, ordinals = self._positions[by_position], self._ordinals[by_position]
        for source in self._sources:
            for first, batch in source.batches([source.text_column, "generation"]):
                begin, end = np.searchsorted(positions, [first, first + len(batch)])
                if begin == end:
                    continue
                taken = batch.take(pa.array(positions[begin:end] - first))
                edited = np.isin(positions[begin:end], self._edited_positions)
                columns = [
                    pa.array(ordinals[begin:end]),
                    taken.column(source.text_column).cast(pa.string()),
                    _carried_over(taken.column("generation"), edited),
                    pa.nulls(end - begin, OUTCOME_SCHEMA.field("attempts").type),
                ]
                yield pa.Table.from_arrays(columns, schema=OUTCOME_SCHEMA)

    def _sorted(self, scratch: Path) -> Generator[pa.Table, None, None]:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        highest = int(self._ordinals[-1]) + 1
        rows = max(_BATCH_ROWS, -(-highest // _MOST_PARTITIONS))
        writers: dict[int, pq.ParquetWriter] = {}
        try:
            for table in self._tables():
                numbers = table["ordinal"].to_numpy() // rows
                for number in np.unique(numbers).tolist():
                    if number not in writers:
                        path = scratch / f"{number:03d}.parquet"
                        writers[number] = pq.ParquetWriter(path, table.schema, compression="lz4")
                    writers[number].write_table(table.filter(pa.array(numbers == number)))
            for number in sorted(writers):
                writers[number].close()
                yield pq.read_table(scratch / f"{number:03d}.parquet", schema=OUTCOME_SCHEMA)
        finally:
            for writer in writers.values():
                durable.abandon(writer)
            shutil.rmtree(scratch, ignore_errors=True)


def _carried_over(generation: pa.StructArray, edited: np.ndarray) -> pa.StructArray:
    """Return the records with the statuses that they have as carried over, and a flag where a person has edited."""
    fields = {field.name: generation.field(field.name) for field in GENERATION_TYPE}
    is_quarantined = pc.equal(fields["status"], QUARANTINED)
    fields["status"] = pc.if_else(pa.array(edited), KEPT, pc.if_else(is_quarantined, QUARANTINED, REUSED))
    if fields["flags"].null_count:
        fields["flags"] = pa.array([old or [] for old in fields["flags"].to_pylist()], fields["flags"].type)
    return flagged(pa.StructArray.from_arrays(list(fields.values()), fields=list(GENERATION_TYPE)), edited, EDITED)
