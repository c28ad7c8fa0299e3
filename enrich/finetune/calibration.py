"""Calibration: a model that is too sure of itself, after many passes over few texts, made as sure as it is right.

One number, the temperature by which all logits are divided, is fitted to texts that it has not learned (Guo et al.
2017, "On calibration of modern neural networks"). It goes into the weights, so that whoever loads them has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from enrich.errors import ConfigError
from enrich.finetune.dataset import IGNORED, PairDataset, batch_size, collate

_TEMPERATURES = tuple(round(0.7 + 0.05 * step, 2) for step in range(27))  # 0.7 to 2.0
_MOST_TEXTS = 1024


def final_norm(model: Any) -> torch.nn.LayerNorm:
    """Return the last normalization before the output layer. Raises ConfigError if it is of another kind."""
    *_, last = model.base_model.children()
    if not isinstance(last, torch.nn.LayerNorm):
        raise ConfigError(f"--calibrate: a {model.config.model_type} model does not end in a layer norm")
    return last


@torch.inference_mode()
def fit_temperature(model: Any, dataset: PairDataset, temperatures: Sequence[float] = _TEMPERATURES) -> float:
    """Return the temperature at which the loss on a dataset's labels is lowest; looks at 1,024 of its texts at most."""
    model.eval()
    step = -(-len(dataset) // _MOST_TEXTS)
    order = sorted(range(0, len(dataset), step), key=lambda index: len(dataset[index]["labels"]))
    size = batch_size(len(dataset[order[-1]]["labels"]), model.get_input_embeddings().weight.shape[0], most=16)
    nats = torch.zeros(len(temperatures), dtype=torch.float64)
    for start in range(0, len(order), size):
        batch = collate([dataset[index] for index in order[start : start + size]])
        labels = batch["labels"][:, 1:]
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        logits = model(**inputs).logits[:, :-1]
        is_learned = labels != IGNORED
        logits, learned = logits[is_learned.to(logits.device)].float(), labels[is_learned]  # [learned, vocabulary]
        chosen = logits.gather(1, learned[:, None].to(logits.device)).squeeze(1)
        for place, temperature in enumerate(temperatures):
            lost = torch.logsumexp(logits / temperature, dim=1) - chosen / temperature
            nats[place] += lost.double().sum().item()
    return temperatures[int(nats.argmin())]


@torch.no_grad()
def divide_logits(model: Any, temperature: float) -> None:
    """Divide all logits of a model by a number, in its weights: its output layer must be linear, without a bias."""
    norm = final_norm(model)
    norm.weight.div_(temperature)
    if norm.bias is not None:
        norm.bias.div_(temperature)
