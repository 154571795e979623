# SPDX-License-Identifier: LGPL-2.1-or-later

"""What the summary of a check says of what was looked at, and what was not."""

from __future__ import annotations

from support.fakekernel import collision, partial

from drgn_zonedev.model import (
    Case,
    Coverage,
    KernelFacts,
    Memmap,
    MemoryKind,
    PageCounts,
    Range,
    Report,
    Scope,
)
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.render.looked_at import kinds_text, not_looked_at_text, scope_text
from drgn_zonedev.report import check

COVERAGE = Coverage(
    by_case={
        Case.ONLINE: PageCounts(verified=70, unreadable=10, not_exported=15),
        Case.DEVICE: PageCounts(verified=5),
        Case.GHOST: PageCounts(unreadable=3),
    }
)


def _report(scope: Scope) -> Report:
    ranges = (
        Range(0, 100, Case.ONLINE, Memmap.MAPPED, ""),
        Range(100, 105, Case.DEVICE, Memmap.MAPPED, "", 1),
        Range(105, 112, Case.OFFLINE, Memmap.MAPPED, ""),
        Range(112, 113, Case.UNKNOWN, Memmap.MAPPED, ""),
        Range(113, 150, Case.PARTIAL, Memmap.UNMAPPED, ""),
    )
    kernel = KernelFacts("6.1", "x86_64", False, 4096, 1 << 27, 1 << 21, 64, 0, 0, {})
    return Report(kernel, (), ranges, (), (), COVERAGE, scope=scope)


def test_kinds_are_counted_by_case() -> None:
    assert kinds_text(COVERAGE) == "70 RAM, 5 device (2)"


def test_whatever_was_left_out_is_counted_with_the_reason() -> None:
    assert not_looked_at_text(_report(Scope())).split(", ") == [
        "10 RAM (not readable)",
        "15 RAM (left out of the export)",
        "3 ghost (not readable)",
        "5 RAM (not verified)",
        "7 offline (1) (nothing is promised of them)",
        "1 unknown (undecided)",
    ]
    only = not_looked_at_text(_report(Scope(MemoryKind.RAM))).split(", ")
    assert only[-1] == "5 device (2) (not asked for)"


def test_restriction_is_said() -> None:
    assert scope_text(Scope()) == ""
    assert scope_text(Scope(MemoryKind.RAM)) == "only RAM"
    both = Scope(MemoryKind.DEVICES, 0x10, 0x20)
    assert scope_text(both) == "only memory of devices, only PFNs [0x10, 0x20)"


def test_summary_adds_up_to_what_has_struct_pages() -> None:
    for kernel in (collision("6.1"), partial("7.2")):
        report = check(kernel.program())
        mapped = sum(r.pages for r in report.ranges if r.memmap is not Memmap.UNMAPPED)
        texts = [kinds_text(report.coverage), not_looked_at_text(report)]
        words = ", ".join(filter(None, texts)).split(", ")
        assert sum(int(each.split()[0]) for each in words) == mapped
        assert f"looked at: {texts[0]}" in report_text(report)
