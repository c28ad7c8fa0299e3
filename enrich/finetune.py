"""Make a model: train a causal language model on a catalog's own descriptions.

The prompt is what `enrich run` will render, the completion is the row's description and the end-of-text token. The
loss is taken on the completion alone, so that the model learns to write texts and to stop, not to write prompts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from enrich.catalog import Catalog, RoleOptions
from enrich.catalog.source_text import clean
from enrich.categories import Categories
from enrich.engine.files import find_model
from enrich.errors import CatalogError, ConfigError
from enrich.prompts import compile_template, read_template, render

END_OF_TEXT = "<|endoftext|>"
IGNORED = -100  # label of a position that the loss leaves out (torch.nn.CrossEntropyLoss.ignore_index)


@dataclass(frozen=True)
class Pair:
    """A rendered prompt and the text that should follow it; `group` ties the variants of one product together."""

    group: str
    prompt: str
    text: str
    category: str = ""


@dataclass(frozen=True)
class Size:
    """Shape of a GPT-2 made from scratch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int


SIZES = {
    "mini": Size(layers=6, width=256, heads=4, vocabulary=6144, context=512),
    "test": Size(layers=2, width=64, heads=2, vocabulary=512, context=128),
}


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are those of the embedded model."""

    steps: int = 4800
    batch_size: int = 16
    learning_rate: float = 1.2e-3
    warmup_steps: int = 150
    weight_decay: float = 0.05
    dropout: float = 0.0
    max_tokens: int = 192
    held_out: float = 0.1
    evaluate_every: int = 500
    seed: int = 7


def read_pairs(paths: Sequence[Path], told: RoleOptions, template: str | None = None) -> list[Pair]:
    """Read the rows that have a title and a description, their prompts rendered as a run would render them.

    `template` takes the place of the categories' own.

    Rows that share an id, or else a title, are one product. Raises CatalogError if there are none.
    """
    categories = Categories(template)
    templates = {category: compile_template(category.template, category.name) for category in categories}
    pairs = []
    for path in paths:
        for _, products in Catalog(path, told).batches():
            for product in products:
                category = categories.of(product)
                text = clean(product.description)
                if product.title and text:
                    prompt = render(templates[category], category.arrange(product))
                    pairs.append(Pair(product.id or product.title, prompt, text, category.name))
    if not pairs:
        raise CatalogError(f"{', '.join(map(str, paths))}: no row has a title and a description to learn from")
    return pairs


def split(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Split by a hash of the group, so that no product has a text on both sides, on this run or the next."""

    def is_held_out(pair: Pair) -> bool:
        digest = hashlib.blake2b(pair.group.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < held_out * 2**64

    return [pair for pair in pairs if not is_held_out(pair)], [pair for pair in pairs if is_held_out(pair)]


def make_tokenizer(texts: Iterator[str], size: Size) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, GPT-2's kind, on the texts."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=size.vocabulary, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        model_max_length=size.context,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, size: Size, dropout: float) -> GPT2LMHeadModel:
    """Make a GPT-2 with random weights for this tokenizer.

    `dropout` is that of the residual stream and the embeddings; that of attention would cost its fused kernel.
    """
    end = tokenizer.eos_token_id
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            # The same function as GPT-2's gelu_new, in one kernel: a third faster to train on a CPU.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
        )
    )


class PairDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Token ids and labels of each pair: prompt masked, end-of-text learned."""

    def __init__(self, pairs: Sequence[Pair], tokenizer: Any, max_tokens: int) -> None:
        prompts = tokenizer([pair.prompt for pair in pairs], split_special_tokens=True)["input_ids"]
        texts = tokenizer([" " + pair.text for pair in pairs], add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        self.rows = [
            {
                "input_ids": [*prompt, *text, tokenizer.eos_token_id],
                "labels": [IGNORED] * len(prompt) + [*text, tokenizer.eos_token_id],
            }
            for prompt, text in zip(prompts, texts, strict=True)
            if len(prompt) + len(text) < max_tokens
        ]
        self.too_long = len(pairs) - len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest row: [batch, longest]. The mask, not the token, says what is padding."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", 0), "attention_mask": mask, "labels": padded("labels", IGNORED)}


def finetune(
    catalogs: Sequence[Path],
    output: Path,
    *,
    validation: Path | None,
    template: Path | None,
    base: str | None,
    size: str | None,
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Train on catalogs; `settings` are fields of Recipe, None for the default. See `train`.

    Measured on the catalog `validation`, or without it on a share of the products that is held out. A `template` file,
    or that of the base model, renders the prompts, and is written to the model's `enrich.toml`, where runs find it.
    """
    if size is not None and size not in SIZES:
        raise ConfigError(f"--from-scratch {size}: the sizes are {', '.join(SIZES)}")
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigError("training needs the package accelerate: pip install 'enrich[train]'")
    recipe = replace(Recipe(), **{name: value for name, value in settings.items() if value is not None})
    files = find_model(base) if base else None
    source = read_template(template) if template else files.template if files else None
    pairs = read_pairs(catalogs, RoleOptions(), source)
    held_out = read_pairs([validation], RoleOptions(), source) if validation else None
    metrics = train(
        pairs,
        output,
        held_out=held_out,
        base=str(files.directory) if files else None,
        size=SIZES[size or "mini"],
        recipe=recipe,
    )
    if source:
        (output / "enrich.toml").write_text(f"template = {json.dumps(source)}\n", encoding="utf-8")
    return metrics


