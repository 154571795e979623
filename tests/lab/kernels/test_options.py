# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab import SCENARIOS, Kernel
from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.kernels.options import missing_options
from drgn_zonedev.lab.machine.boot import _check_possible

CONFIG = """\
CONFIG_NUMA=y
# CONFIG_NUMA_EMU is not set
CONFIG_CXL_REGION=m
CONFIG_LOCALVERSION="-NUMA_EMU=y"
"""
NEEDED = ("NUMA", "NUMA_EMU", "CXL_REGION", "VIRTIO_MEM")


def kernel(directory: Path) -> Kernel:
    return Kernel("own", "7.4.0", "", directory / "bzImage", directory / "vmlinux", None, (), None)


@pytest.mark.parametrize("name", ["config", ".config"])
def test_options_are_read_beside_vmlinux(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CONFIG)
    assert missing_options(kernel(tmp_path), NEEDED) == ["NUMA_EMU", "VIRTIO_MEM"]


def test_without_a_configuration_nothing_is_known_to_be_missing(tmp_path: Path) -> None:
    assert missing_options(kernel(tmp_path), NEEDED) == []


def test_a_scenario_is_not_possible_without_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    _check_possible(kernel(tmp_path), SCENARIOS["numa"])
    with pytest.raises(NotPossible, match="was built without CONFIG_NUMA_EMU"):
        _check_possible(kernel(tmp_path), SCENARIOS["numa-fake"])
