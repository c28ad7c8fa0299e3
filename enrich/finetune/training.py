"""Training: the Trainer of transformers with early stopping, that a killed process goes on with where it was."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as logging_of_transformers

from enrich.engine.files import ModelFiles
from enrich.engine.loading import pick_device, pick_dtype
from enrich.errors import CheckpointMismatch, ConfigError, Interrupted
from enrich.finetune.base import (
    SIZES,
    Size,
    check_lora,
    load_base,
    load_tokenizer,
    make_model,
    make_tokenizer,
    save,
    with_lora,
)
from enrich.finetune.calibration import divide_logits, final_norm, fit_temperature
from enrich.finetune.dataset import Noised, PairDataset, batch_size, collate, figures, measure
from enrich.finetune.pairs import Pair, split
from enrich.timing.progress import duration

SCHEDULES = ("cosine", "one-cycle")
_LOG_SECONDS = 60.0
_EVALUATED = 512  # texts, or up to twice as many, that are looked at on the way
log = logging.getLogger("enrich")


@dataclass(frozen=True)
class Recipe:
    """How to train. None: what suits the base.

    The cosine schedule warms up over `warmup_steps`, a tenth of all at most; one-cycle over the first 30 % (Smith and
    Topin 2017). Both come down to 0 along a cosine. Training ends after `steps`, or `epochs` over the texts, or once
    `patience` evaluations in a row have brought no better loss; the best weights are kept. With patience 0 it goes on
    to the end, and the last ones are. `word_dropout` is the share of a text's tokens that the model is shown wrongly
    while it learns the right ones (Bowman et al. 2016, section 3.1): it learns fewer texts by heart. With `calibrate`
    the finished model's logits are divided by the number that suits the held-out texts best.
    """

    steps: int = 4800
    epochs: float | None = None
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float | None = None
    schedule: str = "cosine"
    warmup_steps: int = 150
    weight_decay: float = 0.05
    dropout: float = 0.0
    word_dropout: float = 0.0
    calibrate: bool = False
    lora: int = 0
    max_tokens: int | None = None
    learn_prompts: bool = False
    held_out: float = 0.1
    evaluate_every: int = 500
    patience: int = 5
    seed: int = 7

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out {self.held_out}: a share of at least 0 and below 1 is wanted")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule {self.schedule}: the schedules are {', '.join(SCHEDULES)}")

    def suited_to(self, context: int, from_scratch: bool) -> Recipe:
        """Return the recipe with what was left open filled in."""
        rate = 1.2e-3 if from_scratch else 2e-4 if self.lora else 5e-5
        longest = self.max_tokens or min(context, 192 if context <= 512 else 384)
        if longest > context:
            raise ConfigError(f"max_tokens {longest}: the model's context has {context} tokens")
        return replace(self, learning_rate=self.learning_rate or rate, max_tokens=longest)


@dataclass(frozen=True)
class Training:
    """What came of a training: the held-out figures, the recipe as it was followed, and the Trainer's log."""

    metrics: dict[str, float]
    recipe: Recipe
    log: list[dict[str, float]]


