"""Token ids of words and lines seen before: catalogs say the same ones over and over, and a tokenizer takes its time.

Tokenizers made like GPT-2's cut a text into words before anything else, and no token reaches over two of them. So the
ids of a text are those of its words, and where a line begins and ends with a visible character, of its lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

# GPT-2's own cut for texts of ASCII characters; Unicode's letters and digits are the tokenizer's to know.
_WORD = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)
_MOST_REMEMBERED = 65_536
_LONGEST_REMEMBERED = 200  # characters; no word or line that comes again is longer


class WordMemory:
    """Encodes texts by what is remembered of their lines and words; the tokenizer is asked for what is not.

    Special tokens in the texts read as plain text.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take a tokenizer of transformers that it suits."""
        self._backend = tokenizer.backend_tokenizer
        # As transformers sets them for a call without padding, truncation or special tokens in the text; once, because
        # another thread may be decoding while these texts are encoded.
        self._backend.no_padding()
        self._backend.no_truncation()
        self._backend.encode_special_tokens = True
        self._words: dict[str, list[int]] = {}
        self._lines: dict[str, list[int]] = {}

    @staticmethod
    def suits(tokenizer: Any) -> bool:
        """Say whether a tokenizer of transformers cuts texts as GPT-2's does and adds nothing to them."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or backend.normalizer is not None:
            return False
        cut, adds = _settings(backend.pre_tokenizer), _settings(backend.post_processor)
        return (
            cut.get("type") == "ByteLevel"
            and cut.get("use_regex", True)
            and not cut.get("add_prefix_space", True)
            and adds.get("type", "ByteLevel") == "ByteLevel"
            and getattr(backend.model, "dropout", None) is None
            and all(token.special for token in tokenizer.added_tokens_decoder.values())
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        lines_of = [_lines(text) for text in texts]
        lines = {line for lines in lines_of for line in lines} - self._lines.keys()
        cut = {line: _WORD.findall(line) if line.isascii() else [line] for line in lines}
        words = list({word for words in cut.values() for word in words} - self._words.keys())
        found = self._backend.encode_batch_fast(words)
        self._words |= ((word, one.ids) for word, one in zip(words, found, strict=True))
        for line, words_of in cut.items():
            self._lines[line] = [token_id for word in words_of for token_id in self._words[word]]
        encoded = [[token_id for line in lines for token_id in self._lines[line]] for lines in lines_of]
        _forget(self._words, words)
        _forget(self._lines, lines)
        return encoded


def _lines(text: str) -> list[str]:
    """Cut a text into lines and the ends between them, or leave it whole where white space could reach over an end."""
    lines = text.split("\n")
    if len(lines) == 1 or not all(line and line == line.strip() for line in lines):
        return [text]
    return [part for line in lines for part in (line, "\n")][:-1]


def _forget(memory: dict[str, list[int]], added: Iterable[str]) -> None:
    """Bound what is remembered after something was added."""
    if len(memory) > _MOST_REMEMBERED:
        memory.clear()  # what is said again and again is soon back
        return
    for text in added:
        if len(text) > _LONGEST_REMEMBERED:
            del memory[text]


def _settings(part: Any) -> dict[str, Any]:
    """Return how a part of a tokenizer is set, nothing if there is no such part."""
    settings: dict[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return settings
