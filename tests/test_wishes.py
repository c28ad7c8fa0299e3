from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from enrich.errors import ModelError
from enrich.wishes import Wishes, read_wishes


def read(directory: Path, text: str, **options: bool) -> Wishes:
    (directory / "enrich.toml").write_text(text, encoding="utf-8")
    return read_wishes(directory / "enrich.toml", **options)


def test_all_that_a_model_can_wish_for(tmp_path: Path) -> None:
    wishes = read(
        tmp_path,
        """
        template = "{{ title }}"
        chat = true
        continues_prompt = false
        max_new_tokens = 64
        [sampling]
        temperature = 1
        top_k = 0
        top_p = 0.5
        repetition_penalty = 1.2
        """,
    )
    assert wishes.template == "{{ title }}"
    assert wishes.continues_prompt is False
    assert wishes.options == {
        "chat": True, "max_new_tokens": 64, "temperature": 1, "top_k": 0, "top_p": 0.5, "repetition_penalty": 1.2,
    }  # fmt: skip


def test_a_model_may_wish_for_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Wishes()
    assert Wishes().options == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("templat = 'x'", "unknown key 'templat'; did you mean template?"),
        ("max-new-token = 3", "unknown key 'max-new-token'; did you mean max_new_tokens?"),
        ("temperature = 1", "unknown key 'temperature'; did you mean temperature under [sampling]?"),
        ("temprature = 1", "unknown key 'temprature'; did you mean temperature under [sampling]?"),
        ("[sampling]\ntop-kk = 1", "unknown key 'sampling.top-kk'; did you mean top_k?"),
        ("[sampling]\nmax_new_tokens = 1", "did you mean max_new_tokens above [sampling]?"),
        ("seed = 1", "unknown key 'seed'; it may have template, chat, continues_prompt, max_new_tokens"),
        ("model = 'gpt2'", "unknown key 'model'"),
        ("sampling = 1", "sampling should be a table, [sampling]"),
        ("template = 1", "template = 1 should be text in quotes"),
        ("continues_prompt = 1", "continues_prompt = 1 should be true or false"),
        ("chat = 'yes'", "chat = 'yes': should be true or false"),
        ("max_new_tokens = 0", "max_new_tokens = 0: must be at least 1"),
        ("[sampling]\ntemperature = -1", "temperature = -1.0: must be 0 or more"),
        ("[sampling]\ntop_p = '0.9'", "top_p = '0.9': should be a number"),
        ("[sampling]\ntop_k = 1.5", "top_k = 1.5: should be a whole number"),
        ("[sampling", "not valid TOML"),
    ],
)
def test_what_a_file_has_wrong_is_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'enrich.toml'}: ")
    assert message in str(caught.value)


def test_a_preset_says_of_what_model(tmp_path: Path) -> None:
    assert read(tmp_path, "model = 'org/name'", preset=True).model == "org/name"
    with pytest.raises(ModelError, match="model is missing"):
        read(tmp_path, "template = 'x'", preset=True)
    with pytest.raises(ModelError, match="model = 3 should be text"):
        read(tmp_path, "model = 3", preset=True)


def test_one_s_wishes_go_over_another_s() -> None:
    own = Wishes(options={"top_k": 0, "chat": False})
    other = Wishes(template="{{ title }}", options={"top_k": 5, "chat": True, "top_p": 0.3})
    assert own.over(other) == Wishes(template="{{ title }}", options={"top_k": 0, "chat": False, "top_p": 0.3})
    assert Wishes(continues_prompt=False).over(Wishes(continues_prompt=True)).continues_prompt is False


def test_a_run_is_as_the_model_wishes_it(enrich, tiny_gpt2: Path, tmp_path: Path) -> None:
    import shutil

    model = Path(shutil.copytree(tiny_gpt2, tmp_path / "model"))
    frame = pl.DataFrame({"id": ["1", "2"], "title": ["Oak Table", "Lamp"]})
    wished = "max_new_tokens = 6\n[sampling]\ntemperature = 1.5\ntop_p = 1.0\n"
    (model / "enrich.toml").write_text(wished)
    summary = enrich(frame, "wished.parquet", model=str(model), max_new_tokens=None)
    assert summary.generated_tokens <= 12
    given = enrich(
        frame, "given.parquet", model=str(model), max_new_tokens=6, temperature=1.5, top_p=1.0, top_k=50,
        repetition_penalty=1.1,
    )  # fmt: skip
    wishes, flags = pl.read_parquet(summary.output), pl.read_parquet(given.output)
    assert wishes["description"].to_list() == flags["description"].to_list()
    # What they are is in the keys, wherever they came from.
    keys = [table["generation"].struct.field("key").to_list() for table in (wishes, flags)]
    assert keys[0] == keys[1]
    colder = enrich(frame, "colder.parquet", model=str(model), max_new_tokens=None, temperature=0.1)
    assert pl.read_parquet(colder.output)["generation"].struct.field("key").to_list() != keys[0]
    again = enrich(
        frame, "wished.parquet", model=str(model), max_new_tokens=6, temperature=1.5, top_p=1.0, top_k=50,
        repetition_penalty=1.1, chat=False,
    )  # fmt: skip
    assert again.unchanged
