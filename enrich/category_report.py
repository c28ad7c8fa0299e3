"""A look over the category files: what each says, and what is wrong with any of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from enrich.categories import BUILT_IN, Categories, category_files, normal, read_category
from enrich.errors import ConfigError
from enrich.prompts import compile_template
from enrich.rulebooks import rulebook


@dataclass(frozen=True)
class Entry:
    """One category as it stands in its file, the default's limits and claims in it."""

    name: str
    path: str
    built_in: bool
    aliases: tuple[str, ...]
    attributes: tuple[str, ...]
    claims: int
    tone: str
    words: tuple[int, int]
    sentences: tuple[int, int]


def check_categories(directory: Path | None = None) -> tuple[list[Entry], list[str]]:
    """Return all categories and what is wrong with their files, each as one line that names the file."""
    problems: list[str] = []
    read = {}
    for path in category_files(directory):
        try:
            read[path] = read_category(path)
        except ConfigError as error:
            problems.append(str(error))
    problems += _shared_aliases({path: data["aliases"] for path, data in read.items()})
    for path, data in read.items():
        for name in ("aliases", "attributes", "claims"):
            problems += _twice(path, name, data.get(name, []))
    if problems:
        return [], problems
    entries = []
    for category in Categories(directory=directory):
        try:
            compile_template(category.template, str(category.path))
            limits = rulebook(category, {}).limits
        except ConfigError as error:
            problems.append(str(error))
            continue
        entries.append(
            Entry(
                category.name,
                str(category.path),
                category.path.parent == BUILT_IN,
                category.aliases,
                category.attributes,
                len(category.claims),
                category.tone,
                (limits.min_words, limits.max_words),
                (limits.min_sentences, limits.max_sentences),
            )
        )
    return entries, problems


def _shared_aliases(aliases: dict[Path, list[str]]) -> list[str]:
    """Find aliases in two files of one directory; a directory's own go before the built-in ones'."""
    files: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path, names in aliases.items():
        for name in dict.fromkeys(map(normal, names)):
            files[path.parent, name].append(path)
    return [
        f"{paths[0]} and {paths[1].name} both have the alias {name!r}"
        for (_, name), paths in files.items()
        if len(paths) > 1
    ]


def _twice(path: Path, key: str, names: list[str]) -> list[str]:
    seen: set[str] = set()
    found = []
    for name in map(normal, names):
        if not name:
            found.append(f"{path}: {key} has an entry without a letter or a digit")
        elif name in seen:
            found.append(f"{path}: {key} has {name!r} twice")
        seen.add(name)
    return found
