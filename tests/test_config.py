from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from enrich.config import RunConfig, build_config
from enrich.errors import ConfigError

NOT_TEXT = {
    "catalog", "output", "device", "dtype", "batch_size", "batch_tokens", "commit_rows", "commit_seconds", "restart",
    "deterministic", "previous", "fresh", "changes", "max_time", "deadline", "publish_partial", "max_quarantined",
    "max_drift", "shard", "metrics_file", "report", "work_dir", "exit_code_unchanged", "workers", "ray",
}  # fmt: skip


def from_toml(directory: Path, text: str, **flags: Any) -> RunConfig:
    file = directory / "enrich.toml"
    file.write_text(text, encoding="utf-8")
    return build_config("catalog.csv", file, flags)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("max_new_tokens", 0, "must be at least 1"),
        ("temperature", -0.1, "must be 0 or more"),
        ("temperature", float("nan"), "must be 0 or more"),
        ("temperature", float("inf"), "must be 0 or more"),
        ("temperature", 10**400, "must be 0 or more"),
        ("top_k", -1, "must be 0 (off) or more"),
        ("top_p", 0.0, "must be above 0 and at most 1"),
        ("top_p", 1.01, "must be above 0 and at most 1"),
        ("top_p", float("nan"), "must be above 0 and at most 1"),
        ("repetition_penalty", 0.0, "must be above 0"),
        ("min_p", 1.0, "must be 0"),
        ("no_repeat_ngram", -1, "must be 0"),
        ("repetition_penalty", -1.0, "must be above 0"),
        ("repetition_penalty", float("nan"), "must be above 0"),
        ("repetition_penalty", float("inf"), "must be above 0"),
        ("seed", -1, "must be from 0 to 2^63 - 1"),
        ("seed", 2**63, "must be from 0 to 2^63 - 1"),
        ("limit", 0, "must be at least 1"),
        ("batch_size", 0, "must be at least 1"),
        ("batch_tokens", 0, "must be at least 1"),
        ("commit_rows", 0, "must be at least 1"),
        ("commit_seconds", -1.0, "must be 0 or more"),
        ("commit_seconds", float("nan"), "must be 0 or more"),
        ("commit_seconds", float("inf"), "must be 0 or more"),
        ("device", "tpu", "must be one of auto, cpu, cuda, mps"),
        ("dtype", "int8", "must be one of auto, float32, bfloat16, float16"),
        ("delimiter", "", "must be one character"),
        ("delimiter", "::", "must be one character"),
        ("output_column", "", "must be a name other than 'generation'"),
        ("output_column", "generation", "must be a name other than 'generation'"),
        ("output", "catalog.csv", "must end in .parquet"),
        ("output", "", "must end in .parquet"),
        ("output", "a\0.parquet", "must not hold a NUL character"),
        # wrong types, from Python
        ("max_new_tokens", 1.5, "should be a whole number"),
        ("max_new_tokens", True, "should be a whole number"),
        ("max_new_tokens", "9", "should be a whole number"),
        ("temperature", "0.7", "should be a number"),
        ("temperature", True, "should be a number"),
        ("restart", 1, "should be true or false"),
        ("overwrite", "yes", "should be true or false"),
        ("model", 3, "should be text"),
        ("model", None, "should be text"),
        ("attributes", ("Color", 3), "should be a list of names"),
        ("attributes", 3, "should be a list of names"),
    ],
)
def test_each_rule_names_the_option_and_the_value(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig("catalog.csv", **{name: value})
    shown = "inf" if value == 10**400 else repr(value)
    assert str(caught.value).startswith(f"{name} = {shown}: {rule}")


@pytest.mark.parametrize("catalog", ["", ".", "/", "a\0b.csv"])
def test_a_catalog_must_be_named(catalog: str) -> None:
    with pytest.raises(ConfigError, match=r"^catalog = "):
        RunConfig(catalog)


def test_values_at_the_edges_are_allowed() -> None:
    RunConfig(
        "c.csv", max_new_tokens=1, temperature=0, top_k=0, top_p=1, seed=2**63 - 1, limit=1, batch_size=1,
        batch_tokens=1, commit_rows=1, commit_seconds=0, delimiter="\t", id_column="", attributes=(), output="x.PQ",
    )  # fmt: skip


def test_whole_numbers_for_fractions_make_the_same_configuration() -> None:
    whole, fraction = RunConfig("c.csv", temperature=1, top_p=1), RunConfig("c.csv", temperature=1.0, top_p=1.0)
    assert json.dumps(whole.as_dict()) == json.dumps(fraction.as_dict())


def test_paths_are_taken_as_text() -> None:
    config = RunConfig(Path("c.csv"), output=Path("x.parquet"), model=Path("m"))  # type: ignore[arg-type]
    assert (config.catalog, config.output, config.model) == ("c.csv", "x.parquet", "m")


@pytest.mark.parametrize(
    ("catalog", "output"),
    [
        ("catalog.csv", "catalog.enriched.parquet"),
        ("catalog.csv.gz", "catalog.enriched.parquet"),
        ("catalog.jsonl.zst", "catalog.enriched.parquet"),
        ("catalog.CSV.GZ", "catalog.enriched.parquet"),
        ("catalog.parquet", "catalog.enriched.parquet"),
        ("a.b.parquet", "a.b.enriched.parquet"),
        ("a.b.csv.gz", "a.b.enriched.parquet"),
        ("catalog", "catalog.enriched.parquet"),
        ("catalog.gz", "catalog.enriched.parquet"),
        ("in/2026-11-23.csv", "in/2026-11-23.enriched.parquet"),
        ("/data/käse 1.csv", "/data/käse 1.enriched.parquet"),
        ("catalog.enriched.parquet", "catalog.enriched.enriched.parquet"),
    ],
)
def test_default_output_is_beside_the_catalog(catalog: str, output: str) -> None:
    assert RunConfig(catalog).output_path == Path(output)


def test_the_catalog_itself_is_not_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "catalog.parquet").touch()
    (tmp_path / "link.parquet").symlink_to("catalog.parquet")
    for output in ("catalog.parquet", "./catalog.parquet", "sub/../catalog.parquet", str(tmp_path / "catalog.parquet"),
                   "link.parquet"):  # fmt: skip
        with pytest.raises(ConfigError, match=r"^output = .*: must not be the catalog itself"):
            RunConfig("catalog.parquet", output=output)
    assert RunConfig("catalog.parquet", output="sub/catalog.parquet").output_path == Path("sub/catalog.parquet")


