"""What tests of screened heads share."""

from __future__ import annotations

import pytest
import torch

from enrich.engine import screen

SCREENS = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="the processor has no instruction for products of 8-bit integers"
)


def screen_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small heads screened as large ones are."""
    monkeypatch.setattr(screen, "_FEWEST_WEIGHTS", 0)
    monkeypatch.setattr(screen, "_has_instruction", lambda _: True)
