"""The tokenizer: prompts to token ids, as lines of text or through a chat template, and token ids to texts.

What stands in a catalog is text: a special token in it is read as the characters that it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enrich.engine.files import ModelFiles
from enrich.engine.word_memory import WordMemory
from enrich.errors import ModelError, one_line

# Some chat templates state today's date, but a text must not depend on the day that it is written.
_ONE_DAY = "{% macro strftime_now(format) %}01 Jan 2025{% endmacro %}"
# Vocabularies are padded to round sizes: Pythia has 50,277 tokens for 50,688 ids, phi-2 50,295 for 51,200, DeepSeek
# 100,015 for 102,400. None known to us leaves more than 3 % of its ids without a token; another model's tokenizer, such
# as one of 8,192 tokens for 50,257 ids, leaves most. Multiples of 128 are usual, which is much of a small vocabulary.
_LEAST_SHARE_WITH_TOKEN = 0.9
_LEAST_PADDING = 128


class Tokenizer:
    """A model's tokenizer; with `chat`, prompts go through its chat template.

    Raises ModelError if the files hold none, one that doesn't belong to the model, or a chat template that can't be
    used.
    """

    def __init__(self, files: ModelFiles, chat: bool = False) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(files.directory, trust_remote_code=False)
        except Exception as error:  # transformers raises many kinds; all mean that these files are no tokenizer
            raise ModelError(f"model {files.name}: its tokenizer can't be loaded: {one_line(error)}") from error
        check_belongs(self._tokenizer, files)
        self._chat = _Chat(files, self._tokenizer) if chat else None
        self._memory = WordMemory(self._tokenizer) if not chat and WordMemory.suits(self._tokenizer) else None

    def encode(self, texts: Sequence[str], systems: Sequence[str] | None = None) -> list[list[int]]:
        """Encode prompts, with what the model wants before them (a beginning-of-text token, or nothing).

        For a chat, a text is the user's message, and `systems` has what the model is told before each.
        """
        if not texts:
            return []
        plain = [_unicode(text) for text in texts]
        if self._chat:
            return self._chat.encode(plain, [_unicode(text) for text in systems or [""] * len(plain)])
        return self._memory.encode(plain) if self._memory else self._encode(plain)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(
            texts,
            split_special_tokens=True,
            truncation=False,
            verbose=False,
            return_attention_mask=False,  # as long as the ids, and never looked at: a third of the time
            return_token_type_ids=False,
        )["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode generated ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text

    def decode_after(self, prompt_token_ids: Sequence[int], token_ids: Sequence[int]) -> str:
        """Decode what follows a prompt, with the space between them, which a text alone may lack or have too much."""
        prompt = self.decode(prompt_token_ids)
        return self.decode([*prompt_token_ids, *token_ids])[len(prompt) :]

    def token_texts(self) -> list[str]:
        """Return what each token id stands for by itself, special tokens for nothing."""
        return [self.decode([token_id]) for token_id in range(len(self._tokenizer))]

    @property
    def end_token_id(self) -> int | None:
        """Return the end-of-text token's id."""
        end: int | None = self._tokenizer.eos_token_id
        return end


class _Chat:
    """A chat template: system prompt and message in, a prompt at whose end the model's turn begins out."""

    def __init__(self, files: ModelFiles, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._template = _ONE_DAY + tokenizer.get_chat_template()
        except ValueError as error:  # several, and none that is the default
            raise ModelError(f"model {files.name}: {one_line(error)}") from error
        self._takes_system = self._states(self._messages("told before", "said by the user", True))
        if not self._takes_system:
            try:
                usable = self._states(self._messages("told before", "said by the user", False), or_fail=True)
            except Exception as error:  # whatever the template raises: it is the model's
                raise ModelError(f"model {files.name}: its chat template fails: {one_line(error)}") from error
            if not usable:
                raise ModelError(
                    f"model {files.name}: its chat template leaves out the user's message; give --no-chat, or a"
                    " --template of your own with it"
                )

    def encode(self, texts: Sequence[str], systems: Sequence[str]) -> list[list[int]]:
        chats = [self._messages(system, text, self._takes_system) for system, text in zip(systems, texts, strict=True)]
        try:
            return self._token_ids(chats)
        except ValueError:
            if len(texts) > 1:  # the others of the batch are as they would be without it
                return [self.encode([text], [system])[0] for text, system in zip(texts, systems, strict=True)]
            # A control token in the text that the tokenizer makes of plain text as well.
            return self._token_ids([self._messages(systems[0], self._broken_up(texts[0]), self._takes_system)])

    def _token_ids(self, chats: list[list[dict[str, str]]]) -> list[list[int]]:
        # The template's control tokens are tokens, those in the messages are text.
        ids: list[list[int]] = self._render(chats, tokenize=True, return_dict=True, sanitize_control_tokens=True)[
            "input_ids"
        ]
        return ids

    def _broken_up(self, text: str) -> str:
        for token in sorted(self._tokenizer.added_tokens_encoder, key=len, reverse=True):
            if not token.isspace():
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _messages(self, system: str, text: str, takes_system: bool) -> list[dict[str, str]]:
        if system and takes_system:
            return [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return [{"role": "user", "content": f"{system}\n\n{text}" if system else text}]

    def _states(self, messages: list[dict[str, str]], *, or_fail: bool = False) -> bool:
        """Say whether the template takes these messages and leaves out none; some refuse a system role."""
        try:
            rendered: str = self._render(messages, tokenize=False)
        except Exception:  # such as the template's own raise_exception
            if or_fail:
                raise
            return False
        return all(message["content"] in rendered for message in messages)

    def _render(self, conversation: Any, **settings: Any) -> Any:
        return self._tokenizer.apply_chat_template(
            conversation,
            add_generation_prompt=True,
            chat_template=self._template,
            enable_thinking=False,  # for templates that ask; a description is no riddle
            **settings,
        )


def check_belongs(tokenizer: Any, files: ModelFiles) -> None:
    """Raise ModelError for a tokenizer with ids that the model doesn't know, or with far fewer than it knows."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if files.vocabulary and largest >= files.vocabulary:
        raise ModelError(
            f"model {files.name}: its tokenizer has token ids up to {largest} where the model knows {files.vocabulary}:"
            " they do not belong together; copy the tokenizer's files from the model that it was made from"
        )
    without = files.vocabulary - (largest + 1)
    if without > max(_LEAST_PADDING, (1 - _LEAST_SHARE_WITH_TOKEN) * files.vocabulary):
        raise ModelError(
            f"model {files.name}: its tokenizer has {largest + 1} tokens where the model knows {files.vocabulary}: they"
            " do not belong together; copy the tokenizer's files from the model that it was made from"
        )


def _unicode(text: str) -> str:
    # Lone surrogates, which JSON can carry, are no Unicode text.
    return text.encode("utf-8", "replace").decode()
