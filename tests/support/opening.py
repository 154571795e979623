# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev`` on a synthetic kernel, instead of what its arguments say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import Program

from drgn_zonedev.shell import cli


def open_instead(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Program]) -> None:
    """Let the command line open what is made, which needs no debugging symbols."""
    monkeypatch.setattr(cli, "_open", lambda args, core, monitor: make())
    monkeypatch.setattr(cli, "load_types", lambda prog, symbols, choice, names: None)
