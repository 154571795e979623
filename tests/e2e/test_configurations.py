# SPDX-License-Identifier: LGPL-2.1-or-later

"""What scenarios say that a kernel cannot do is what its own configuration says."""

from __future__ import annotations

import subprocess

import drgn
import pytest

from drgn_zonedev.lab import KERNELS, PLAIN_KERNELS, SCENARIOS, Scenario, fetch_kernel
from drgn_zonedev.lab.truth.module import TRUTH, guest_module

pytestmark = pytest.mark.qemu

# What only a try can show: no option and no declaration says it.
BEHAVIOUR = {"registered"}


def options(name: str) -> set[str]:
    """The options that a kernel of the cache was built with, from the package of its headers."""
    kernel = fetch_kernel(name)
    # The headers are fetched for the module.
    directory = guest_module(kernel, TRUTH).parent / "headers"
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


def declares(prog: drgn.Program, what: str) -> bool:
    """Whether debugging information has an enumerator, a variable, or a structure's member."""
    type_name, dot, member = what.partition(".")
    try:
        if dot:
            return prog.type(type_name).has_member(member)
        return what in prog
    except LookupError:
        return False


def missing(scenario: Scenario, have: set[str], prog: drgn.Program) -> set[str]:
    absent = {what for what in scenario.declares if not declares(prog, what)}
    return (set(scenario.needs) - have) | absent


@pytest.mark.parametrize(
    "kernel",
    [
        *KERNELS,
        *(
            pytest.param(
                name, marks=pytest.mark.long("a download of 1 GB; each scenario is listed")
            )
            for name in PLAIN_KERNELS
        ),
    ],
)
def test_scenario_is_impossible_where_something_is_missing(kernel: str) -> None:
    have = options(kernel)
    assert "ZONE_DEVICE" in have
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.extra_module("vmlinux", create=True).try_file(fetch_kernel(kernel).vmlinux, force=True)
    for scenario in SCENARIOS.values():
        if scenario.needs or scenario.declares:
            absent = missing(scenario, have, prog)
            assert bool(absent) == (kernel in scenario.impossible), (scenario.name, absent)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_gap_has_a_cause_that_a_kernel_is_asked_about(name: str) -> None:
    scenario = SCENARIOS[name]
    if scenario.impossible and name not in BEHAVIOUR:
        assert scenario.needs or scenario.declares