def train(
    pairs: Sequence[Pair],
    output: Path,
    *,
    held_out: Sequence[Pair] | None = None,
    base: ModelFiles | None = None,
    size: Size = SIZES["mini"],
    recipe: Recipe | None = None,
    restart: bool = False,
    should_stop: Callable[[], int] = lambda: 0,
) -> Training:
    """Train on the pairs and put weights, configuration and tokenizer into `model_directory(output)`, for `publish`.

    `held_out` is what to measure on; without it a share of the pairs' products is set aside. `base` is a model to go
    on from; without it one of `size` is made from scratch. The state lies in `<output>.training/` until the training
    is over: one that was broken off goes on from its last whole checkpoint, unless told to `restart`. `should_stop` is
    asked between steps; a number other than 0 is the signal to stop for.

    The figures: loss in nats per token, perplexity per token and per byte, bits per byte of text.

    Raises CheckpointMismatch if the state is that of another training, Interrupted if it was asked to stop.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigError("training needs the package accelerate: pip install 'enrich[train]'")
    recipe = (recipe or Recipe()).suited_to(base.context if base else size.context, from_scratch=base is None)
    if recipe.lora:
        if base is None:
            raise ConfigError("lora needs a base model: weights made from scratch have all to be learned")
        check_lora()
    learned, measured = (list(pairs), list(held_out)) if held_out else split(pairs, recipe.held_out)
    if not learned or not measured:
        raise ConfigError(
            f"{len(pairs)} texts are too few to learn from and hold out {recipe.held_out:.0%} of the products"
        )
    logging_of_transformers.set_verbosity_error()
    logging_of_transformers.disable_progress_bar()
    state = _open_state(output, _identity(learned, measured, base, size, recipe), restart)
    set_seed(recipe.seed)
    if base is None:
        tokenizer = _own_tokenizer(learned, size, state / "tokenizer")
        model: Any = make_model(tokenizer, size, recipe.dropout)
    else:
        tokenizer = load_tokenizer(base)
        model = load_base(base)
    assert recipe.max_tokens is not None
    training_set = PairDataset(learned, tokenizer, recipe.max_tokens, learn_prompts=recipe.learn_prompts)
    held_out_set = PairDataset(measured, tokenizer, recipe.max_tokens)
    _tell_lengths(training_set, held_out_set, recipe.max_tokens)
    recipe = _with_steps(recipe, len(training_set))
    if recipe.lora:
        model = with_lora(model, recipe.lora, recipe.dropout)
    trained = model.num_parameters(only_trainable=True)
    if recipe.calibrate:
        final_norm(model.get_base_model() if recipe.lora else model)  # to be told before hours of training

    log.info(
        "training %s parameters on %s texts, %s steps of %s, on %s",
        f"{trained:,}", f"{len(training_set):,}", f"{recipe.steps:,}", recipe.batch_size * recipe.accumulate,
        pick_device("auto"),
    )  # fmt: skip
    trainer = _trainer(model, recipe, training_set, held_out_set, state, should_stop)
    checkpoint = _last_checkpoint(state)
    if checkpoint is not None:
        log.info("going on from step %s", checkpoint.name.removeprefix("checkpoint-"))
    if checkpoint is None or not _took_over_finished(trainer, checkpoint, recipe):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if number := should_stop():
        raise Interrupted(
            number, f"stopped after step {trainer.state.global_step}: the same command goes on from there"
        )

    model = trainer.model.merge_and_unload() if recipe.lora else trainer.model
    temperature = fit_temperature(model, held_out_set) if recipe.calibrate else 1.0
    if temperature != 1:
        log.info("calibrated: all logits divided by %s", temperature)
        divide_logits(model, temperature)
    metrics: dict[str, float] = figures(measure(model, tokenizer, held_out_set))
    metrics |= {
        "logits_divided_by": temperature,
        "training_pairs": len(training_set),
        "held_out_pairs": len(held_out_set),
        "too_long": training_set.too_long,
        "parameters": model.num_parameters(),
        "trained_parameters": trained,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step or trainer.state.global_step,
    }
    if metrics["steps"] < recipe.steps:
        log.info("stopped early: no better loss since step %s", f"{metrics['best_step']:,}")
    save(model, tokenizer, state / "model")
    return Training(metrics, recipe, trainer.state.log_history)


def publish(output: Path) -> None:
    """Put the finished model in place of the output, and remove the training's state."""
    state = _state_directory(output)
    if output.exists():
        output.rename(state / "before")
    (state / "model").rename(output)
    shutil.rmtree(state)


def check_output(output: Path) -> None:
    """Raise ConfigError if something other than a model lies where the model is to go."""
    if output.is_dir() and any(output.iterdir()) and not (output / "config.json").is_file():
        raise ConfigError(f"{output}: has files, but is no model directory; name another")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: is a file; name a directory")


def model_directory(output: Path) -> Path:
    """Return the directory in which the model is put together before it is published."""
    return _state_directory(output) / "model"


def _state_directory(output: Path) -> Path:
    return output.with_name(output.name + ".training")


def _identity(
    learned: Sequence[Pair], measured: Sequence[Pair], base: ModelFiles | None, size: Size, recipe: Recipe
) -> dict[str, Any]:
    """Return what a training is bound to."""
    digest = hashlib.blake2b(digest_size=16)
    for some in (learned, measured):
        for pair in some:
            digest.update(f"{pair.prompt}\0{pair.text}\0".encode("utf-8", "surrogatepass"))
        digest.update(b"\1")
    return {
        "texts": digest.hexdigest(),
        "base": base.revision if base else None,
        "size": None if base else asdict(size),
        **asdict(recipe),
    }


def _open_state(output: Path, identity: dict[str, Any], restart: bool) -> Path:
    """Open the directory of a training that was broken off, or begin one if there is no checkpoint to go on from."""
    directory = _state_directory(output)
    file = directory / "training.json"
    if file.is_file() and not restart and _last_checkpoint(directory) is not None:
        begun = json.loads(file.read_text(encoding="utf-8"))
        changed = [name.replace("_", " ") for name in identity if begun.get(name) != identity[name]]
        if changed:
            raise CheckpointMismatch(
                f"{directory}: holds a training with other {', '.join(changed)}; go on with the command it was begun"
                " with, or begin anew with --restart"
            )
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(identity, indent=1), encoding="utf-8")
    temporary.replace(file)
    return directory


def _own_tokenizer(pairs: Sequence[Pair], size: Size, directory: Path) -> Any:
    """Train the tokenizer, or take the one that the training began with."""
    if (directory / "whole").is_file():
        return AutoTokenizer.from_pretrained(directory)
    tokenizer = make_tokenizer((f"{pair.prompt} {pair.text}" for pair in pairs), size)
    tokenizer.save_pretrained(directory)
    (directory / "whole").touch()
    return tokenizer


