# SPDX-License-Identifier: LGPL-2.1-or-later

"""What scenarios say that a kernel cannot do is what its own configuration says."""

from __future__ import annotations

import subprocess

import pytest

from drgn_zonedev.lab import KERNELS, SCENARIOS, fetch_kernel
from drgn_zonedev.lab.truth.module import truth_module

pytestmark = pytest.mark.qemu


def options(name: str) -> set[str]:
    """The options that a kernel of the cache was built with, from the package of its headers."""
    kernel = fetch_kernel(name)
    # The headers are fetched for the module.
    directory = truth_module(kernel).parent / "headers"
    (package,) = directory.glob(f"linux-headers-{kernel.release}_*.deb")
    archive = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True, timeout=60
    )
    config = subprocess.run(
        ["tar", "xO", "--wildcards", "./usr/src/*/.config"],
        input=archive.stdout,
        capture_output=True,
        check=True,
        timeout=60,
    )
    lines = config.stdout.decode().splitlines()
    settings = dict(line[len("CONFIG_") :].split("=", 1) for line in lines if "=" in line)
    return {name for name, value in settings.items() if value in ("y", "m")}


@pytest.mark.parametrize("kernel", KERNELS)
def test_scenario_is_impossible_where_an_option_is_missing(kernel: str) -> None:
    have = options(kernel)
    assert "ZONE_DEVICE" in have
    for scenario in SCENARIOS.values():
        missing = set(scenario.needs) - have
        if scenario.needs:
            assert bool(missing) == (kernel in scenario.impossible), (scenario.name, missing)
