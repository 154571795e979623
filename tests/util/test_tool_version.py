# SPDX-License-Identifier: LGPL-2.1-or-later

"""The version that reports and exports name."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from drgn_zonedev.util import tool_version as module


def test_it_is_that_of_the_installed_package() -> None:
    assert module.tool_version() == version("drgn-zonedev")


def test_it_is_unknown_if_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", missing)
    assert module.tool_version.__wrapped__() == "unknown"
