# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import time

import pytest

from drgn_zonedev.oops_log.lines import LogLine, log_lines


def lines(*texts: str) -> list[LogLine]:
    return list(log_lines(enumerate(texts, 1)))


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[   12.345678] ",
        "[   12.345678][  T123] ",
        "[   12.345678][    C3] ",
        "<4>[   12.345678] ",
        "> ",
        ">> > [   12.345678] ",
        "| ",
        "Nov  3 07:15:01 host kernel: ",
        "Nov  3 07:15:01 host kernel: [   12.345678] ",
        "2026-11-03T07:15:01.123456+01:00 host kernel: ",
        "[2026-11-03T07:15:01.123Z] ",
        "2026-11-03 07:15:01 ",
        "[Tue Nov  3 07:15:01 2026] ",
        "kern  :warn  : [   12.345678] ",
        "\x1b[33m[   12.345678]\x1b[0m ",
    ],
)
def test_prefixes_are_taken_off(prefix: str) -> None:
    (line,) = lines(f"{prefix}RIP: 0010:f+0x1/0x2")
    assert line.text.lstrip(" ") == "RIP: 0010:f+0x1/0x2"


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("RAX: 0000000000000001 RBX: 0000000000000002 RCX:", "0000000000000003"),
        ("BUG: unable to handle page fault for address:", "ffffea0000000034"),
        ("general protection fault, probably for non-canonical", "address 0xfdfdfdfdfdfdfdfc: 0"),
        ("raw: 0000000000000001 0000000000000002", "0000000000000003 0000000000000004"),
        ("flags: 0x17ffffc0000000(locked|", "node=0|zone=2|lastcpupid=0x1fffff)"),
        ("page: refcount:1 mapcount:0 mapping:0000000000000000", "index:0x0 pfn:0x4711"),
        ("CPU: 1 PID: 2 Comm: cat Not tainted", "6.1.0 #1"),
        ("Krnl PSW : 0704c00180000000 000000009dcd6a3e", "(f+0x1/0x2)"),
    ],
)
def test_what_a_mailer_broke_is_joined(above: str, below: str) -> None:
    (line,) = lines(above, below)
    assert line.text == f"{above} {below}"
    assert line.number == 1
    assert line.number_at(0) == line.number_at(len(above) - 1) == 1
    assert line.number_at(len(above) + 1) == line.number_at(len(line.text) - 1) == 2


@pytest.mark.parametrize(
    "texts",
    [
        ("RAX: 0000000000000001", "RDX: 0000000000000002"),
        ("Modules linked in:", "CPU: 1 PID: 2 Comm: cat Not tainted 6.1.0 #1"),
        ("Call Trace:", " <TASK>"),
        ("raw: 0000000000000001", "raw: 0000000000000002"),
        ("[    1.000000] Call Trace:", "[    1.000001]  dead_code+0x1/0x2"),
    ],
)
def test_lines_of_the_kernel_stay_apart(texts: tuple[str, ...]) -> None:
    assert len(lines(*texts)) == len(texts)


def test_what_has_no_stamp_among_stamped_lines_was_broken_off() -> None:
    (line,) = lines("[    1.000000] RIP: 0010:a_function_with_a_long_name+0x27/0x3e0", "[nd_pmem]")
    assert line.text.endswith("[nd_pmem]")


def test_a_line_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        texts = ("[ ", "> ", "a", "kernel: ", "1234 ", "| ", "<1>", "page: ", "raw: 0")
        return min(sum(seconds_of(text * size, size) for text in texts) for _ in range(3))

    def seconds_of(text: str, size: int) -> float:
        start = time.perf_counter()
        lines(text, "0" * size)
        return time.perf_counter() - start

    # Quadratic would be a factor of 64.
    assert seconds(160_000) < 32 * max(seconds(20_000), 0.005)