def test_exactly_the_options_on_which_texts_depend() -> None:
    config = RunConfig("c.csv", attributes=("Color", "Size"))
    names = {option.name for option in dataclasses.fields(RunConfig)}
    assert set(config.text_options()) == names - NOT_TEXT
    assert set(config.as_dict()) == names
    assert config.text_options()["attributes"] == config.as_dict()["attributes"] == ["Color", "Size"]
    assert json.loads(json.dumps(config.as_dict())) == config.as_dict()


def test_a_way_of_drawing_that_is_off_is_no_part_of_the_keys() -> None:
    config = RunConfig("catalog.csv").completed({})
    assert set(config.sampling()) == {"max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty"}
    told = RunConfig("catalog.csv", min_p=0.1, no_repeat_ngram=3, stop=(r"\n", "###")).completed({}).sampling()
    assert (told["min_p"], told["no_repeat_ngram"], told["stop"]) == (0.1, 3, ("\n", "###"))


def test_a_new_option_must_be_sorted_into_text_or_not() -> None:
    assert {option.name for option in dataclasses.fields(RunConfig) if not option.metadata.get("text")} == NOT_TEXT


def test_every_option_has_a_line_of_help() -> None:
    for option in dataclasses.fields(RunConfig):
        assert option.name == "catalog" or option.metadata["help"].rstrip("]").strip()


def test_without_a_file_the_defaults_and_flags_hold() -> None:
    assert build_config("c.csv", None, {}) == RunConfig("c.csv")
    assert build_config("c.csv", None, {"top_k": None, "restart": None}) == RunConfig("c.csv")
    assert build_config("c.csv", None, {"top_k": 0, "restart": True}) == RunConfig("c.csv", top_k=0, restart=True)


def test_a_file_gives_options_of_every_type(tmp_path: Path) -> None:
    config = from_toml(
        tmp_path,
        """
        output = "out.parquet"
        model = "gpt2"
        max_new_tokens = 64
        temperature = 1
        top_p = 0.5
        overwrite = true
        limit = 5
        attributes = ["Color", "Size"]
        id_column = ""
        """,
    )
    assert config == RunConfig(
        "catalog.csv", output="out.parquet", model="gpt2", max_new_tokens=64, temperature=1.0, top_p=0.5,
        overwrite=True, limit=5, attributes=("Color", "Size"), id_column="",
    )  # fmt: skip
    assert isinstance(config.temperature, float)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    text = 'top_k = 5\nseed = 1\noverwrite = true\nattributes = ["Color"]\nid_column = "sku"'
    flags = {"top_k": 0, "seed": None, "overwrite": False, "attributes": "", "id_column": ""}
    config = from_toml(tmp_path, text, **flags)
    assert (config.top_k, config.seed, config.overwrite, config.attributes, config.id_column) == (0, 1, False, (), "")


