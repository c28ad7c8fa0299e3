"""Every extra is one that `make extras-test` uses."""

from __future__ import annotations

import extras


def test_every_extra_is_used() -> None:
    assert sorted(extras.USES) == sorted(extras.extras())
