from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.errors import ConfigError
from enrich.product import Attribute, Product
from enrich.prompts import Prompt, PromptBuilder, Wording, compile_template, read_template, render

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy

TEMPLATE = """
{% if category %}Category: {{ category }}
{% endif %}Title: {{ title }}
{% for attribute in attributes %}{{ attribute.name }}: {{ attribute.value }}
{% endfor %}Description:
"""


def product(title: str = "Oak table", category: str = "Home", *values: str, ordinal: int = 0) -> Product:
    attributes = tuple(Attribute(f"A{number}", value) for number, value in enumerate(values))
    return Product(ordinal, str(ordinal), title, category, attributes, "")


class WordEncoder:
    """One id for each word, the same for the same word; counts its calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.ids: dict[str, int] = {}

    def __call__(self, texts: Sequence[str], systems: Sequence[str]) -> list[list[int]]:
        assert len(systems) == len(texts)
        self.calls.append(list(texts))
        return [[self.ids.setdefault(word, len(self.ids)) for word in text.split()] for text in texts]

    def decode(self, prompt: Prompt) -> str:
        words = list(self.ids)
        return " ".join(words[token_id] for token_id in prompt.token_ids)


def builder(max_tokens: int, source: str = TEMPLATE) -> tuple[PromptBuilder, WordEncoder]:
    template, encoder = compile_template(source, "test"), WordEncoder()
    return PromptBuilder(lambda _: Wording(template), encoder, max_tokens), encoder


def test_a_template_is_rendered_without_the_blank_lines_around_it() -> None:
    text = render(compile_template(TEMPLATE, "test"), product("Oak table", "Home", "red"))
    assert text == "Category: Home\nTitle: Oak table\nA0: red\nDescription:"


@pytest.mark.parametrize(
    "source",
    [
        "{{ title }}",
        "{{ title | upper }}",
        "{{ id }} {{ title }}",
        "{{ title }}{% for a in attributes %}{% for w in a.value.split() %}{{ w }}{% endfor %}{% endfor %}",
        "{{ title }}{% for a in attributes if a.name != 'Size' %}{{ loop.index + 1 }}{{ a.name|lower }}{% endfor %}",
        "{{ title }} {{ attributes | map(attribute='value') | join(', ') }} {{ attributes[:3] | length }}",
        "{% set words = title.split() %}{{ words | join(' ') }} {{ category.split(' > ')[-1] or 'Other' }}",
        "{# range(10**9) #}{{ title }} {% raw %}{{ cycler }}{% endraw %}",
        "{{ title | replace(' - ', ', ') }} {{ title.replace('x', '') }} {{ ', '.join(title.split()) }} {{ 7 % 2 }}",
        "{{ title }}{% for a in attributes %}{{ a.name if not loop.last else loop.length }}{% endfor %}",
        "{% set full = category ~ ': ' ~ title %}{{ full }}",
        "{{ [title, category] | select | join(', ') }} {{ title[:60] }}",
    ],
)
def test_useful_templates_compile(source: str) -> None:
    compile_template(source, "test")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ title", "line 1: unexpected end of template"),
        ("{{ title }}\n\n{% for a in %}", "line 3: "),
        ("{{ title }}\n{% nonsense %}", "line 2: Encountered unknown tag 'nonsense'"),
        ("{{ title | nonsense }}", "line 1: No filter named 'nonsense'"),
        (
            "{{ title }} {{ brand }}",
            "'brand' is undefined; it can use title, category, id and attributes, any of them empty save the title;"
            " attributes are a list: {% for a in attributes %}{{ a.name }}: {{ a.value }} {% endfor %}",
        ),
        ("{{ title }}{% if false %}{% else %}{{ brand }}{% endif %}", "'brand' is undefined"),
        ("{{ title }}{% for a in attributes %}{{ a.colour }}{% endfor %}", "has no attribute 'colour'"),
        ("{{ title }} {{ description }}", "'description' is undefined"),
        ("{{ title }} {{ attributes[0].value }}", "with 0 attributes"),
        ("{{ title }} {{ attributes[1].value }}", "with 1 attributes"),
        ("{{ title }} {{ 1 / 0 }}", "division by zero"),
        ("{{ title }} {% include 'other' %}", "no loader"),
        ("{{ title }} {% import 'os' as os %}", "no loader"),
        ("{% extends 'other' %}{{ title }}", "no loader"),
        ("", "leaves out the title"),
        ("A table", "leaves out the title"),
        ("Title: title", "leaves out the title"),
        ("{% if category %}{{ title }}{% endif %}", "leaves out the title"),
        ("{% for a in attributes %}{{ title }}{% endfor %}", "leaves out the title"),
        ("{{ title[:4] }}", "leaves out the title"),
        ("{{ title }}{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}", "can't be compiled"),
        ("{{ title }}" + "{% if title %}" * 200 + "x" + "{% endif %}" * 200, "can't be compiled"),
    ],
)
def test_a_wrong_template_is_refused_by_name_with_the_reason(source: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_template(source, "t.j2")
    assert str(caught.value).startswith("template t.j2")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        "title.__class__.__mro__",
        "title['__class__']",
        "title|attr('__class__')",
        "''.__class__.__base__.__subclasses__()",
        "'{0.__class__.__mro__}'.format(title)",
        "'{t.__class__}'.format_map({'t': title})",
        "[title]|map(attribute='__class__')|first",
        "cycler.__init__.__globals__",
        "self.__init__.__globals__",
        "self._TemplateReference__context",
        "lipsum.__globals__['os'].popen('id').read()",
        "namespace.__init__.__globals__",
        "joiner.__init__.__globals__",
        "dict.__base__",
        "attributes[0].__init__.__globals__",
        "attributes.__class__",
        "attributes|first|attr('__class__')",
        "title.upper.__self__.__class__",
        "(title for title in title).gi_frame",
        "attributes.append(1)",
        "config",
        "request",
        "open('/etc/passwd').read()",
        "__import__('os')",
    ],
)
def test_a_template_reaches_nothing_of_python(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"^template t\.j2"):
        compile_template("{{ title }} {{ " + expression + " }}", "t.j2")


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% for a in title %}{% for b in title %}{% for c in title %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in attributes recursive %}{{ loop(attributes) }}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% block b %}{{ self.b() }}{% endblock %}",
        "{{ 10**10**10 }}",
        "{{ 'x' * 10000000000 }}",
        "{{ 'x'|center(10000000000) }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ lipsum(n=1000000000) }}",
        "{{ range(99999)|list }}",
        "{% for a in 'x'|center(9999) %}{% for b in 'x'|center(99) %}x{% endfor %}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ ('%' ~ '9999' ~ '99999d') % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '{:>1000000000}'.format(title) }}",
        "{{ title.center('1000000000'|int) }}",
        "{{ 'x'|center('1000000000'|int) }}",
        "{{ title.zfill('1000000000'|int) }}",
        "{{ title|indent('1000000000'|int) }}",
        "{% for a in title|slice('1000000000'|int) %}{% endfor %}",
        "{{ [1]|batch('1000000000'|int, 'x')|list }}",
        "{{ attributes|tojson(indent='1000000000'|int) }}",
        "{% set x = title %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
        "{% set x = title %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
        "{% set x = [title] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}",
        "{% set x %}{{ title }}{{ title }}{% endset %}",
        "{% with x = title ~ title %}{{ x }}{% endwith %}",
        "{% for x in [title ~ title] %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}{% endfor %}",
        "{{ title|join(title) }}",
        "{{ title.join(title) }}",
        "{{ title|replace('', title) }}",
        "{{ title.replace('', title) }}",
        "{{ title|join(d=title) }}",
    ],
)  # fmt: skip
def test_a_template_that_could_keep_the_run_busy_for_ever_is_refused(source: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"^template t\.j2"):
        compile_template("{{ title }}" + source, "t.j2")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "source",
    ["{% for a in title %}{% for b in title %}x{% endfor %}{% endfor %}", "{% for a in title.split() %}{% endfor %}"],
)
def test_a_loop_without_end_over_a_row_is_the_template_s_error(source: str) -> None:
    template = compile_template("{{ title }}" + source, "t.j2")
    assert render(template, product("Oak side table")).startswith("Oak")
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"template t\.j2 fails for .*a loop of more than 1,000 turns"):
        render(template, product("x " * 50_000))
    assert time.process_time() - started < 1


@pytest.mark.parametrize("expression", ["attributes|random", "title|urlize", "attributes|pprint"])
def test_what_a_prompt_has_no_use_for_is_not_there(expression: str) -> None:
    with pytest.raises(ConfigError, match="No filter named"):
        compile_template("{{ title }}{{ " + expression + " }}", "t.j2")


def test_the_line_of_what_is_refused_is_named() -> None:
    with pytest.raises(ConfigError, match="line 3: a power is not allowed"):
        compile_template("{{ title }}\n\n{{ 2**9 }}", "test")


def test_a_row_that_a_template_fails_on_is_an_error_of_the_template() -> None:
    template = compile_template("{{ title }} {{ 10 / (attributes | length - 2) }}", "t.j2")
    with pytest.raises(ConfigError, match=r"template t\.j2 fails for 'Lamp' with 2 attributes: division by zero"):
        render(template, product("Lamp", "Home", "red", "blue"))


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% for i in range(9) %}", "{{ title.__class__ }}", "{#", "<b>&amp;</b>", "\\n{{", "% s"]
)
def test_template_code_in_a_catalog_is_plain_text(text: str) -> None:
    rendered = render(compile_template(TEMPLATE, "test"), product(text, text, text))
    assert rendered == f"Category: {text}\nTitle: {text}\nA0: {text}\nDescription:"


def test_a_template_file_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "t.j2"
    file.write_text("Ü {{ title }}\n", encoding="utf-8")
    assert read_template(file) == "Ü {{ title }}\n"
    file.write_text("{{ titel }}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"t\.j2.*'titel' is undefined"):
        read_template(file)
    file.write_bytes(b"\xff{{ title }}")
    with pytest.raises(ConfigError, match=r"t\.j2: is not UTF-8"):
        read_template(file)
    with pytest.raises(ConfigError, match=r"none\.j2: can't be read"):
        read_template(tmp_path / "none.j2")


def test_what_fits_is_left_as_it_is() -> None:
    row = product("Oak table", "Home", "red", "soft")
    prompts, encoder = builder(10)
    (prompt,) = prompts.build([row])  # Category: Home Title: Oak table A0: red A1: soft Description:
    assert prompt.dropped == 0
    assert prompt.product == row
    assert len(prompt.token_ids) == 10
    assert encoder.decode(prompt) == " ".join(prompt.text.split())


@pytest.mark.parametrize(
    ("max_tokens", "expected", "dropped"),
    [
        (10, "Category: Home Title: Oak table A0: red A1: soft Description:", 0),
        (9, "Category: Home Title: Oak table A0: red Description:", 1),
        (8, "Category: Home Title: Oak table A0: red Description:", 1),
        (7, "Category: Home Title: Oak table Description:", 2),
        (6, "Category: Home Title: Oak table Description:", 2),
        (5, "Title: Oak table Description:", 2),
        (4, "Title: Oak table Description:", 2),
    ],
)
def test_attributes_are_dropped_from_the_last_then_the_category(max_tokens: int, expected: str, dropped: int) -> None:
    row = product("Oak table", "Home", "red", "soft")
    prompts, encoder = builder(max_tokens)
    (prompt,) = prompts.build([row])
    assert encoder.decode(prompt) == " ".join(prompt.text.split()) == expected
    assert prompt.dropped == dropped
    assert prompt.product == row  # the row itself is whole


def test_a_title_that_does_not_fit_alone_has_no_token_ids() -> None:
    row = product("Oak table", "Home", "red", "soft")
    prompts, _ = builder(3)
    (prompt,) = prompts.build([row])
    assert prompt.token_ids == ()
    assert prompt.dropped == 2
    assert "Title: Oak table" in prompt.text


def test_a_row_without_attributes_and_category_that_does_not_fit() -> None:
    prompts, _ = builder(3)
    (prompt,) = prompts.build([product("Oak table", "")])
    assert (prompt.token_ids, prompt.dropped) == ((), 0)


def test_a_context_without_room_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens leaves no room"):
        builder(0)


def test_the_template_is_chosen_for_each_row() -> None:
    wordings = {name: Wording(compile_template(f"{name[0]} {{{{ title }}}}", name)) for name in ("Home", "Toys")}
    prompts = PromptBuilder(lambda row: wordings[row.category], WordEncoder(), 8)
    built = prompts.build([product("Lamp", "Toys"), product("Bear", "Home")])
    assert [prompt.text for prompt in built] == ["T Lamp", "H Bear"]


def test_a_batch_is_encoded_at_once() -> None:
    prompts, encoder = builder(20)
    prompts.build([product(f"Lamp {number}") for number in range(50)])
    assert len(encoder.calls) == 1
    assert prompts.build([]) == []


words = st.lists(st.sampled_from(["red", "soft", "oak", "{{ title }}", "10"]), min_size=1, max_size=5).map(" ".join)
products = st.builds(product, words, st.one_of(st.just(""), words), words, words, words, ordinal=st.integers(0, 99))


@unhurried
@given(st.lists(products, max_size=12), st.integers(1, 24))
def test_prompts_keep_the_order_the_title_and_the_limit(rows: list[Product], max_tokens: int) -> None:
    prompts, encoder = builder(max_tokens)
    built = prompts.build(rows)
    assert [prompt.product for prompt in built] == rows
    for row, prompt in zip(rows, built, strict=True):
        assert len(prompt.token_ids) <= max_tokens
        assert f"Title: {row.title}\n" in prompt.text
        assert not prompt.token_ids or encoder.decode(prompt) == " ".join(prompt.text.split())
        assert 0 <= prompt.dropped <= len(row.attributes)
        assert prompt.text.count("\nA") == len(row.attributes) - prompt.dropped or not prompt.token_ids
        assert prompt == prompts.build([row])[0]  # whatever its neighbours
