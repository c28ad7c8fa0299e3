from __future__ import annotations

from enrich.categories import Categories, Category
from enrich.categories.instructions import system_prompt


def test_each_category_gives_instructions_of_its_own() -> None:
    prompts = {category.name: system_prompt(category) for category in Categories()}
    assert len(set(prompts.values())) == len(prompts)
    for name, prompt in prompts.items():
        assert "\n" not in prompt and "  " not in prompt
        assert (f"in the category {name}." in prompt) == (name != "default")


def test_all_that_a_category_says_of_itself_is_in_its_instructions() -> None:
    claims = ("guaranteed", *(f"claim {number}" for number in range(20)))
    prompt = system_prompt(Category("toys", (), ("age", "pieces"), "", tone="playful", claims=claims))
    assert "say first: age, pieces." in prompt
    assert "The tone is playful." in prompt
    assert "claim 19" in prompt and "guaranteed" not in prompt  # the latter are a category's own, and not too many


def test_what_a_category_leaves_open_is_left_out() -> None:
    prompt = system_prompt(Category("default", (), (), ""))
    for word in ("category", "say first", "such as", "tone"):
        assert word not in prompt
