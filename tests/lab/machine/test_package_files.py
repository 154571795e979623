# SPDX-License-Identifier: LGPL-2.1-or-later

"""Firmware comes out of a package, once, and QEMU gets it instead of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drgn_zonedev.lab import SCENARIOS, Kernel, LabError
from drgn_zonedev.lab.host.apt import Apt, Mirror, Package, Suite
from drgn_zonedev.lab.machine import package_files, qemu
from drgn_zonedev.lab.machine.package_files import fetch_busybox, fetch_firmware


class FakeApt(Apt):
    """A mirror with one package, made of a directory."""

    def update(self) -> None:
        """There is nothing to update."""

    def show(self, *names: str) -> dict[str, Package]:
        return {name: Package(name, "1", 1 << 20, ()) for name in names}

    def download(self, package: Package, directory: Path) -> Path:
        directory.mkdir()
        deb = directory / "x.deb"
        subprocess.run(["dpkg-deb", "-b", str(self.directory), str(deb)], check=True)
        return deb


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the package holds."""
    tree = tmp_path / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    fields = "Package: ovmf\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(fields)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache/drgn_zonedev").mkdir(parents=True)
    monkeypatch.setattr(package_files, "find_mirror", lambda: None)
    monkeypatch.setattr(package_files, "private_apt", lambda *arguments: FakeApt(tree))
    return tree


def test_firmware_is_fetched_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "usr/share/ovmf").mkdir(parents=True)
    (tree / "usr/share/ovmf/OVMF.fd").write_bytes(b"firmware")
    found = fetch_firmware("ovmf")
    assert found.read_bytes() == b"firmware"
    monkeypatch.setattr(package_files, "private_apt", None)  # Calling it would fail.
    assert fetch_firmware("ovmf") == found


def test_package_without_the_firmware_is_refused(tree: Path) -> None:
    with pytest.raises(LabError, match=r"ovmf holds no usr/share/ovmf/OVMF\.fd"):
        fetch_firmware("ovmf")


def test_busybox_is_that_of_the_guest(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suites: list[Suite] = []

    def private_apt(directory: Path, suite: Suite, mirror: Mirror) -> FakeApt:
        suites.append(suite)
        return FakeApt(tree)

    monkeypatch.setattr(package_files, "private_apt", private_apt)
    (tree / "bin").mkdir()
    (tree / "bin/busybox").write_bytes(b"program")
    assert fetch_busybox("arm64").read_bytes() == b"program"
    assert [suite.architecture for suite in suites] == ["arm64"]


def test_qemu_gets_the_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "find_tool", lambda program: program)
    none = Path("/none")
    kernel = Kernel("6.1", "6.1.0", "1", none, none, None, (), None)
    assert SCENARIOS["ovmf"].firmware == "ovmf"
    for given, options in ((none, ["/none"]), (None, [])):
        command = qemu.qemu_command(
            kernel, SCENARIOS["ovmf"], none, memory_mib=3072, accel="tcg", firmware=given
        )
        assert [command[i + 1] for i, word in enumerate(command) if word == "-bios"] == options
