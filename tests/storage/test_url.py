from __future__ import annotations

import pytest

from enrich.config import RunConfig
from enrich.errors import ConfigError
from enrich.storage.url import Url, is_remote


def test_a_url_is_taken_apart_and_put_together() -> None:
    url = Url.parse("s3://bucket/a dir/cat%20alog.csv.gz")
    assert (url.scheme, url.bucket, url.key, url.name) == (
        "s3",
        "bucket",
        "a dir/cat%20alog.csv.gz",
        "cat%20alog.csv.gz",
    )
    assert (str(url), url.parent) == ("s3://bucket/a dir/cat%20alog.csv.gz", "s3://bucket/a dir")
    assert str(url.with_name("x")) == "s3://bucket/a dir/x"
    assert str(url.with_suffix(".lock")) == f"{url}.lock"
    assert str(url / "manifest") == f"{url}/manifest"
    assert str(Url.parse("gs://bucket/top").with_name("x")) == "gs://bucket/x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("s3://", "names no bucket"),
        ("s3://bucket", "must name an object"),
        ("s3://bucket/", "must name an object"),
        ("s3://bucket/a//b", "must name an object"),
        ("s3://bucket/a/../b", "must name an object"),
        ("ftp://host/file", "can be s3://, gs://, az://"),
    ],
)
def test_what_names_no_object_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Url.parse(text)


@pytest.mark.parametrize(
    "text", ["s3://key:hushhush@bucket/c.csv", "s3://hushhush@b/c.csv", "az://c/k.csv?sig=hushhush"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="has no place for") as caught:
        RunConfig(text)
    assert "hushhush" not in str(caught.value)


def test_remote_is_what_has_a_scheme_that_is_known() -> None:
    assert is_remote("s3://b/k") and is_remote("GS://b/k") and is_remote("az://c/k")
    assert (
        not is_remote("catalog.csv")
        and not is_remote("s3:/b/k")
        and not is_remote("https://host/k")
        and not is_remote(None)
    )


def test_the_output_of_a_remote_catalog_is_beside_it() -> None:
    config = RunConfig("s3://bucket/in/catalog.csv.gz")
    assert config.is_remote
    assert config.places()["output"] == "s3://bucket/in/catalog.enriched.parquet"
    assert not RunConfig("catalog.csv").is_remote
    assert RunConfig("catalog.csv", report="gs://b/r.html").is_remote


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"output": "https://host/out.parquet"}, "output: .* can be s3://"),
        ({"template": "s3://b/t.jinja"}, "template .* must be on this machine"),
        ({"metrics_file": "s3://b/m.prom"}, "metrics_file .* must be on this machine"),
        ({"shard": "1/2", "output": "s3://b/o.parquet"}, "works on local files only"),
        ({"changes": "s3://b/c.parquet"}, "must be on this machine if the output is"),
        ({"output": "s3://b/o.parquet", "changes": "s3://b/o.parquet"}, "must not be the output"),
        ({"output": "s3://b/o.csv"}, "must end in .parquet"),
    ],
)
def test_options_that_can_not_be_remote(options: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        RunConfig("catalog.csv", **options)
