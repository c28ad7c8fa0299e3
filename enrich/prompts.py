"""Prompts: a product rendered into the text, and the token ids, that a model goes on from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_lower
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
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
    nodes.AssignBlock: "a set with a body",
    nodes.With: "a with block",
    nodes.Mul: "a multiplication",
    nodes.Pow: "a power",
}
# Filters and methods of texts whose result is as long as a number says, or has no end, or is by chance.
_REFUSED_FILTERS = (
    "batch", "center", "filesizeformat", "format", "indent", "pprint", "random", "slice", "tojson", "urlize",
    "wordwrap", "xmlattr",
)  # fmt: skip
_REFUSED_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill"})
_MOST_TURNS = 1_000  # of a loop; a product has 24 attributes at most
_MOST_COPIES = 100  # of what the row says, in one variable: `set x = x ~ x` thirty times over is a gigabyte

_KNOWN = (
    "it can use title, category, id and attributes, any of them empty save the title; attributes are a list:"
    " {% for a in attributes %}{{ a.name }}: {{ a.value }} {% endfor %}"
)

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


class _Context(Context):
    """Jinja2's variables of one rendering, without what prompts have no use for: that took a third of a rendering."""

    def __init__(
        self,
        environment: Environment,
        parent: dict[str, Any],
        name: str | None,
        blocks: Mapping[str, Any],  # noqa: ARG002
        globals: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        assert isinstance(environment, _Sandbox)
        self.environment, self.parent, self.name, self.eval_ctx = environment, parent, name, environment.evaluation
        self.vars, self.exported_vars, self.globals_keys, self.blocks = {}, set(), set(), {}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, which is not asked about an attribute's name and value: they took half of a rendering."""

    intercepted_binops = frozenset({"%"})
    context_class = _Context

    @cached_property
    def evaluation(self) -> EvalContext:
        """The escaping of all renderings: none."""
        return EvalContext(self)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str):
            raise SecurityError("texts can't be formatted with % in a prompt")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> None:
        """Let Jinja2 wrap no method for formatting: as any other method refused, it is no safe attribute."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _REFUSED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

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
    for refused in _REFUSED_FILTERS:
        del environment.filters[refused]
    environment.filters |= {_TURNS: _turns, "lower": _lower}
    try:
        parsed = environment.parse(source)
        _check_syntax(parsed)
        _limit_loops(parsed)
        template = environment.from_string(parsed)
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
    _check_growth(template)


def _check_growth(template: nodes.Template) -> None:
    """Refuse variables that hold the row many times over, and texts put between every two characters of others."""
    copies: dict[str, int] = {}
    for node in template.find_all((nodes.Assign, nodes.For)):
        assert isinstance(node, nodes.Assign | nodes.For)
        source, target = node.iter if isinstance(node, nodes.For) else node.node, node.target
        count = sum(copies.get(name, 1) for name in _names(source))
        if count > _MOST_COPIES:
            raise TemplateSyntaxError(f"more than {_MOST_COPIES} copies in one variable", node.lineno)
        copies |= dict.fromkeys(_names(target), count)
    for call in template.find_all((nodes.Filter, nodes.Call)):
        name, put_in = _put_in(call)
        if not all(isinstance(one, nodes.Const) for one in put_in):
            raise TemplateSyntaxError(f"{name} needs a text in quotes in a prompt", call.lineno)


def _names(node: nodes.Node) -> list[str]:
    own = [node.name] if isinstance(node, nodes.Name) else []
    return [*own, *(name.name for name in node.find_all(nodes.Name))]


def _put_in(call: nodes.Node) -> tuple[str, list[nodes.Expr]]:
    """Return the name of a join or a replacement, filter or method, and what it puts in many times over."""
    if isinstance(call, nodes.Filter):
        name, method_of = call.name, None
    elif isinstance(call, nodes.Call) and isinstance(call.node, nodes.Getattr):
        name, method_of = call.node.attr, call.node.node
    else:
        return "", []
    if name not in ("join", "replace"):
        return name, []
    named = [pair.value for pair in call.kwargs if pair.key in ("d", "new")]
    if name == "replace":
        return name, [*call.args[1:2], *named]
    return name, [method_of] if method_of is not None else [*call.args[:1], *named]


_TURNS = "_turns"


def _limit_loops(template: nodes.Template) -> None:
    for loop in template.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, _TURNS, [], [], None, None, lineno=loop.lineno)
    if template.environment is not None:
        template.set_environment(template.environment)  # of what was put in


def _turns(items: Iterable[Any]) -> list[Any]:
    """Return what a loop goes over. Raises SecurityError if it has no end, or a very late one."""
    taken = list(islice(items, _MOST_TURNS + 1))
    if len(taken) > _MOST_TURNS:
        raise SecurityError(f"a loop of more than {_MOST_TURNS:,} turns")
    return taken


def _lower(value: Any) -> str:
    """Do what Jinja2's filter does, in half the time for texts."""
    return value.lower() if type(value) is str else do_lower(value)


def read_template(path: Path) -> str:
    """Read a template file and check it; raises ConfigError naming the file."""
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"template {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"template {path}: is not UTF-8: {error}") from error
    compile_template(source, str(path))
    return source


def render(template: Template, product: Product) -> str:
    """Render one product, without the line ends that the template's own layout leaves around it.

    Raises ConfigError, naming the template, for whatever an expression in it can raise: its author's to mend.
    """
    try:
        known = {"id": product.id, "title": product.title, "category": product.category}
        context = template.new_context(known | {"attributes": product.attributes}, shared=True)
        return "".join(template.root_render_func(context)).strip()
    except Exception as error:
        raise ConfigError(
            f"template {template.name} fails for {product.title!r} with {len(product.attributes)} attributes: {error};"
            f" {_KNOWN}"
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
        bare = replace(product, attributes=(), category="")
        if len(product.title) > self._max_tokens and not self._fits(
            bare
        ):  # known at once, not after two dozen attempts
            return Prompt(product, wording.render(product), (), dropped=count)
        for candidate in [*kept, bare]:
            text = wording.render(candidate)
            token_ids = self._encode([text], [wording.system])[0]
            if len(token_ids) <= self._max_tokens:
                return Prompt(product, text, tuple(token_ids), dropped=count - len(candidate.attributes))
        return Prompt(product, wording.render(product), (), dropped=count)

    def _fits(self, product: Product) -> bool:
        wording = self._choose_wording(product)
        return len(self._encode([wording.render(product)], [wording.system])[0]) <= self._max_tokens
