"""A shard: which of several runs, that know nothing of each other, a product belongs to.

It follows from the product's id (its title where there is none), not from its place: from night to night a product
stays in its shard, and rows that are equal are in the same one, so that their keys are those of a run over the whole.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

ROW = "_row"  # the column of a shard's file that says which row of the catalog it is


@dataclass(frozen=True)
class Shard:
    """One of `of` shards, `number` counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/3". Raises ValueError if it is no shard."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text!r} is no shard such as 2/3")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, product_id: str, title: str) -> bool:
        """Say whether a product belongs to this shard."""
        name = f"id {product_id}" if product_id else f"title {title}"
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1

    def path(self, output: Path) -> Path:
        """Return the file of this shard of an output."""
        return output.with_name(f"{output.stem}.shard-{self.number}-of-{self.of}{output.suffix}")
