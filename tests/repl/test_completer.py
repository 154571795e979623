# SPDX-License-Identifier: LGPL-2.1-or-later

"""Tab completion, in drgn's REPL itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.repl.completer import candidates
from drgn_zonedev.repl.repl import _parser

DUMP = Path(__file__).parents[2] / "vmcores" / "6.1-fsdax-collision"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%z", ["%zonedev"]),
        ("%zonedev", ["%zonedev"]),
        ("%zonedev pg", ["pgmaps"]),
        ("%zonedev  ex", ["export"]),
        ("%zonedev check --fo", ["--format"]),
        ("%zonedev check --format ju", ["junit"]),
        ("%zonedev check --format js", ["json", "jsonl"]),
        ("%zonedev check --format json --dr", ["--drgn"]),
        ("%zonedev pfn 0x1000 --as ph", ["phys"]),
        ("%zonedev check --fail-on case3", ["case3", "case3-partial"]),
        ("%zonedev walkers --walker hwp", ["hwpoison-inject"]),
        ("zonedev pg", ["pgmaps"]),
        ("%crash zonedev check --format ju", ["junit"]),
        ("%zonedev check -o f", []),
        ("%zonedev nosuch --f", []),
        ("%zonedev pfn 0x", []),
    ],
)
def test_last_word_becomes(line: str, found: list[str]) -> None:
    assert candidates(_parser(), line) == found


def test_all_commands_are_offered() -> None:
    assert {"check", "ranges", "sections", "pgmaps", "pfn"} <= set(
        candidates(_parser(), "%zonedev ")
    )


@pytest.fixture
def repl(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    drgn = shutil.which("drgn", path=str(Path(sys.executable).parent))
    assert drgn is not None
    with StoredDump(DUMP).files() as files:
        child = pexpect.spawn(
            drgn,
            ["-q", "-c", str(files / "vmcore"), "-s", str(files / "vmlinux")],
            env={**os.environ, "HOME": str(tmp_path), "TERM": "dumb"},
            encoding="utf-8",
            timeout=40,
            dimensions=(60, 200),
        )
        # The banner shows prompts, too.
        child.expect(r"linux import \*\r\n>>> ")
        yield child
        child.close(force=True)


def test_tab_completes_commands_and_python(repl: pexpect.spawn[str]) -> None:
    # It is the first line of the session.
    repl.send("%zon\t")
    repl.expect("%zonedev")
    repl.send(" pgm\t")
    repl.expect(" pgmaps")
    repl.send(" --form\t")
    repl.expect("--format")
    repl.sendline(" json")
    repl.expect('"schema": "drgn-zonedev/pgmaps/1"')
    repl.expect(">>> ")
    # Lines that are not ours are drgn's.
    repl.sendline("from drgn_zonedev import *")
    repl.expect(">>> ")
    repl.send("for_each_dev_pa\t")
    repl.expect("for_each_dev_pagemap")
    repl.sendcontrol("c")
    repl.expect(">>> ")


def test_results_are_objects_to_go_on_with(repl: pexpect.spawn[str]) -> None:
    for line, printed in (
        ("from drgn_zonedev import *", ""),
        ("report = check()", ""),
        ("report.findings", r"\(<Finding warning case5-reserved "),
        ("report.findings[0]", "warning: case5-reserved .*cure: "),
        ("report.findings[0].page.type_.type_name()", r"'struct page \*'"),
        ("explain(report.findings[0].page).verdict", "'Case 5: "),
        ("report", "0 errors, "),
        ("%zonedev pfn 0x24400 --drgn", r"explanation = explain\(0x24400\)"),
    ):
        repl.sendline(line)
        repl.expect(f"(?s){printed}.*>>> ")


def test_tab_completes_in_crash_mode(repl: pexpect.spawn[str]) -> None:
    repl.sendline("%crash")
    repl.expect("%crash> ")
    repl.send("zonedev pgm\t")
    repl.expect("zonedev pgmaps")
    repl.send(" --form\t")
    repl.expect("--format")


def test_crash_commands_have_it_too(repl: pexpect.spawn[str]) -> None:
    repl.sendline("%crash zonedev pgmaps | cat")
    repl.expect("FS_DAX")
    repl.expect(">>> ")
    repl.sendline("%crash help zonedev | cat")
    repl.expect("see zonedev COMMAND --help")
    repl.expect(">>> ")
