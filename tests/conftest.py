# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Which Tests Run Where
---------------------

Tests that are marked ``long`` are skipped, unless pytest is given ``--all``.

What is expensive to make is made once: tests of one guest, and otherwise those of one
file, form a group. They run one after the other, and with ``--dist loadgroup`` in one
process.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests that are marked long, too")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.xdist_group(_group(item)))
    long = item.get_closest_marker("long")
    if long and not item.config.getoption("--all"):
        (reason,) = long.args
        item.add_marker(pytest.mark.skip(reason=f"only with --all: {reason}"))


# After pytest's own order, which goes by the places of parameters in their lists.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep groups together. Those of a whole file come first: some take minutes."""
    place: dict[str, tuple[bool, int]] = {}
    for number, item in enumerate(items):
        place.setdefault(_group(item), (_guest(item) is not None, number))
    items.sort(key=lambda item: place[_group(item)])


def _guest(item: pytest.Item) -> tuple[str, str] | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("booted") if callspec else None


def _group(item: pytest.Item) -> str:
    named = item.get_closest_marker("xdist_group")
    if named:
        return str(named.args[0])
    guest = _guest(item)
    return "-".join(guest) if guest else item.nodeid.partition("::")[0]