def test_keys_may_have_dashes_or_underscores_but_not_both(tmp_path: Path) -> None:
    assert from_toml(tmp_path, "max-new-tokens = 7\nbatch_size = 3") == RunConfig(
        "catalog.csv", max_new_tokens=7, batch_size=3
    )
    with pytest.raises(ConfigError, match="batch_size is given twice"):
        from_toml(tmp_path, "batch-size = 7\nbatch_size = 3")


@pytest.mark.parametrize(
    ("toml", "attributes"),
    [
        ('["Color", "Size, cm"]', ("Color", "Size, cm")),
        ("[]", ()),
        ('"Color,Size"', ("Color", "Size")),
        ('" Color , Size ,"', ("Color", "Size")),
        ('"Color"', ("Color",)),
        ('""', ()),
        ('" , "', ()),
    ],
)
def test_attributes_are_a_list_or_comma_separated(tmp_path: Path, toml: str, attributes: tuple[str, ...]) -> None:
    assert from_toml(tmp_path, f"attributes = {toml}").attributes == attributes
    if toml.startswith('"'):
        assert build_config("c.csv", None, {"attributes": toml.strip('"')}).attributes == attributes
        assert RunConfig("c.csv", attributes=toml.strip('"')).attributes == attributes  # type: ignore[arg-type]


def test_no_attributes_named_is_not_none_of_them() -> None:
    assert RunConfig("c.csv").attributes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature = 1", "unknown option 'temprature'; did you mean 'temperature'?"),
        ("max-tokens = 1", "unknown option 'max-tokens'; did you mean 'max_new_tokens'?"),
        ("Model = 'gpt2'", "unknown option 'Model'; did you mean 'model'?"),
        ("zzz = 1", "unknown option 'zzz'; see `enrich run --help`"),
        ("[run]\nseed = 1", "unknown option 'run'"),
        ("catalog = 'x.csv'", "unknown option 'catalog'; name the catalog on the command line"),
        ("max_new_tokens = 1.0", "max_new_tokens = 1.0 should be a whole number"),
        ("max-new-tokens = '1'", "max-new-tokens = '1' should be a whole number"),
        ("seed = true", "seed = True should be a whole number"),
        ("limit = false", "limit = False should be a whole number"),
        ("temperature = true", "temperature = True should be a number"),
        ("temperature = '0.7'", "temperature = '0.7' should be a number"),
        ("overwrite = 1", "overwrite = 1 should be true or false"),
        ("overwrite = 'true'", "overwrite = 'true' should be true or false"),
        ("model = 1", "model = 1 should be text in quotes"),
        ("model = ['a']", "model = ['a'] should be text in quotes"),
        ("model = {a = 1}", "model = {'a': 1} should be text in quotes"),
        ("output = 2026-11-23", "should be text in quotes"),
        ("attributes = [1]", "attributes = [1] should be a list of names"),
        ("attributes = [['a']]", "should be a list of names"),
        ("attributes = 1", "attributes = 1 should be a list of names"),
        ("seed = ", "not valid TOML"),
        ("seed = 1\nseed = 2", "not valid TOML"),
    ],
)
def test_what_a_file_has_wrong_is_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_toml(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'enrich.toml'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["temperature = nan", "temperature = inf", "temperature = -1", "top_p = 1.5", "seed = -1"]
)
def test_values_of_a_file_are_held_to_the_rules(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=text.split(" = ")[0]):
        from_toml(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: can't be read: No such file"):
        build_config("c.csv", tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        build_config("c.csv", tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b'model = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml: not valid TOML"):
        build_config("c.csv", tmp_path / "latin.toml", {})
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert build_config("c.csv", tmp_path / "bom.toml", {}).seed == 3


def test_a_configuration_cannot_be_changed_but_compared_and_copied() -> None:
    config = RunConfig("c.csv", attributes=["a"])  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    assert hash(config) == hash(RunConfig("c.csv", attributes=("a",)))
    assert dataclasses.replace(config, seed=2).seed == 2
    with pytest.raises(ConfigError, match="seed"):
        dataclasses.replace(config, seed=-2)


def test_deterministic_is_float32() -> None:
    with pytest.raises(ConfigError, match="dtype = 'bfloat16': can't be narrower than float32 with --deterministic"):
        RunConfig("c.csv", deterministic=True, dtype="bfloat16")
    assert RunConfig("c.csv", deterministic=True, dtype="float32").deterministic
