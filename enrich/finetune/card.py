"""The card: what a model was made from and how, how good it is, and what it must not be trusted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import enrich
from enrich.finetune.training import Training

_TEMPLATE = """\
---
{{ card_data }}
---

# {{ name }}

{% if base %}`{{ base }}` trained further{% if recipe.lora %} with LoRA (rank {{ recipe.lora }}, merged){% endif %}\
{% else %}A GPT-2 trained from scratch{% endif %} to write product descriptions: {{ "{:,}".format(metrics.parameters) }}
parameters{% if recipe.lora %}, of which {{ "{:,}".format(metrics.trained_parameters) }} adapter weights were trained
{%- endif %}. Made with `enrich finetune` {{ version }}.

```sh
enrich run catalog.parquet --model ./{{ name }}
```

## Data

{% for source in sources %}- `{{ source }}`
{% endfor %}
Licence of the data: {{ data_license or "not stated; whoever publishes this model has to know it" }}.

{{ "{:,}".format(rows) }} rows were read. {{ "{:,}".format(metrics.training_pairs) }} texts were learned from,
{{ "{:,}".format(metrics.held_out_pairs) }} held out ({{ held_out }}).
{%- if shortened %} Boilerplate was cut out of {{ "{:,}".format(shortened) }} texts.{% endif %}
{% if dropped %}
| dropped because | texts |
|---|---:|
{% for reason, count in dropped.items() %}| {{ reason }} | {{ "{:,}".format(count) }} |
{% endfor %}{% endif %}
## Recipe

| | |
|---|---|
{% for key, value in recipe.items() %}| {{ key.replace("_", " ") }} | {{ value }} |
{% endfor %}
The loss is taken on {% if recipe.learn_prompts %}prompt and text{% else %}the text alone{% endif %} and on the
end-of-text token. Stopped after {{ "{:,}".format(metrics.steps) }} steps; the weights are those of step
{{ "{:,}".format(metrics.best_step) }}.
{%- if metrics.logits_divided_by != 1 %} Then all logits were divided by {{ metrics.logits_divided_by }} (temperature
scaling, in the weights of the last layer norm), the number that suits the held-out texts best.{% endif %}
{% if curve %}
![Loss over the steps]({{ curve }})
{% endif %}
## How good it is

On the held-out texts, which share no product with those it learned from{% if own_validation %}, if the two catalogs
have none in common{% endif %}:

| | |
|---|---:|
| loss (nats per token) | {{ "%.4f" | format(metrics.loss) }} |
| perplexity per token | {{ "%.3f" | format(metrics.perplexity) }} |
| perplexity per byte | {{ "%.4f" | format(metrics.perplexity_per_byte) }} |
| bits per byte | {{ "%.4f" | format(metrics.bits_per_byte) }} |

`enrich evaluate ./{{ name }} CATALOG` measures what its texts are like: whether they name the product, and whether the
colours, materials and numbers in them are the row's own.

## How to ask it

{% if template %}The prompt, as a Jinja2 template:

````
{{ template }}
````
{% else %}The prompt is that of the product's category in `enrich` {{ version }}.
{% endif %}{% if wishes %}
{% for key, value in wishes.items() %}- {{ key }}: {{ value }}
{% endfor %}{% endif %}
The text follows the prompt after one space and ends with the end-of-text token.

## Limits

- It writes what texts like those above say of products like these. What a prompt does not state it may invent:
  colours, sizes, materials, claims. Have its texts checked before they are published.
- {{ "{:,}".format(metrics.too_long) }} texts were left out because they are longer than {{ recipe.max_tokens }} tokens
  with their prompt: it has not learned to write such.
- It knows the languages, categories and prejudices of its data{% if base %} and of its base{% endif %}, and no others.
"""


@dataclass(frozen=True)
class Facts:
    """What a card tells beside the training itself."""

    name: str
    base: str | None
    sources: Sequence[str]
    validation: str | None
    rows: int
    dropped: Mapping[str, int]
    shortened: int
    license: str | None
    data_license: str | None
    template: str | None
    wishes: Mapping[str, Any]
    curve: str | None


def write_card(directory: Path, facts: Facts, training: Training) -> None:
    """Write README.md, with the metadata that model hubs read at its head."""
    metrics = training.metrics
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="catalog",
            dataset_name=facts.validation or f"held-out products of {', '.join(facts.sources)}",
            metric_type=kind,
            metric_name=kind.replace("_", " "),
            metric_value=round(metrics[kind], 4),
        )
        for kind in ("perplexity", "bits_per_byte")
    ]
    is_hub_id = facts.base is not None and not Path(facts.base).exists()
    data = ModelCardData(
        model_name=facts.name,
        base_model=facts.base if is_hub_id else None,
        license=facts.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["product-descriptions", "e-commerce", "enrich"],
        eval_results=results,
    )
    recipe = {key: value for key, value in asdict(training.recipe).items() if value is not None}
    held_out = f"all of `{facts.validation}`" if facts.validation else "whole products, chosen by a hash"
    card = ModelCard.from_template(
        data,
        template_str=_TEMPLATE,
        name=facts.name,
        base=Path(facts.base).name if facts.base and not is_hub_id else facts.base,
        sources=facts.sources,
        rows=facts.rows,
        dropped=dict(facts.dropped),
        shortened=facts.shortened,
        data_license=facts.data_license,
        template=facts.template,
        wishes=dict(facts.wishes),
        curve=facts.curve,
        held_out=held_out,
        own_validation=facts.validation is not None,
        recipe=recipe,
        metrics=metrics,
        version=enrich.__version__,
    )
    card.save(directory / "README.md")
