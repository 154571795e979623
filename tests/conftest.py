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

import gc
import re
import signal
from collections.abc import Iterator
from typing import Any

import drgn
import pytest
from xdist.scheduler import LoadScopeScheduling

# What support.guests.each_guest() makes of a kernel and a scenario.
_GUEST = re.compile(r"\[([\w.-]+:[a-z][\w-]*)\]$")


@pytest.fixture(autouse=True)
def _default_program_of_its_own() -> Iterator[None]:
    """Let no test find the default program that another one has set."""
    yield
    drgn.set_default_prog(None)


def pytest_configure() -> None:
    # A shell has its background jobs ignore SIGINT, and nohup has all ignore SIGHUP. So would all
    # that tests start.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests that are marked long, too")


def pytest_itemcollected(item: pytest.Item) -> None:
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
        place.setdefault(_group(item.nodeid), (bool(_GUEST.search(item.nodeid)), number))
    items.sort(key=lambda item: place[_group(item.nodeid)])


def pytest_collection_finish() -> None:
    # Ten thousand tests are no garbage, and need not be looked at each time some is collected.
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    # xdist 3.8 has a marker for groups, which does nothing since pytest 9.2.
    return _Groups(config, log) if config.getvalue("dist") == "loadgroup" else None


class _Groups(LoadScopeScheduling):  # type: ignore[misc] # It has no types.
    """A group runs in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def _group(nodeid: str) -> str:
    guest = _GUEST.search(nodeid)
    return guest[1] if guest else nodeid.partition("::")[0]
