"""The commands about models: `models`, `finetune`, `evaluate` and `demo`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from enrich.commands.ending import signals
from enrich.commands.printing import set_up_logging
from enrich.config import DEVICES, DTYPES
from enrich.errors import ConfigError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def models(as_json: bool) -> None:
    """List the models that a run can name: embedded ones, presets, and those in the hub cache of this machine.

    Any other model of the hub or directory can be named as well; `enrich run` fetches what isn't here if it may.

    \b
    Examples:
      enrich models
      enrich run catalog.parquet --model gpt2-home
    """
    from enrich.engine import inventory

    entries = inventory.list_models()
    click.echo(inventory.as_json(entries) if as_json else inventory.as_table(entries))


_SHARE = click.FloatRange(0, 1, max_open=True)


@click.command()
@click.argument("catalogs", nargs=-1, required=True, metavar="CATALOG...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Model directory to write.")
@click.option("--base", metavar="MODEL", help="Model to go on from: any causal language model.")
@click.option(
    "--from-scratch",
    "size",
    metavar="SIZE",
    help="Make a GPT-2 of this size instead: mini (8 million parameters), small (34), gpt2 (111).",
)
@click.option(
    "--validation",
    metavar="CATALOG",
    type=click.Path(path_type=Path),
    help="Measure on these texts, just as they are, instead of on held-out products.",
)
@click.option(
    "--template",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Jinja2 file to render prompts with, kept with the model for its runs.",
)
@click.option("--limit", type=click.IntRange(1), help="Read only the first N rows of each CATALOG.")
@click.option("--clean/--no-clean", default=True, help="Drop texts not worth learning from.  [default: clean]")
@click.option("--min-words", type=click.IntRange(1), help="Drop shorter texts.  [default: 6]")
@click.option(
    "--max-copies", type=click.IntRange(0), help="Products that one text may stand for; 0: any number.  [default: 3]"
)
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps, at most.  [default: 4800]")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Times to go over the texts, instead of steps.")
@click.option(
    "--patience",
    type=click.IntRange(0),
    help="Stop after so many evaluations without a better loss and keep the best weights; 0: go on to the end and keep"
    " the last.  [default: 5]",
)
@click.option("--batch-size", type=click.IntRange(1), help="Texts in a batch.  [default: 16]")
@click.option("--accumulate", type=click.IntRange(1), help="Batches in a step, if memory is short.  [default: 1]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Peak of the schedule.  [default: 5e-5; with LoRA 2e-4; from scratch 1.2e-3]",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "one-cycle"]),
    help="Down along a cosine after a short warm-up, or one of 30 % of the steps.  [default: cosine]",
)
@click.option("--warmup-steps", type=click.IntRange(0), help="Steps of the warm-up of cosine.  [default: 150]")
@click.option("--weight-decay", type=click.FloatRange(0), help="Decay of the weights.  [default: 0.05]")
@click.option("--dropout", type=click.FloatRange(0, 0.9), help="Dropout, from scratch or of LoRA.  [default: 0]")
@click.option(
    "--word-dropout",
    type=click.FloatRange(0, 0.9),
    help="Share of a text's tokens shown wrongly, so that fewer texts are learned by heart.  [default: 0]",
)
@click.option(
    "--calibrate",
    is_flag=True,
    default=None,
    help="Divide the finished model's logits by the number that suits the held-out texts best.",
)
@click.option("--lora", metavar="RANK", type=click.IntRange(1), help="Train adapters of this rank, then merge them.")
@click.option(
    "--max-tokens",
    type=click.IntRange(8),
    help="Leave out longer prompt and text.  [default: 384; 192 in a context of up to 512]",
)
@click.option("--learn-prompts", is_flag=True, default=None, help="Take the loss on the prompts as well.")
@click.option("--held-out", type=_SHARE, help="Share of the products to measure on.  [default: 0.1]")
@click.option("--evaluate-every", type=click.IntRange(1), help="Steps between checkpoints.  [default: 500]")
@click.option("--seed", type=click.IntRange(0), help="Seed of weights and order.  [default: 7]")
@click.option("--max-new-tokens", type=click.IntRange(1), help="What runs of the model shall take for default.")
@click.option("--temperature", type=click.FloatRange(0), help="The same, for the sampling temperature.")
@click.option("--top-k", type=click.IntRange(0), help="The same, for top-k.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="The same, for top-p.")
@click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), help="The same, for the penalty.")
@click.option("--license", metavar="ID", help="Licence of the model, for its card: apache-2.0, say.")
@click.option("--data-license", metavar="TEXT", help="Licence of the catalogs' texts, for the card.")
@click.option("--restart", is_flag=True, help="Begin anew where a training was broken off.")
def finetune(
    catalogs: tuple[Path, ...],
    output: Path,
    validation: Path | None,
    template: Path | None,
    base: str | None,
    size: str | None,
    limit: int | None,
    clean: bool,
    max_new_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float | None,
    license: str | None,
    data_license: str | None,
    restart: bool,
    **recipe: Any,
) -> None:
    """Train a model on the descriptions that catalogs already have.

    CATALOG is whatever `enrich run` reads. Texts that are not worth learning from are dropped and counted: HTML alone,
    the title alone, too short, no prose, duplicates, one text under many products; sentences that stand everywhere are
    cut out. Prompts are rendered as `enrich run` renders them.

    OUTPUT is a model directory: safetensors weights, tokenizer, enrich.toml (how runs are to ask the model),
    metrics.json, loss.svg and a card, README.md. A training that was killed goes on from its last checkpoint in
    OUTPUT.training. Needs the extra `train`: pip install 'enrich[train]'

    \b
    Examples:
      enrich finetune catalog.parquet --base gpt2 --epochs 3 -o my-model
      enrich finetune meta_Home_and_Kitchen.json.gz --limit 100000 --base gpt2 --lora 16 -o my-model
      enrich finetune catalog.parquet --from-scratch mini -o my-model
    """
    if (base is None) == (size is None):
        raise ConfigError("name either --base MODEL or --from-scratch SIZE")
    if recipe["steps"] and recipe["epochs"]:
        raise ConfigError("name either --steps or --epochs")
    set_up_logging(quiet=False, verbose=False)
    with signals() as stopped_by:
        from enrich import finetune as training

        metrics = training.finetune(
            catalogs,
            output,
            settings=recipe,
            validation=validation,
            template=template,
            base=base,
            size=size,
            clean=clean,
            limit=limit,
            wishes={
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "repetition_penalty": repetition_penalty,
            },
            license=license,
            data_license=data_license,
            restart=restart,
            should_stop=lambda: stopped_by[0],
        )
    click.echo(json.dumps(metrics))


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.argument("catalog", type=click.Path(path_type=Path))
@click.option("--texts", "num_texts", type=click.IntRange(1), default=500, show_default=True, help="Texts to generate.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest text to generate, in tokens, as in a run.")
@click.option(
    "--training",
    multiple=True,
    metavar="CATALOG",
    type=click.Path(path_type=Path),
    help="Catalog that the models were trained on, to find what they copy from it; may be given again.",
)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to compute.")
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Number format.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other texts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line in place of the table.")
def evaluate(
    models: tuple[str, ...],
    catalog: Path,
    num_texts: int,
    max_new_tokens: int | None,
    training: tuple[Path, ...],
    device: str,
    dtype: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure models on the descriptions of CATALOG, which they should not have seen, and on texts of their own.

    Prints a table for each category, the models side by side: the loss per token and per byte; how many of their texts
    stop by themselves, end on a sentence, name the product and what is given of it, or name a colour, material or
    number that is not the row's; how varied and how long they are; tokens per second.

    \b
    Examples:
      enrich evaluate home-mini ./my-model held-out.parquet
      enrich evaluate ./my-model held-out.parquet --training catalog.parquet --texts 200
    """
    set_up_logging(quiet=True, verbose=False)
    from enrich import evaluate as evaluation

    found = evaluation.evaluate(
        models,
        catalog,
        num_texts=num_texts,
        max_new_tokens=max_new_tokens,
        training=training,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    if as_json:
        for one in found:
            click.echo(json.dumps(dataclasses.asdict(one)))
    else:
        click.echo(evaluation.as_table(found))


@click.command()
@click.option("--model", default="home-mini", show_default=True, help="As for `enrich run`.", envvar="ENRICH_MODEL")
@click.option("--revision", help="Branch, tag or commit of a hub model.", envvar="ENRICH_REVISION")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to compute.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 lets others in.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="Port; 0 for any.")
def demo(model: str, revision: str | None, device: str, host: str, port: int) -> None:
    """Serve a page on which a model writes live, for this machine alone unless --host says otherwise.

    Type a prompt or describe a product, watch the text come, see what would be published of it, compare three attempts,
    or upload a small catalog and get it back enriched. Nothing is sent elsewhere. Needs the extra `demo`:
    pip install 'enrich[demo]'

    \b
    Examples:
      enrich demo
      enrich demo --model ./my-model --port 8000
    """
    set_up_logging(quiet=True, verbose=False)
    from enrich import demo as page

    page.check_available()
    from enrich.workbench import Workbench

    page.serve(Workbench(model, revision=revision, device=device), host=host, port=port, say=click.echo)
