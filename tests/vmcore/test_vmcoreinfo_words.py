# SPDX-License-Identifier: LGPL-2.1-or-later

"""What VMCOREINFO says of a kernel and its crash."""

from __future__ import annotations

import pytest

from drgn_zonedev.vmcore.vmcoreinfo_words import UNNAMED, DumpedKernel, parse_vmcoreinfo


def test_vmcoreinfo_names_build_and_crash() -> None:
    note = b"OSRELEASE=6.9\nBUILD-ID=00ff\nPAGESIZE=4096\nCRASHTIME=1700000000\n"
    assert parse_vmcoreinfo(note) == DumpedKernel("6.9", "00ff", 1700000000)


def test_a_machine_without_a_clock_crashes_at_zero() -> None:
    assert parse_vmcoreinfo(b"CRASHTIME=0\n") == DumpedKernel(crash_time=0)
    assert parse_vmcoreinfo(b"OSRELEASE=\n") == UNNAMED


def test_build_ids_compare_as_text() -> None:
    assert parse_vmcoreinfo(b"BUILD-ID=00FF\n") == parse_vmcoreinfo(b"BUILD-ID=00ff\n")


@pytest.mark.parametrize("line", [b"CRASHTIME=-1", b"CRASHTIME=1e3", b"CRASHTIME=" + b"9" * 13])
def test_what_is_no_time_is_none(line: bytes) -> None:
    assert parse_vmcoreinfo(line + b"\n").crash_time is None


def test_release_cannot_deceive_a_terminal() -> None:
    kernel = parse_vmcoreinfo(b"OSRELEASE=\x1b[2J\xff" + b"x" * 5000 + b"\nBUILD-ID=../x\n")
    assert kernel.release.startswith(r"\x1b[2J\xff")
    assert len(kernel.release) < 1200
    assert kernel.build_id == ""
