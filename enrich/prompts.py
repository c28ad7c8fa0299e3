"""Prompts: a product rendered into the text, and the token ids, that a model goes on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from enrich.errors import ConfigError
from enrich.product import Attribute, Product

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Texts to token ids, special tokens in the texts read as plain text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is given for one product.

    `token_ids` is empty if not even the title alone fits. `dropped` counts the attributes left out to make it fit.
    """

    product: Product
    text: str
    token_ids: tuple[int, ...]
    dropped: int = 0


def compile_template(source: str, name: str) -> Template:
    """Compile a prompt template in a sandbox and try it on a sample product.

    Raises ConfigError, naming the template and the line, if it is not valid Jinja2 or uses an unknown variable.
    """
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    sample = Product(0, "1", "Oak side table", "Furniture", (Attribute("Color", "Natural"),), "")
    try:
        template = environment.from_string(source)
        rendered = render(template, sample)
    except TemplateError as error:
        number = getattr(error, "lineno", None)
        line = f", line {number}" if number else ""
        raise ConfigError(
            f"template {name}{line}: {error.message}; it can use title, category, id and attributes (name, value)"
        ) from error
    except Exception as error:  # whatever an expression in the template can raise: its author's to mend
        raise ConfigError(f"template {name}: {error}") from error
    if sample.title not in rendered:
        raise ConfigError(f"template {name} leaves out the title: add {{{{ title }}}}")
    return template


def render(template: Template, product: Product) -> str:
    """Render one product, without the line ends that the template's own layout leaves around it."""
    return template.render(
        id=product.id, title=product.title, category=product.category, attributes=product.attributes
    ).strip()


class PromptBuilder:
    """Renders and tokenizes products so that no prompt is longer than `max_tokens`.

    What does not fit is left out from the end: the last attributes first, then the category, never the title.
    """

    def __init__(self, choose_template: Callable[[Product], Template], encode: Encode, max_tokens: int) -> None:
        if max_tokens < 1:
            raise ConfigError("max_new_tokens leaves no room for a prompt in the model's context; lower it")
        self._choose_template = choose_template
        self._encode = encode
        self._max_tokens = max_tokens

    def build(self, products: Sequence[Product]) -> list[Prompt]:
        """Build the prompts of many products at once (tokenizers are several times faster in batches)."""
        texts = [render(self._choose_template(product), product) for product in products]
        return [
            Prompt(product, text, tuple(token_ids)) if len(token_ids) <= self._max_tokens else self._shorten(product)
            for product, text, token_ids in zip(products, texts, self._encode(texts), strict=True)
        ]

    def _shorten(self, product: Product) -> Prompt:
        template = self._choose_template(product)
        count = len(product.attributes)
        kept = [replace(product, attributes=product.attributes[:n]) for n in reversed(range(count))]
        for candidate in [*kept, replace(product, attributes=(), category="")]:
            text = render(template, candidate)
            token_ids = self._encode([text])[0]
            if len(token_ids) <= self._max_tokens:
                return Prompt(product, text, tuple(token_ids), dropped=count - len(candidate.attributes))
        return Prompt(product, render(template, product), (), dropped=count)
