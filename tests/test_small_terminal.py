# SPDX-License-Identifier: LGPL-2.1-or-later

"""
On a terminal of 24 lines by 80 columns, every command shows its answer: folded to the screen, or
in a pager.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pexpect
import pytest

from drgn_zonedev.export.store import default_directory
from drgn_zonedev.pfn_walkers import WALKERS

LINES, COLUMNS = 24, 80


def on_terminal(dump: str, *words: str, **variables: str) -> list[str]:
    """Run a command on a terminal, and get the lines that it prints."""
    env = {k: v for k, v in os.environ.items() if k not in ("LINES", "COLUMNS", "LESS")}
    stored = default_directory()
    assert stored is not None
    core = str(stored / dump)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "drgn_zonedev", "-c", core, *words],
        env={**env, "NO_COLOR": "1", "TERM": "xterm", **variables},
        dimensions=(LINES, COLUMNS),
        encoding="utf-8",
        timeout=120,
    )
    child.expect(pexpect.EOF)
    lines = (child.before or "").rstrip().split("\r\n")
    child.close()
    return lines


def screen_of(dump: str, *words: str) -> list[str]:
    """Get what a command leaves on the screen without a pager."""
    lines = on_terminal(dump, *words, "--no-pager")
    # The prompt comes below.
    assert len(lines) < LINES
    assert max(map(len, lines)) <= COLUMNS
    return lines


def test_check_shows_every_finding_and_some_of_all_else() -> None:
    lines = screen_of("6.1-two-in-one", "check")
    text = "\n".join(lines)
    for finding in ("[0x20000, 0x20002)", "[0x100000, 0x100002)", "[0x102000, 0x102002)"):
        assert f"warning: case5-reserved {finding} 2 pages" in text
    assert "warning: case3-partial [0x106000, 0x108000) 8192 pages" in text
    assert "no kernel ever initialises these struct pages" in text
    ranges = lines[lines.index("RANGES") + 2 : lines.index("FINDINGS")]
    assert any("partial (3)" in line for line in ranges)
    assert any("reserved (5)" in line for line in ranges)
    counted = sum(int(n) for n in re.findall(r"^\.\.\. (\d+) more ranges: ", text, re.MULTILINE))
    assert counted + sum(line.startswith("[0x") for line in ranges) == 14
    assert lines[-1] == "0 errors, 4 warnings, 0 info"


def test_walkers_that_touch_something_come_first_with_what_they_touch() -> None:
    lines = screen_of("6.1-two-in-one", "walkers")
    header = next(i for i, line in enumerate(lines) if line.startswith("WALKER "))
    assert lines[header].split() == ["WALKER", "IN", "KERNEL", "TOUCHED", "USED", "WORST"]
    assert lines[header + 1].split() == ["hibernation-free", "yes", "512", "2", "stale"]
    absent = 11
    others = len(WALKERS) - absent - 1
    assert lines[header + 2] == f"... {others} more walkers: {others} - (--all shows them)"
    assert any(
        line.startswith(f"... {absent} more walkers that this kernel does not have")
        for line in lines
    )
    # It is older than three of them.
    counted = others + 1 - 3
    assert any(
        line.startswith(f"1 of {counted} walkers that this kernel has or may") for line in lines
    )


def test_pfn_shows_who_would_touch_it_and_what_the_kernel_would_say() -> None:
    lines = screen_of("6.1-init-in-flight", "pfn", "0x24400")
    text = re.sub(r"\s+", " ", "\n".join(lines))
    assert "pfn_valid() true" in text
    assert "pfn_to_online_page() NULL" in text
    walkers = lines[lines.index("WALKERS THAT WOULD TOUCH IT") + 1 :]
    assert walkers[0].split() == ["WALKER", "IN", "AND"]
    assert walkers[1].startswith("hibernation-free")
    assert text.endswith("It holds: a reserved page from boot, linked to itself.")


def test_proposal_says_how_often_each_is_wrong() -> None:
    lines = screen_of("6.1-two-in-one", "proposal")
    header = next(line for line in lines if line.startswith("VARIANT "))
    assert re.findall(r"FALSE \w+", header) == ["FALSE YES", "FALSE NO"]
    (late,) = (line.split() for line in lines if line.startswith("late-bit "))
    # 3 reserves of 2 pages, and 3 times 510 pages of metadata.
    assert late[2:4] == [str(3 * 512), "0"]


def test_map_has_every_range_whole() -> None:
    text = "\n".join(screen_of("6.1-two-in-one", "check", "--map"))
    assert text.count("[0x") == 8
    assert len(re.findall(r"\[0x[0-9a-f]+, 0x[0-9a-f]+\)", text)) == 8


@pytest.fixture
def pager(tmp_path: Path) -> str:
    """A pager that marks each line."""
    return "sed 's/^/P /'"


@pytest.mark.parametrize(
    "words",
    [("check",), ("sections",), ("pgmaps",), ("pfn", "0x20200"), ("walkers",)],
    ids=" ".join,
)
def test_a_pager_gets_everything_in_lines_that_fit(words: tuple[str, ...], pager: str) -> None:
    lines = on_terminal("6.1-two-in-one", *words, PAGER=pager)
    assert all(line.startswith("P ") for line in lines)
    assert max(map(len, lines)) <= COLUMNS + len("P ")
    left_out = [line for line in lines if "(--all shows them)" in line]
    assert {line for line in left_out if " more columns" not in line} <= {
        line for line in left_out if " more walkers" in line
    }


def test_every_range_is_in_the_pager(pager: str) -> None:
    lines = on_terminal("6.1-two-in-one", "check", PAGER=pager)
    start = lines.index("P RANGES")
    ranges = lines[start : lines.index("P FINDINGS")]
    assert sum(line.startswith("P [0x") for line in ranges) == 14


@pytest.mark.parametrize(
    "variables", [{"PAGER": ""}, {"PAGER": "cat"}, {"TERM": "dumb", "PAGER": "sed s/^/P/"}]
)
def test_without_a_pager_text_is_folded(variables: dict[str, str]) -> None:
    assert len(on_terminal("6.1-two-in-one", "check", **variables)) < LINES


def test_a_pager_that_cannot_run_loses_nothing() -> None:
    lines = on_terminal("6.1-two-in-one", "check", PAGER="no-such-pager-here")
    assert lines[-1] == "0 errors, 4 warnings, 0 info"


def test_all_is_as_wide_as_it_is(pager: str) -> None:
    lines = on_terminal("6.1-two-in-one", "pgmaps", "--all", PAGER=pager)
    assert lines[0].split()[1:3] == ["PGMAP", "TYPE"]
