# SPDX-License-Identifier: LGPL-2.1-or-later

"""Guests of ppc64el: RAM alone, and a machine that cannot tell QEMU its VMCOREINFO."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from drgn_zonedev.lab.kernels.known import PPC64EL_KERNELS, load_kernel
from drgn_zonedev.lab.machine import qemu
from drgn_zonedev.lab.scenarios.ppc64el import PPC64EL_SCENARIOS
from drgn_zonedev.lab.verdict.matrix import scenarios_on
from drgn_zonedev.lab.verdict.proofs import PROOFS


@pytest.fixture(params=PPC64EL_KERNELS)
def command(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """How QEMU is started for each of these kernels."""
    monkeypatch.setattr(qemu, "find_tool", lambda program: f"/bin/{program}")
    (tmp_path / "kernel.json").write_text('{"release": "6.12.0", "version": "1"}')
    kernel = load_kernel(request.param, tmp_path)
    assert kernel is not None
    assert kernel.page_size == 4096
    scenario = scenarios_on(kernel)["empty"]
    return qemu.qemu_command(kernel, scenario, tmp_path, memory_mib=1024, accel="tcg")


def test_its_machine_has_a_radix_mmu_and_a_port_on_pci(command: list[str]) -> None:
    words = shlex.join(command)
    assert command[0] == "/bin/qemu-system-ppc64"
    assert "-M pseries -cpu power9" in words
    assert "-device pci-serial,chardev=facts" in words
    assert "console=hvc0" in words
    assert "facts_port=ttyS0" in words


def test_its_machine_has_no_vmcoreinfo_device(command: list[str]) -> None:
    assert "vmcoreinfo" not in command


def test_scenarios_make_sense() -> None:
    for name, scenario in PPC64EL_SCENARIOS.items():
        assert scenario.name == name
        assert set(scenario.proofs) <= set(PROOFS)
        # There is nothing to stop at: the lab knows no registers of it.
        assert (scenario.breakpoint, scenario.failing_call) == (None, None)
