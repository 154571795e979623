# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which plugins drgn is kept from loading, and that nothing else learns of it."""

from __future__ import annotations

import os

import pytest

from drgn_zonedev.opening.plugins import without_repl_plugins

VARIABLE = "DRGN_DISABLE_PLUGINS"


@pytest.mark.parametrize(
    ("given", "meanwhile"),
    [
        (None, {"builtin_commands", "crash_commands"}),
        ("", {"builtin_commands", "crash_commands"}),
        ("mine,zone*", {"builtin_commands", "crash_commands", "mine", "zone*"}),
        ("*", {"*"}),
    ],
)
def test_only_commands_are_left_out_besides_what_the_user_disables(
    monkeypatch: pytest.MonkeyPatch, given: str | None, meanwhile: set[str]
) -> None:
    if given is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, given)
    with without_repl_plugins():
        assert set(os.environ[VARIABLE].split(",")) == meanwhile
    assert os.environ.get(VARIABLE) == given


def test_drgn_has_plugins_of_these_names() -> None:
    from importlib.metadata import distribution

    names = {e.name for e in distribution("drgn").entry_points if e.group == "drgn.plugins"}
    if not names:
        pytest.skip("this drgn has no plugins of its own")
    assert {"builtin_commands", "crash_commands"} <= names