def train(
    pairs: Sequence[Pair],
    output: Path,
    *,
    held_out: Sequence[Pair] | None = None,
    base: str | None = None,
    size: Size = SIZES["mini"],
    recipe: Recipe | None = None,
) -> dict[str, float]:
    """Train on the pairs and write a Hugging Face model directory to `output`.

    `held_out` is what to measure on; without it a share of the pairs' products is set aside. `base` is a model to go
    on from; without it one of `size` is made from scratch. An interrupted training goes on
    from its last checkpoint in `<output>.training/`. Returns the held-out figures, which also stand in
    `metrics.json`: loss in nats per token, perplexity per token, bits per byte of text.
    """
    recipe = recipe or Recipe()
    torch.manual_seed(recipe.seed)
    training_pairs, held_out_pairs = (pairs, held_out) if held_out else split(pairs, recipe.held_out)
    if not training_pairs or not held_out_pairs:
        raise ConfigError(
            f"{len(pairs)} texts are too few to learn from and hold out {recipe.held_out:.0%} of the products"
        )
    if base is None:
        tokenizer = make_tokenizer((f"{pair.prompt} {pair.text}" for pair in training_pairs), size)
        model: Any = make_model(tokenizer, size, recipe.dropout)
    else:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    training_set = PairDataset(training_pairs, tokenizer, recipe.max_tokens)
    held_out_set = PairDataset(held_out_pairs, tokenizer, recipe.max_tokens)

    scratch = output.with_name(output.name + ".training")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch),
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=64,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            adam_beta2=0.98,
            optim="adamw_torch_fused",
            bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
            train_sampling_strategy="group_by_length",
            eval_strategy="steps",
            eval_steps=recipe.evaluate_every,
            save_steps=recipe.evaluate_every,
            save_total_limit=2,
            logging_steps=50,
            report_to=[],
            seed=recipe.seed,
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=training_set,
        eval_dataset=torch.utils.data.Subset(
            held_out_set, range(0, len(held_out_set), max(1, len(held_out_set) // 512))
        ),
        data_collator=collate,
    )
    resumable = any(scratch.glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resumable or None)

    # Weighted by tokens, which the Trainer's mean over batches is not.
    metrics = measure(model, tokenizer, held_out_set)
    metrics |= {
        "training_pairs": len(training_set),
        "held_out_pairs": len(held_out_set),
        "too_long": training_set.too_long,
    }
    metrics |= {"parameters": model.num_parameters()}
    save(model, tokenizer, output)
    history = {"recipe": asdict(recipe), "held_out": metrics, "log": trainer.state.log_history}
    (output / "metrics.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    return metrics


@torch.inference_mode()
def measure(model: Any, tokenizer: Any, dataset: PairDataset, batch_size: int = 64) -> dict[str, float]:
    """Measure the loss on the completions, end-of-text among them, as exact sums over tokens."""
    model.eval()
    total, tokens, num_bytes = 0.0, 0, 0
    for start in range(0, len(dataset), batch_size):
        rows = dataset.rows[start : start + batch_size]
        batch = {name: value.to(model.device) for name, value in collate(rows).items()}
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        ).item()
        completions = [[label for label in row["labels"] if label != IGNORED] for row in rows]
        tokens += sum(map(len, completions))
        num_bytes += sum(len(tokenizer.decode(ids[:-1]).encode()) for ids in completions)
    return {
        "loss": total / tokens,
        "perplexity": math.exp(total / tokens),
        "bits_per_byte": total / num_bytes / math.log(2),
        "bytes_per_token": num_bytes / tokens,
    }


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write weights (bf16 safetensors), configuration and tokenizer."""
    output.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(output, safe_serialization=True)
    tokenizer.save_pretrained(output)
