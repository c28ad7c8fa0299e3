"""Special tokens in a catalog are text: no tokenizer makes control of them, whatever the model's are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nasty
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from enrich.categories import Categories
from enrich.engine.files import EMBEDDED, find_model
from enrich.engine.tokenizer import Tokenizer
from enrich.product import Attribute, Product
from enrich.prompts import PromptBuilder
from enrich.wordings import wordings

MODELS = ["tiny_gpt2", "tiny_llama", "tiny_chat", "home-mini"]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Path:
    return EMBEDDED / "home-mini" if request.param == "home-mini" else request.getfixturevalue(request.param)


def prompts_of(model: Path, products: list[Product]) -> list[tuple[int, ...]]:
    files = find_model(str(model))
    tokenizer = Tokenizer(files, chat=files.has_chat_template)
    categories = Categories(files.template)
    wording = wordings(categories, chat=files.has_chat_template)
    builder = PromptBuilder(lambda product: wording[categories.of(product)], tokenizer.encode, files.context - 4)
    return [prompt.token_ids for prompt in builder.build(products)]


def test_control_tokens_of_the_model_are_those_of_its_template_alone(model: Path) -> None:
    reference: Any = AutoTokenizer.from_pretrained(model)
    special = set(reference.all_special_ids)
    own = [token for token in reference.all_special_tokens if token]
    assert own
    plain = Product(0, "1", "Oak table", "Home > Furniture", (Attribute("Color", "red"),), "")
    products = [plain]
    for number, token in enumerate(
        [*own, *nasty.SPECIAL_TOKENS, *(own[0] * 3, f"x{own[0]}y", f"{own[0]}\n{own[0]}")], 1
    ):
        for title, category, value in (
            (f"Oak {token} table", "Home", "red"),
            ("Oak table", token, "red"),
            ("Oak", "", token),
        ):
            products.append(
                Product(number, token, title, category, (Attribute("Color", value), Attribute(token, "x")), "")
            )
    first, *others = prompts_of(model, products)
    controls = [token for token in first if token in special]
    assert len(others) > 60
    for product, ids in zip(products[1:], others, strict=True):
        assert ids, product
        assert [token for token in ids if token in special] == controls, product
        if not controls:  # and no character is lost
            text = reference.decode(ids)
            assert product.title.lower() in text.lower()


@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_chat"])
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    pieces=st.lists(
        st.sampled_from(["<|", "|>", "endoftext", "im_start", "im_end", " ", "\n", "<", "|", ">", "a", "<|endoftext|>"])
    )
)
def test_no_putting_together_makes_one(request: pytest.FixtureRequest, name: str, pieces: list[str]) -> None:
    model = request.getfixturevalue(name)
    if name not in _CACHE:
        files = find_model(str(model))
        _CACHE[name] = (
            Tokenizer(files, chat=files.has_chat_template),
            set(AutoTokenizer.from_pretrained(model).all_special_ids),
        )
    tokenizer, special = _CACHE[name]
    text = "".join(pieces)
    plain, odd = tokenizer.encode(["Lamp", f"Lamp {text}."])
    assert [token for token in odd if token in special] == [token for token in plain if token in special]


_CACHE: dict[str, tuple[Tokenizer, set[int]]] = {}
