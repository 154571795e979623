# SPDX-License-Identifier: LGPL-2.1-or-later

"""
RAM of ppc64el, with a radix MMU and pages of 4K: what the tool says is what the kernel
itself says, of every PFN.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.guests import Booted, debug_live, each_guest, long_guest, require_free, zonedev

from drgn_zonedev.lab.kernels.known import PPC64EL_KERNELS
from drgn_zonedev.lab.verdict.agreement import compare
from drgn_zonedev.lab.verdict.matrix import judge_guest
from drgn_zonedev.model import Case
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu

RAM = 1 << 30

each_kernel = each_guest(
    long_guest(kernel, "empty", "synthetic machines of ppc64el are in every run")
    for kernel in PPC64EL_KERNELS
)


@each_kernel
def test_the_tool_agrees_on_ppc64el(booted: Booted) -> None:
    require_free(booted.guest)
    _, wrong = judge_guest(booted.guest)
    assert wrong == []


@each_kernel
def test_every_pfn_of_ram_on_ppc64el(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    agreement = compare(prog, booted.guest.facts)
    assert (agreement.disagreements, agreement.leaks) == ((), ())
    assert agreement.pages == RAM // booted.kernel.page_size
    # All of it was compared with what the kernel said of each struct page when it was stopped.
    assert "the guest did not report frozen" not in agreement.silent
    ranges = [(r.start_pfn, r.end_pfn, r.case) for r in check(prog).ranges]
    assert ranges == [(0, RAM // booted.kernel.page_size, Case.ONLINE)]


@each_kernel
def test_its_vmcoreinfo_is_given_on_the_command_line(booted: Booted, tmp_path: Path) -> None:
    require_free(booted.guest)
    info = booted.guest.vmcoreinfo()
    assert info is not None
    path = tmp_path / "vmcoreinfo"
    path.write_bytes(info)
    options = ("--vmcoreinfo", str(path), *booted.live.options)
    found = zonedev(*options, "check", "--format", "json")
    assert found.status == 0, found.stderr
    assert [f["slug"] for f in found.document["findings"] if f["severity"] == "error"] == []
    # QEMU itself does not know it.
    without = zonedev(*booted.live.options, "check")
    assert without.status == 2
    assert "not a Linux kernel" in without.stderr
