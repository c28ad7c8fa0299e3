from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer

from enrich.engine import word_memory
from enrich.engine.word_memory import WordMemory

HOME_MINI = Path(word_memory.__file__).parent.parent / "models" / "home-mini"
TOKENIZER: Any = AutoTokenizer.from_pretrained(HOME_MINI)
MEMORY = WordMemory(TOKENIZER)
# What decides where words end, and what Unicode and Python take for white space or a digit and others do not.
PIECES = [
    "\n",
    " ",
    "  ",
    "\t",
    "\r\n",
    "\x1c",
    "\x85",
    "\u00a0",
    "\u2003",
    "'",
    "'s",
    "'ll",
    "'S",
    "’s",
    "1",
    "23",
    "½",
    "²",
]
PIECES += ["a", "Oak", "é", "木", "e\u0301", "🪑", "-", "...", "<|endoftext|>", "title:", "_", "\x00", "\x7f"]


def expected(texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = TOKENIZER(texts, split_special_tokens=True)["input_ids"]
    return ids


@given(st.lists(st.lists(st.sampled_from(PIECES)).map("".join) | st.text(), min_size=1, max_size=4))
def test_remembered_words_are_the_tokenizers_own(texts: list[str]) -> None:
    assert MEMORY.encode(texts) == expected(texts)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memory, "_MOST_REMEMBERED", 10)
    memory = WordMemory(TOKENIZER)
    for number in range(100):
        texts = [f"title: oak table {number}\ncolor: red", "x" * 1_000, "é" * 1_000]
        assert memory.encode(texts) == expected(texts)
        assert len(memory._words) <= 10 and len(memory._lines) <= 10
        assert all(len(text) <= 200 for text in [*memory._words, *memory._lines])


def changed(tmp_path: Path, **parts: Any) -> Any:
    """Return home-mini's tokenizer with some parts of it set otherwise."""
    settings = json.loads((HOME_MINI / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings | parts), encoding="utf-8")
    config = (HOME_MINI / "tokenizer_config.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return AutoTokenizer.from_pretrained(tmp_path)


def test_it_suits_tokenizers_that_cut_as_gpt2s_does_and_no_others(tmp_path: Path) -> None:
    assert WordMemory.suits(TOKENIZER)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    whole = level | {"use_regex": False}
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]}
    for other in (whole, level | {"add_prefix_space": True}, digits):
        # The class that transformers has for GPT-2 sets the cut itself; others take the file's.
        assert not WordMemory.suits(_Bare(changed(tmp_path, pre_tokenizer=other), other))
    assert not WordMemory.suits(_Bare(TOKENIZER, level, normalizer={"type": "Lowercase"}))
    begins = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    assert not WordMemory.suits(_Bare(TOKENIZER, level, post_processor=begins))
    added = changed(tmp_path)
    added.add_tokens(AddedToken("solid oak", special=False))
    assert not WordMemory.suits(added)


def test_padding_and_truncation_that_training_has_left_in_the_file_are_not_for_words(tmp_path: Path) -> None:
    padding = {
        "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }  # fmt: skip
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    left = changed(tmp_path, padding=padding, truncation=truncation)
    assert left.backend_tokenizer.padding and left.backend_tokenizer.truncation
    texts = ["title: extraordinarily long-winded table\ncolor: red"]
    assert WordMemory.suits(left)
    assert WordMemory(left).encode(texts) == expected(texts)


class _Bare:
    """A tokenizer whose backend is made of a file's settings and nothing else."""

    def __init__(self, like: Any, pre_tokenizer: dict[str, Any], **parts: Any) -> None:
        from tokenizers import Tokenizer

        settings = json.loads(like.backend_tokenizer.to_str()) | {"pre_tokenizer": pre_tokenizer} | parts
        self.backend_tokenizer = Tokenizer.from_str(json.dumps(settings))
        self.added_tokens_decoder = like.added_tokens_decoder
