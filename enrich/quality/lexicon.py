"""Lexicons: lists of words and phrases in data files, found in texts word by word, never inside of words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

_DIRECTORY = Path(__file__).resolve().parent.parent / "lexicons"
_TOKEN = re.compile(r"[^\W_]+(?:'(?=[^\W\d_])[^\W_]+)*")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z][a-z0-9]*)*")

T = TypeVar("T")


def tokens_of(text: str) -> list[str]:
    """Cut a text into its words, lower-case, hyphens and all other marks between them: [`off`, `white`]."""
    if text.isascii():  # the quicker of two ways to the same words
        return _ASCII_TOKEN.findall(text.lower())
    return _TOKEN.findall(text.lower().replace("’", "'"))


class Phrases(Generic[T]):
    """Phrases, each with something that it stands for, and where they are in a text."""

    def __init__(self, entries: Mapping[str, T]) -> None:
        # By their first words, then by their second ones, "" for none.
        self._by_first: dict[str, dict[str, list[tuple[tuple[str, ...], T]]]] = {}
        for phrase, value in entries.items():
            words = tuple(tokens_of(phrase))
            if words:
                by_second = self._by_first.setdefault(words[0], {})
                by_second.setdefault("".join(words[1:2]), []).append((words, value))
        for by_second in self._by_first.values():
            for candidates in by_second.values():
                candidates.sort(key=lambda candidate: -len(candidate[0]))
        self._firsts = frozenset(self._by_first)

    def find(self, tokens: Sequence[str], known: Set[str]) -> list[tuple[int, int, T]]:
        """Return (first token, token after the last, value) from left to right, the longest phrase at each place.

        `known` is the set of `tokens`: most have the first word of no phrase.
        """
        if self._firsts.isdisjoint(known):
            return []
        found: list[tuple[int, int, T]] = []
        end = 0
        for place in [place for place, token in enumerate(tokens) if token in self._firsts]:
            by_second = self._by_first[tokens[place]]
            second = tokens[place + 1] if place + 1 < len(tokens) else ""
            if place < end or not (second in by_second or "" in by_second):
                continue
            for words, value in (*by_second.get(second, ()), *by_second.get("", ())):
                if len(words) == 1 or tuple(tokens[place : place + len(words)]) == words:
                    end = place + len(words)
                    found.append((place, end, value))
                    break
        return found


@cache
def entries(name: str) -> tuple[str, ...]:
    """Return a lexicon's lines without its comments."""
    lines = (_DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


@cache
def groups(name: str) -> dict[str, tuple[str, ...]]:
    """Return a lexicon of lines `name: word, word`."""
    split = (line.partition(":") for line in entries(name))
    return {head.strip(): tuple(word.strip() for word in rest.split(",") if word.strip()) for head, _, rest in split}