def _tell_lengths(training_set: PairDataset, held_out_set: PairDataset, max_tokens: int) -> None:
    too_long = training_set.too_long + held_out_set.too_long
    if too_long:
        total = too_long + len(training_set) + len(held_out_set)
        log.info("%s of %s texts left out: longer than %d tokens with their prompt (--max-tokens)",
                 f"{too_long:,}", f"{total:,}", max_tokens)  # fmt: skip
    for dataset, what in ((training_set, "learn from"), (held_out_set, "measure on")):
        if not len(dataset):
            raise ConfigError(f"no text to {what} is short enough for {max_tokens} tokens; raise --max-tokens")


def _with_steps(recipe: Recipe, texts: int) -> Recipe:
    """Return the recipe with its steps, and those of the warm-up, as they follow from the number of texts."""
    steps = recipe.steps
    if recipe.epochs:
        steps = max(1, round(recipe.epochs * texts / (recipe.batch_size * recipe.accumulate)))
    warmup = round(0.3 * steps) if recipe.schedule == "one-cycle" else min(recipe.warmup_steps, steps // 10)
    return replace(recipe, steps=steps, warmup_steps=warmup)


def _last_checkpoint(directory: Path) -> Path | None:
    """Return the last checkpoint that is whole; those that a kill has left in pieces are removed."""
    whole = []
    for checkpoint in directory.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # is written last
            whole.append((state["global_step"], checkpoint))
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return max(whole)[1] if whole else None


def _took_over_finished(trainer: Trainer, checkpoint: Path, recipe: Recipe) -> bool:
    """Load the weights that the training ends with if it had come to its end at a checkpoint; say whether it had.

    The trainer would make at least one step more.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    stopping = state.stateful_callbacks.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
    stopped_early = recipe.patience > 0 and stopping.get("early_stopping_patience_counter", 0) >= recipe.patience
    if state.global_step < recipe.steps and not stopped_early:
        return False
    best = Path(state.best_model_checkpoint).name if recipe.patience and state.best_model_checkpoint else None
    trainer._load_from_checkpoint(str(checkpoint.with_name(best) if best else checkpoint))
    trainer.state = state
    return True


def _trainer(
    model: Any,
    recipe: Recipe,
    training_set: PairDataset,
    held_out_set: PairDataset,
    directory: Path,
    should_stop: Callable[[], int],
) -> Trainer:
    device = pick_device("auto")
    every = min(recipe.evaluate_every, recipe.steps)
    early = recipe.patience > 0
    assert recipe.max_tokens is not None
    vocabulary = model.get_input_embeddings().weight.shape[0]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(directory),
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.accumulate,
            per_device_eval_batch_size=batch_size(recipe.max_tokens, vocabulary),
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            adam_beta2=0.98,
            optim="adamw_torch_fused",
            bf16=pick_dtype("auto", device) == "bfloat16",
            use_cpu=device == "cpu",
            train_sampling_strategy="group_by_length",
            label_names=["labels"],
            eval_strategy="steps",
            eval_steps=every,
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=early,
            metric_for_best_model="eval_loss" if early else None,
            greater_is_better=False if early else None,
            restore_callback_states_from_checkpoint=True,
            logging_steps=min(50, every),
            report_to=[],
            seed=recipe.seed,
            disable_tqdm=True,
            dataloader_pin_memory=device == "cuda",
            dataloader_num_workers=8 if device == "cuda" else 0,  # a small model on a GPU waits for its batches else
        ),
        train_dataset=Noised(training_set, recipe.word_dropout, vocabulary) if recipe.word_dropout else training_set,
        eval_dataset=torch.utils.data.Subset(
            held_out_set, range(0, len(held_out_set), max(1, len(held_out_set) // _EVALUATED))
        ),
        data_collator=collate,
        callbacks=[EarlyStoppingCallback(recipe.patience)] if early else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Teller())
    trainer.add_callback(_StopWhenAsked(should_stop))
    return trainer


class _Teller(TrainerCallback):  # type: ignore[misc]
    """Shows how far the training is: a bar on a terminal, else a line a minute and one at each evaluation."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._first = 0
        self._loss = ""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._first = state.global_step
        self._started = self._shown = time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True, file=sys.stderr
            )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update()
        elif now - self._shown >= _LOG_SECONDS:
            self._shown = now
            left = (state.max_steps - state.global_step) * (now - self._started) / (state.global_step - self._first)
            log.info(
                "step %s of %s%s, about %s left",
                f"{state.global_step:,}", f"{state.max_steps:,}", self._loss, duration(left),
            )  # fmt: skip

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "loss" in logs:
            self._loss = f", loss {float(logs['loss']):.3f}"
            if self._bar is not None:
                self._bar.set_postfix_str(self._loss.removeprefix(", "))

    def on_evaluate(
        self, args: Any, state: TrainerState, control: Any, metrics: dict[str, float], **_: Any  # noqa: ARG002
    ) -> None:  # fmt: skip
        line = (
            f"step {state.global_step:,} of {state.max_steps:,}: held-out loss {metrics['eval_loss']:.4f}{self._loss}"
        )
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            log.info("%s", line)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if self._bar is not None:
            self._bar.close()


class _StopWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Ends the training with a checkpoint once a signal has come."""

    def __init__(self, should_stop: Callable[[], int]) -> None:
        self._should_stop = should_stop

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        if self._should_stop():
            control.should_save = True
            control.should_training_stop = True
