"""Prompts: a product rendered into the text, and the token ids, that a model goes on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from enrich.errors import ConfigError
from enrich.product import Attribute, Product

# A prompt with more characters from a product with hardly any is a mistake.
_LONGEST_SAMPLE = 100_000
_LARGEST_NUMBER = 10_000
# What a prompt has no use for, and a mistake or an ill-meant file could keep a run busy with for ever.
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Macro: "a macro",
    nodes.CallBlock: "a call block",
    nodes.Block: "a block",
    nodes.Mul: "a multiplication",
    nodes.Pow: "a power",
}

Encode = Callable[[Sequence[str], Sequence[str]], list[list[int]]]
"""Texts, and what a chat model is told before each, to token ids; special tokens in the texts read as plain text."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How a product is put to the model: by a template and, to a chat model, with a system prompt before it."""

    template: Template
    system: str = ""

    def render(self, product: Product) -> str:
        """Render one product; see `render`."""
        return render(self.template, product)

    def all_of(self, product: Product) -> str:
        """Return all words that a text depends on, for its key."""
        text = self.render(product)
        return f"{self.system}\0{text}" if self.system else text


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, which is not asked about an attribute's name and value: they took half of a rendering."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is Attribute and attribute in ("name", "value"):
            return obj.name if attribute == "name" else obj.value
        return super().getattr(obj, attribute)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is given for one product.

    `text` is as the template renders it, for a chat model the user's message. `token_ids` is empty if not even the
    title alone fits. `dropped` counts the attributes left out to make it fit.
    """

    product: Product
    text: str
    token_ids: tuple[int, ...]
    dropped: int = 0


def compile_template(source: str, name: str) -> Template:
    """Compile a prompt template in a sandbox and try it on a product that has all a row can have, and on a bare one.

    Raises ConfigError, naming the template and the line, if it is not valid Jinja2, uses an unknown variable, leaves
    out the title, or could run without end.
    """
    environment = _Sandbox(undefined=StrictUndefined, autoescape=False)
    environment.globals.clear()  # range, cycler and the like: a prompt has no use for them
    try:
        _check_syntax(environment.parse(source))
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError(f"template {name}, line {error.lineno}: {error.message}") from error
    except Exception as error:  # such as brackets nested too deep for Python
        raise ConfigError(f"template {name} can't be compiled: {error}") from error
    template.name = name
    full = Product(0, "1", "Oak side table", "Furniture", (Attribute("Color", "Natural"),), "")
    for sample in (full, replace(full, id="", category="", attributes=())):
        rendered = render(template, sample)
        if sample.title.casefold() not in rendered.casefold():
            raise ConfigError(f"template {name} leaves out the title: add {{{{ title }}}}, under no condition")
        if len(rendered) > _LONGEST_SAMPLE:
            raise ConfigError(f"template {name} makes {len(rendered):,} characters of a product with few")
    return template


def _check_syntax(template: nodes.Template) -> None:
    """Refuse what could run without end, before Jinja2's optimizer computes any of it."""
    for node in template.find_all(tuple(_REFUSED)):
        raise TemplateSyntaxError(f"{_REFUSED[type(node)]} is not allowed in a prompt", node.lineno)
    for constant in template.find_all(nodes.Const):
        if isinstance(constant.value, (int, float)) and abs(constant.value) > _LARGEST_NUMBER:
            raise TemplateSyntaxError(f"a number above {_LARGEST_NUMBER:,} is not allowed in a prompt", constant.lineno)
    for loop in template.find_all(nodes.For):
        if loop.recursive or any(inner.find(nodes.For) for inner in loop.find_all(nodes.For)):
            raise TemplateSyntaxError("loops can be two deep at most, and not recursive", loop.lineno)


def read_template(path: Path) -> str:
    """Read a template file and check it; raises ConfigError naming the file."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"template {path}: can't be read: {error}") from error
    compile_template(source, str(path))
    return source


def render(template: Template, product: Product) -> str:
    """Render one product, without the line ends that the template's own layout leaves around it.

    Raises ConfigError, naming the template, for whatever an expression in it can raise: its author's to mend.
    """
    try:
        return template.render(
            id=product.id, title=product.title, category=product.category, attributes=product.attributes
        ).strip()
    except Exception as error:
        raise ConfigError(
            f"template {template.name} fails for {product.title!r} with {len(product.attributes)} attributes: {error};"
            " it can use title, category, id and attributes (name, value), any of them empty save the title"
        ) from error


class PromptBuilder:
    """Renders and tokenizes products so that no prompt is longer than `max_tokens`.

    What does not fit is left out from the end: the last attributes first, then the category, never the title.
    """

    def __init__(self, choose_wording: Callable[[Product], Wording], encode: Encode, max_tokens: int) -> None:
        if max_tokens < 1:
            raise ConfigError("max_new_tokens leaves no room for a prompt in the model's context; lower it")
        self._choose_wording = choose_wording
        self._encode = encode
        self._max_tokens = max_tokens

    def build(self, products: Sequence[Product]) -> list[Prompt]:
        """Build the prompts of many products at once (tokenizers are several times faster in batches)."""
        wordings = [self._choose_wording(product) for product in products]
        texts = [wording.render(product) for wording, product in zip(wordings, products, strict=True)]
        encoded = self._encode(texts, [wording.system for wording in wordings])
        return [
            Prompt(product, text, tuple(token_ids)) if len(token_ids) <= self._max_tokens else self._shorten(product)
            for product, text, token_ids in zip(products, texts, encoded, strict=True)
        ]

    def _shorten(self, product: Product) -> Prompt:
        wording = self._choose_wording(product)
        count = len(product.attributes)
        kept = [replace(product, attributes=product.attributes[:n]) for n in reversed(range(count))]
        for candidate in [*kept, replace(product, attributes=(), category="")]:
            text = wording.render(candidate)
            token_ids = self._encode([text], [wording.system])[0]
            if len(token_ids) <= self._max_tokens:
                return Prompt(product, text, tuple(token_ids), dropped=count - len(candidate.attributes))
        return Prompt(product, wording.render(product), (), dropped=count)
