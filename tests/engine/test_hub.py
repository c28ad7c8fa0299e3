from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from enrich.engine import hub
from enrich.errors import ModelError

RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError("403", response=RESPONSE), "consent; give it on https://huggingface.co/org/x, then"),
        (errors.RevisionNotFoundError("404", response=RESPONSE), "the hub has no revision v2 of it"),
        (errors.RepositoryNotFoundError("404", response=RESPONSE), "no embedded model, preset or directory, and not"),
        (errors.HFValidationError("Repo id must\nbe"), "no directory, and can't be a hub id: Repo id must be"),
        (errors.LocalEntryNotFoundError("no"), "HF_HUB_OFFLINE is set; fetch it .*`hf download org/x --revision v2`"),
        (
            OSError(28, "No space left\non device"),
            "can't be fetched: .*No space left on device; try `hf download org/x",
        ),
    ],
)
def test_why_a_model_can_t_be_had_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match=message) as caught:
        hub.fetch("org/x", "v2")
    assert str(caught.value).startswith("model org/x: ")
    assert "\n" not in str(caught.value)


def test_neither_pickles_nor_code_are_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(_: str, **settings: Any) -> str:
        asked.update(settings)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.fetch("org/x") == tmp_path
    assert not {".bin", ".pt", ".py", ".pkl"} & {Path(pattern).suffix for pattern in asked["allow_patterns"]}
