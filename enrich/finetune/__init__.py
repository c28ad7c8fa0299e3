"""Make a model: train a causal language model on a catalog's own descriptions.

The prompt is what `enrich run` will render, the completion is the row's description and the end-of-text token. The
loss is taken on the completion alone, so that the model learns to write texts and to stop, not to write prompts.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from enrich.catalog import RoleOptions
from enrich.engine.files import find_model
from enrich.errors import ConfigError
from enrich.finetune.base import SIZES
from enrich.finetune.card import Facts, write_card
from enrich.finetune.curve import can_draw, draw_curve
from enrich.finetune.pairs import Reading, read_pairs
from enrich.finetune.selection import Selection, Standards, select
from enrich.finetune.training import Recipe, Training, check_output, model_directory, publish, train
from enrich.prompts import read_template
from enrich.storage.lock import only_run

__all__ = ["SIZES", "Recipe", "Standards", "finetune", "train"]

_CURVE = "loss.svg"
_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")
log = logging.getLogger("enrich")


def finetune(
    catalogs: Sequence[Path],
    output: Path,
    *,
    settings: Mapping[str, Any],
    validation: Path | None = None,
    template: Path | None = None,
    base: str | None = None,
    size: str | None = None,
    clean: bool = True,
    limit: int | None = None,
    wishes: Mapping[str, Any] | None = None,
    license: str | None = None,
    data_license: str | None = None,
    restart: bool = False,
    should_stop: Callable[[], int] = lambda: 0,
) -> dict[str, float]:
    """Train on catalogs and write a model directory with card, metrics and loss curve; return the held-out figures.

    `settings` are fields of Recipe and Standards, None for the default; without `clean` the standards are not held
    against the texts. `limit` is the most rows to read of each catalog.

    Measured on the catalog `validation`, all of it, or without it on a share of the products that is held out. A
    `template` file, or that of the base model, renders the prompts, and is written to the model's `enrich.toml`, where
    runs find it, beside what it wishes of them: `max_new_tokens`, `temperature`, `top_k`, `top_p` and
    `repetition_penalty` in `wishes`, None for no wish. See `train` for the rest.

    Raises TryAgain if another process is training to this output.
    """
    if (base is None) == (size is None):
        raise ConfigError("name either a base model or the size of one to make from scratch")
    if size is not None and size not in SIZES:
        raise ConfigError(f"--from-scratch {size}: the sizes are {', '.join(SIZES)}")
    check_output(output)
    told = {name: value for name, value in settings.items() if value is not None}
    recipe = Recipe(**{name: value for name, value in told.items() if name in _names(Recipe)})
    standards = Standards(**{name: value for name, value in told.items() if name in _names(Standards)})
    output.parent.mkdir(parents=True, exist_ok=True)
    with only_run(output):
        files = find_model(base) if base else None
        source = read_template(template) if template else files.template if files else None

        reading = read_pairs(catalogs, RoleOptions(), source, limit)
        selection = select(reading.pairs, standards) if clean else Selection(reading.pairs, Counter(), 0)
        dropped = dict((reading.dropped + selection.dropped).most_common())
        _tell(reading, selection, dropped)
        held_out = read_pairs([validation], RoleOptions(), source).pairs if validation else None
        training = train(
            selection.pairs,
            output,
            held_out=held_out,
            base=files,
            size=SIZES[size or "mini"],
            recipe=recipe,
            restart=restart,
            should_stop=should_stop,
        )

        facts = Facts(
            name=output.resolve().name,
            base=base,
            sources=[path.name for path in catalogs],
            validation=validation.name if validation else None,
            rows=reading.rows,
            dropped=dropped,
            shortened=selection.shortened,
            license=license,
            data_license=data_license,
            template=source,
            wishes={name: value for name, value in (wishes or {}).items() if value is not None},
            curve=_CURVE if can_draw() else None,
        )
        _describe(model_directory(output), facts, training)
        publish(output)
        return training.metrics


def _names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def _tell(reading: Reading, selection: Selection, dropped: Mapping[str, int]) -> None:
    log.info("%s rows read, %s texts to learn from", f"{reading.rows:,}", f"{len(selection.pairs):,}")
    for reason, count in dropped.items():
        log.info("  %s dropped: %s", f"{count:,}", reason)
    if selection.shortened:
        log.info("  boilerplate cut out of %s", f"{selection.shortened:,}")


def _describe(directory: Path, facts: Facts, training: Training) -> None:
    """Write what stands beside the weights: wishes, loss curve, metrics and card."""
    _write_wishes(directory / "enrich.toml", facts.template, facts.wishes, find_model(str(directory)).has_chat_template)
    if facts.curve:
        draw_curve(training.log, int(training.metrics["best_step"]), directory / facts.curve)
    else:
        log.warning("no loss curve: that needs matplotlib: pip install 'enrich[train]'")
    history = {
        "recipe": asdict(training.recipe),
        "data": {"rows": facts.rows, "dropped": facts.dropped, "boilerplate_cut_out": facts.shortened},
        "held_out": training.metrics,
        "log": training.log,
    }
    (directory / "metrics.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    write_card(directory, facts, training)


def _write_wishes(file: Path, template: str | None, wishes: Mapping[str, Any], chat_template: bool) -> None:
    """Write how this model wants runs to ask it, if it is known."""
    lines = [f"template = {json.dumps(template, ensure_ascii=False)}"] if template else []
    lines += ["chat = false"] if chat_template and not template else []  # it has learned plain prompts
    lines += [f"max_new_tokens = {wishes['max_new_tokens']}"] if "max_new_tokens" in wishes else []
    sampling = [f"{name} = {wishes[name]}" for name in _SAMPLING if name in wishes]
    lines += ["", "[sampling]", *sampling] if sampling else []
    if lines:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
