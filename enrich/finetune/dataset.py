"""The dataset: pairs as token ids, and a model's loss on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from enrich.finetune.pairs import Pair

IGNORED = -100  # label of a position that the loss leaves out (torch.nn.CrossEntropyLoss.ignore_index)
_CHUNK = 4096  # pairs tokenized at a time
_LOGITS = 2**28  # of a batch that is measured: 1 GiB in float32


class PairDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Token ids and labels of the pairs that fit: prompt masked unless it is to be learned, end-of-text learned.

    `kept` are their places among the pairs, `too_long` counts the others.
    """

    def __init__(self, pairs: Sequence[Pair], tokenizer: Any, max_tokens: int, *, learn_prompts: bool = False) -> None:
        end = tokenizer.eos_token_id
        self.kept: list[int] = []
        self._learn_prompts = learn_prompts
        self._rows: list[np.ndarray[Any, np.dtype[np.int32]]] = []
        self._prompt_lengths: list[int] = []
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs[start : start + _CHUNK]
            prompts = tokenizer([pair.prompt for pair in chunk], split_special_tokens=True, verbose=False)
            texts = tokenizer(
                [" " + pair.text for pair in chunk], add_special_tokens=False, split_special_tokens=True, verbose=False
            )
            for offset, (prompt, text) in enumerate(zip(prompts["input_ids"], texts["input_ids"], strict=True)):
                if len(prompt) + len(text) < max_tokens:
                    self.kept.append(start + offset)
                    self._rows.append(np.array([*prompt, *text, end], np.int32))
                    self._prompt_lengths.append(len(prompt))
        self.too_long = len(pairs) - len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids = self._rows[index].tolist()
        masked = 0 if self._learn_prompts else self._prompt_lengths[index]
        return {"input_ids": ids, "labels": [IGNORED] * masked + ids[masked:]}


class Noised(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A dataset in which a share of each text's tokens, but not its labels, is drawn at random, anew each time."""

    def __init__(self, dataset: PairDataset, share: float, vocabulary: int) -> None:
        self._dataset, self._share, self._vocabulary = dataset, share, vocabulary

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self._dataset[index]
        size = (len(row["input_ids"]),)
        hit, drawn = (torch.rand(size) < self._share).tolist(), torch.randint(self._vocabulary, size).tolist()
        ids = [
            other if is_hit and label != IGNORED else token
            for token, label, is_hit, other in zip(row["input_ids"], row["labels"], hit, drawn, strict=True)
        ]
        return row | {"input_ids": ids}


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest row: [batch, longest]. The mask, not the token, says what is padding."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", 0), "attention_mask": mask, "labels": padded("labels", IGNORED)}


def batch_size(max_tokens: int, vocabulary: int, most: int = 64) -> int:
    """Return how many rows can be measured at once before their logits fill the memory."""
    return max(1, min(most, _LOGITS // (max_tokens * vocabulary)))


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss on one text in nats, over its tokens with end-of-text among them, and its length in bytes."""

    nats: float
    tokens: int
    num_bytes: int


@torch.inference_mode()
def measure(model: Any, tokenizer: Any, dataset: PairDataset) -> list[Loss]:
    """Measure the loss on each row's labels."""
    model.eval()
    losses = []
    order = sorted(range(len(dataset)), key=lambda index: len(dataset[index]["labels"]))
    longest = len(dataset[order[-1]]["labels"]) if order else 1
    size = batch_size(longest, model.get_input_embeddings().weight.shape[0])
    for start in range(0, len(order), size):
        rows = [dataset[index] for index in order[start : start + size]]
        batch = {name: value.to(model.device) for name, value in collate(rows).items()}
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        # [batch, vocabulary, positions] against [batch, positions]
        nats = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none"
        )
        for row, total in zip(rows, nats.double().sum(1).tolist(), strict=True):
            learned = [label for label in row["labels"] if label != IGNORED]
            losses.append(Loss(total, len(learned), len(tokenizer.decode(learned[:-1]).encode())))
    by_place = dict(zip(order, losses, strict=True))
    return [by_place[index] for index in range(len(dataset))]


def figures(losses: Iterable[Loss]) -> dict[str, float]:
    """Sum up losses: nats and perplexity per token, bits and perplexity per byte, bytes per token."""
    losses = list(losses)
    nats, tokens = sum(loss.nats for loss in losses), sum(loss.tokens for loss in losses)
    num_bytes = sum(loss.num_bytes for loss in losses)
    return {
        "loss": nats / tokens,
        "perplexity": _exp(nats / tokens),
        "bits_per_byte": nats / num_bytes / math.log(2),
        "perplexity_per_byte": _exp(nats / num_bytes),
        "bytes_per_token": num_bytes / tokens,
    }


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))  # beyond it is no float
