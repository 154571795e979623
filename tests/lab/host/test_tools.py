# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drgn_zonedev.lab import DEBIAN_PACKAGES, LabError, missing_tools
from drgn_zonedev.lab.host import tools
from drgn_zonedev.lab.machine import qmp


@pytest.fixture
def _nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)


@pytest.mark.usefixtures("_nothing_is_installed")
def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(LabError, match="apt-get install qemu-system-x86"):
        tools.find_tool("qemu-system-x86_64")


@pytest.mark.usefixtures("_nothing_is_installed")
def test_every_package_of_the_lab_is_missed_when_nothing_is_installed() -> None:
    assert set(DEBIAN_PACKAGES) <= {package for _, package in missing_tools()}


@pytest.mark.usefixtures("_nothing_is_installed")
def test_what_only_long_tests_need_is_missed_apart() -> None:
    seldom = {package for _, package in tools.missing_seldom_needed()}
    assert seldom >= {"bc", "bison", "flex", "qemu-user-static"}
    assert not seldom & {package for _, package in missing_tools()}


def test_nothing_is_missed_when_everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: f"/bin/{program}")
    assert missing_tools() == []
    assert tools.missing_seldom_needed() == []


def test_tools_of_the_administrator_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    monkeypatch.setenv("PATH", "/home/me/bin")
    monkeypatch.setattr("shutil.which", lambda program, path: searched.append(path))
    missing_tools()
    assert set(searched) == {"/home/me/bin:/usr/sbin:/sbin"}


def test_a_missing_qmp_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)
    with pytest.raises(LabError, match=r"pip install 'qemu.qmp>="):
        qmp.require_qmp()


def test_an_absent_qemu_is_a_lab_error() -> None:
    pytest.importorskip("qemu.qmp")
    with pytest.raises(LabError, match="QEMU refused query-status"):
        qmp.execute(Path("/nonexistent/socket"), "query-status", {})


def test_qemu_ending_while_a_client_connects_is_an_error_of_the_lab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = pytest.importorskip("qemu.qmp").QMPClient

    async def connect(self: object, address: str) -> None:
        raise AssertionError

    monkeypatch.setattr(client, "connect", connect)
    with pytest.raises(LabError, match="QEMU refused quit"):
        qmp.execute(Path("/nonexistent/socket"), "quit", {})
