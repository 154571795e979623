# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.identity import LogKernel, boots, kernel_of_lines
from drgn_zonedev.oops_log.lines import LogLine


def lines(*texts: str) -> list[LogLine]:
    return [LogLine(text, ((0, number),)) for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("Linux version 6.1.0-13-amd64 (debian-kernel@lists)", LogKernel("6.1.0-13-amd64")),
        (
            "CPU: 2 PID: 71 Comm: cat Not tainted 6.1.0-13-amd64 #1  Debian 6.1.55-1",
            LogKernel("6.1.0-13-amd64"),
        ),
        (
            "CPU: 2 UID: 0 PID: 71 Comm: a b Tainted: G        W  OE      6.12.9+deb13-amd64 #1",
            LogKernel("6.12.9+deb13-amd64"),
        ),
        (
            f"CPU: 2 PID: 71 Comm: cat Not tainted 5.16.0-rc1 #1 {'3b' * 20}",
            LogKernel("5.16.0-rc1", build_id="3b" * 20),
        ),
        (
            "REGS: c000000012f37740 TRAP: 0300   Not tainted  (5.14.0-70.el9.ppc64le)",
            LogKernel("5.14.0-70.el9.ppc64le"),
        ),
        (
            "Kernel Offset: 0x1e000000 from 0xffffffff81000000 (relocation range: 0x0-0x1)",
            LogKernel(kaslr_offset=0x1E000000),
        ),
        ("Kernel Offset: disabled", LogKernel(kaslr_offset=0, kaslr_disabled=True)),
        ("Kernel command line: quiet nokaslr ro", LogKernel(kaslr_disabled=True)),
        ("please try again with nokaslr", LogKernel()),
        ("Oops: 0000 [#1] PREEMPT SMP KASAN NOPTI", LogKernel(kasan=True)),
        ("BUG: KASAN: use-after-free in f+0x1/0x2", LogKernel(kasan=True)),
        ("a KASAN build would tell more", LogKernel()),
        (
            "swapper pgtable: 64k pages, 48-bit VAs, pgdp=0000000042be5000",
            LogKernel(page_size=65536, va_bits=48),
        ),
        ("LE PAGE_SIZE=64K MMU=Radix SMP NR_CPUS=2048", LogKernel(page_size=65536)),
        ("PHYS_OFFSET: 0x40000000", LogKernel(phys_offset=0x40000000)),
        ("  node   0: [mem 0x0000000040000000-0x5effffff]", LogKernel(ram_start=0x40000000)),
    ],
)
def test_what_lines_say_of_a_kernel(text: str, kernel: LogKernel) -> None:
    assert kernel_of_lines(lines(text)) == kernel


def test_the_first_that_says_something_counts() -> None:
    found = kernel_of_lines(lines("PHYS_OFFSET: 0x40000000", "PHYS_OFFSET: 0x80000000"))
    assert found.phys_offset == 0x40000000


CPU = "CPU: 2 PID: 71 Comm: cat Not tainted {} #1"


def test_boots_begin_with_a_banner() -> None:
    texts = ("a", "Linux version 6.1 (x)", "b", "Linux version 6.1 (x)", "c")
    parts = [[line.text for line in part] for part in boots(lines(*texts))]
    assert parts == [["a"], ["Linux version 6.1 (x)", "b"], ["Linux version 6.1 (x)", "c"]]


def test_another_release_is_another_boot_from_its_oops_on() -> None:
    texts = ("BUG: a", CPU.format("6.1.0"), "x", "BUG: b", "y", CPU.format("6.2.0"), "z")
    parts = [[line.text for line in part] for part in boots(lines(*texts))]
    assert parts == [list(texts[:3]), list(texts[3:])]
    assert boots([]) == [[]]
