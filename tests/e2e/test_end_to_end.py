# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The foundation on real kernels: every scenario, live over QMP and from an ELF
dump, must give what arithmetic on the scenario says and what the kernel itself
reports.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drgn
import jsonschema
import pexpect
import pytest
from drgn.helpers.linux.mm import for_each_valid_page_range
from drgn.helpers.linux.mmzone import for_each_present_section
from support.guests import (
    MIB,
    PAGE,
    SECTION_PAGES,
    Booted,
    Result,
    Source,
    data_offset,
    each_guest,
    require_free,
    zonedev,
)
from support.schema import load_schema
from support.waiting import wait_until

from drgn_zonedev.kernel.mmzone import section_flags, sparsemem_geometry
from drgn_zonedev.kernel.sections import Sections, sections
from drgn_zonedev.lab import fetch_kernel
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.machine.qemu import running

pytestmark = pytest.mark.qemu

KERNELS = ("6.1", "7.3")

# memmap=192M!0x24000000
COLLISION_START = 0x24000000 // PAGE
COLLISION_END = COLLISION_START + 192 * MIB // PAGE
COLLISION_DATA = COLLISION_START + data_offset(192 * MIB // PAGE) // PAGE
# A 320 MiB NVDIMM, which QEMU puts at 4 GiB.
NVDIMM_START = 0x100000000 // PAGE
NVDIMM_END = NVDIMM_START + 320 * MIB // PAGE
NVDIMM_DATA = NVDIMM_START + data_offset(320 * MIB // PAGE) // PAGE
# ALIGN(8 KiB, PAGE_SIZE) of info block in front of the memmap.
RESERVE = 2

EXPECTED = {
    "fsdax-collision": [
        (COLLISION_START, COLLISION_START + RESERVE, "reserved"),
        (COLLISION_START + RESERVE, COLLISION_DATA, "metadata"),
        (COLLISION_DATA, COLLISION_END, "device"),
    ],
    "nvdimm-partial": [
        (NVDIMM_START, NVDIMM_START + RESERVE, "reserved"),
        (NVDIMM_START + RESERVE, NVDIMM_DATA, "metadata"),
        (NVDIMM_DATA, NVDIMM_END, "device"),
        (NVDIMM_END, -(-NVDIMM_END // SECTION_PAGES) * SECTION_PAGES, "partial"),
    ],
    "init-in-flight": [
        (COLLISION_START, COLLISION_START + RESERVE, "reserved"),
        (COLLISION_START + RESERVE, COLLISION_DATA, "metadata"),
        (COLLISION_DATA, COLLISION_END, "initializing"),
    ],
}


def test_scenarios_are_those_of_the_mail() -> None:
    # The numbers that a reader can check against the README and the notes.
    assert (COLLISION_START, COLLISION_DATA, COLLISION_END) == (0x24000, 0x24400, 0x30000)
    assert (NVDIMM_START, NVDIMM_DATA, NVDIMM_END) == (0x100000, 0x100600, 0x114000)


in_each_scene = each_guest((kernel, scenario) for kernel in KERNELS for scenario in EXPECTED)


def of_scenario(name: str) -> pytest.MarkDecorator:
    """Run a test in the scenes of one scenario only."""
    return each_guest((kernel, name) for kernel in KERNELS)


class Scene:
    """One kernel in one scenario, and what ``check`` says of it from every source."""

    def __init__(self, booted: Booted) -> None:
        require_free(booted.guest)
        self.kernel = booted.kernel.name
        self.scenario = booted.guest.scenario.name
        self.sources = {source.name: source for source in (booted.dumped, booted.live)}
        self.checks = {
            source.name: zonedev(*source.options, "check", "--format", "json")
            for source in self.sources.values()
        }
        self.program = booted.program

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, result in self.checks.items():
            yield name, result.document

    def run(self, source: str, *args: str) -> Result:
        return zonedev(*self.sources[source].options, *args)


@pytest.fixture(scope="session")
def scene(booted: Booted) -> Scene:
    return Scene(booted)


def _of_device(document: dict[str, Any], scenario: str) -> list[tuple[int, int, str]]:
    low, high = EXPECTED[scenario][0][0], EXPECTED[scenario][-1][1]
    return [
        (r["start_pfn"], r["end_pfn"], r["case"])
        for r in document["ranges"]
        if r["start_pfn"] < high and low < r["end_pfn"]
    ]


@in_each_scene
def test_ranges_are_what_arithmetic_says(scene: Scene) -> None:
    for source, document in scene.documents():
        assert _of_device(document, scene.scenario) == EXPECTED[scene.scenario], source


@in_each_scene
def test_a_healthy_kernel_has_no_error_findings(scene: Scene) -> None:
    for source, result in scene.checks.items():
        wrong = [f for f in result.document["findings"] if f["severity"] == "error"]
        # The kernel gave pages behind its RAM a zone that it does not have.
        assert {f["slug"] for f in wrong} <= {"ram-hole-zone"}
        assert result.status == bool(wrong), (source, result.stderr)


@in_each_scene
def test_cases_3_4_and_5_are_flagged(scene: Scene) -> None:
    flagged = {
        (case, start, end)
        for start, end, case in EXPECTED[scene.scenario]
        if case in ("reserved", "partial", "initializing")
    }
    for source, document in scene.documents():
        found = {
            (f["case"], f["start_pfn"], f["end_pfn"])
            for f in document["findings"]
            if f["severity"] == "warning"
        }
        assert flagged <= found, source


@in_each_scene
def test_every_struct_page_of_the_device_is_looked_at(scene: Scene) -> None:
    pages = sum(end - start for start, end, case in EXPECTED[scene.scenario] if case != "partial")
    for source, document in scene.documents():
        looked_at = {
            case: number["verified"] for case, number in document["coverage"]["by_case"].items()
        }
        ram = looked_at.pop("online") + looked_at.pop("offline", 0)
        assert ram, source
        assert sum(looked_at.values()) == pages, source
        assert document["coverage"]["pages_unreadable"] == 0
        # The free areas of a running kernel may change each time that they are compared.
        assert [u for u in document["unjudged"] if "free_area" not in u["reason"]] == []


@in_each_scene
def test_uncovered_part_of_a_section_is_said_to_be_unmapped(scene: Scene) -> None:
    partial = [e for e in EXPECTED[scene.scenario] if e[2] == "partial"]
    for source, document in scene.documents():
        found = [
            (r["start_pfn"], r["end_pfn"], r["case"])
            for r in document["ranges"]
            if r["memmap"] == "unmapped"
        ]
        assert found == partial, source


@of_scenario("init-in-flight")
def test_the_evidence_of_a_range_in_flight_is_its_pgmap_and_nr_range(scene: Scene) -> None:
    for source, document in scene.documents():
        (pgmap,) = document["pgmaps"]
        assert pgmap["in_progress"], source
        (in_flight,) = [r for r in document["ranges"] if r["case"] == "initializing"]
        assert in_flight["pgmap"] == pgmap["address"]
        (nr_range,) = [e for e in in_flight["evidence"] if e["what"] == "pgmap->nr_range"]
        assert nr_range["value"] == "0x0"


@in_each_scene
def test_live_and_dump_say_the_same(scene: Scene) -> None:
    # The reference count may move on a running kernel.
    def essence(document: dict[str, Any]) -> dict[str, Any]:
        document["kernel"]["live"] = None
        for pgmap in document["pgmaps"]:
            pgmap["ref"]["count"] = None
        return document

    documents = [essence(document) for _, document in scene.documents()]
    assert documents[0] == documents[1]


@in_each_scene
def test_every_document_conforms_to_the_schema(scene: Scene) -> None:
    validator = jsonschema.Draft202012Validator(load_schema())
    pfn = str(EXPECTED[scene.scenario][0][0])
    for command in (("check",), ("ranges",), ("sections",), ("pgmaps",), ("pfn", pfn)):
        result = scene.run("dump", *command, "--format", "json")
        assert result.status == ("ram-hole-zone" in str(result.document)), result.stderr
        validator.validate(result.document)


@in_each_scene
def test_bulk_sections_agree_with_drgn(scene: Scene) -> None:
    prog = scene.program()
    bulk = sections(prog)
    expected = [
        (nr, s.value_(), s.section_mem_map.value_()) for nr, s in for_each_present_section(prog)
    ]
    assert list(zip(bulk.nr.tolist(), bulk.address.tolist(), bulk.word.tolist())) == expected


@in_each_scene
def test_valid_ranges_agree_with_drgn(scene: Scene) -> None:
    prog = scene.program()
    expected = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    assert _valid_ranges(prog, sections(prog)) == expected


def _valid_ranges(prog: drgn.Program, bulk: Sections) -> list[tuple[int, int]]:
    """Merge the valid subsections of bulk sections, one by one."""
    geometry, flags = sparsemem_geometry(prog), section_flags(prog)
    ranges: list[tuple[int, int]] = []
    for nr, word, bitmap in zip(bulk.nr.tolist(), bulk.word.tolist(), bulk.subsection_map.tolist()):
        for i in range(geometry.subsections_per_section):
            populated = word & flags.early or bitmap[i // 64] >> i % 64 & 1
            if not (word & flags.has_mem_map and populated):
                continue
            start = nr * geometry.pages_per_section + i * geometry.pages_per_subsection
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
                end = nr * geometry.pages_per_section + (i + 1) * geometry.pages_per_subsection
            else:
                end = start + geometry.pages_per_subsection
            ranges.append((start, end))
    return ranges


@in_each_scene
def test_a_reserved_pfn_explains_itself(scene: Scene) -> None:
    start = EXPECTED[scene.scenario][0][0]
    nr = start // SECTION_PAGES
    prog = scene.program()
    text = scene.run("dump", "pfn", hex(start), "--all").stdout
    section = dict(for_each_present_section(prog))[nr]
    words = prog.read(prog["vmemmap"].value_() + start * 64, 64)
    for fact in (
        f"mem_section[{nr}].section_mem_map @ {section.section_mem_map.address_:#x} "
        f"= {section.section_mem_map.value_():#x}",
        f"bit {start % SECTION_PAGES // 512} of subsection_map is set",
        "pgmap->altmap.reserve",
        f"= {RESERVE:#x}",
        "pgmap_pfn_valid()",
        "never initialised",
    ):
        assert fact in text
    # What is not cut into fields: the two words of lru, mapping, and the counts.
    for at, size in ((0x08, 8), (0x10, 8), (0x18, 8), (0x30, 4), (0x34, 4)):
        value = int.from_bytes(words[at : at + size], "little")
        assert re.search(rf"^\+{at:02x} .* {value:#x}( |$)", text, re.MULTILINE), hex(at)


@in_each_scene
def test_fail_on_decides_the_exit_status(scene: Scene) -> None:
    for what, status in (("case5", 1), ("warning", 1), ("case5-reserved", 1), ("error", 0)):
        words = ("check", "--only", "devices", "--fail-on", what)
        assert scene.run("dump", *words).status == status, what


@in_each_scene
def test_output_goes_to_a_file(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    result = scene.run("dump", "check", "--format", "json", "-o", str(out))
    assert result.stdout == ""
    assert out.read_text() == scene.run("dump", "check", "--format", "json").stdout


@in_each_scene
def test_symbols_of_another_kernel_are_refused(scene: Scene) -> None:
    other = fetch_kernel(next(k for k in KERNELS if k != scene.kernel))
    core = scene.sources["dump"].options[1]
    result = zonedev("-c", core, "-s", str(other.vmlinux), "check")
    assert result.status == 3
    assert result.stderr.startswith("zonedev: error: ")
    assert "not the debugging symbols of this kernel, Linux" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@in_each_scene
def test_a_core_without_debugging_symbols_says_what_to_install(scene: Scene) -> None:
    result = zonedev("--types", "dwarf", "-c", scene.sources["dump"].options[1], "check")
    assert result.status == 3
    assert "no debugging symbols for Linux" in result.stderr
    assert "-dbg" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_guest_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    kernel, monitor = fetch_kernel(KERNELS[0]), tmp_path / "monitor.sock"
    # Of a guest that did not get as far as its first instruction, the same is left.
    command = [find_tool("qemu-system-x86_64"), "-S", "-nodefaults", "-display", "none"]
    with running([*command, "-qmp", f"unix:{monitor},server=on,wait=off"], tmp_path):
        wait_until(monitor.exists)
    result = zonedev("--qemu", str(monitor), "-s", str(kernel.vmlinux), "check")
    assert result.status == 2
    assert len(result.stderr.splitlines()) == 1
    assert "is QEMU running" in result.stderr


# --- The REPL, as people use it ---------------------------------------------------------


class Repl:
    """drgn in a terminal."""

    def __init__(self, source: Source) -> None:
        # The dumb terminal keeps readline from colouring and echoing escapes.
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "drgn", "-q", "--no-default-symbols", *source.options],
            encoding="utf-8",
            timeout=60,
            dimensions=(50, 250),
            env={**_environment(), "TERM": "dumb"},
        )
        # drgn's banner shows what it imported, as if that had been typed at a
        # prompt. The real prompt follows the answer to something that we typed.
        self._child.sendline("6 * 7 * 1000")
        self._child.expect_exact("\r\n42000\r\n")
        self._child.expect_exact(">>> ")

    def type(self, line: str) -> str:
        """Type a line; returns what it printed."""
        self._child.sendline(line)
        self._child.expect_exact(">>> ")
        return str(self._child.before).partition("\r\n")[2].replace("\r\n", "\n")

    def close(self) -> int:
        """Type Ctrl-D; returns the exit status."""
        self._child.sendeof()
        self._child.expect(pexpect.EOF)
        self._child.close()
        assert self._child.exitstatus is not None
        return self._child.exitstatus


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("DRGN_")}


@of_scenario("fsdax-collision")
def test_the_repl_pipes_redirects_and_survives_typos(scene: Scene, tmp_path: Path) -> None:
    repl = Repl(scene.sources["dump"])
    head = repl.type("%zonedev check | head -n 1")
    assert head.startswith("Linux ")
    assert head.count("\n") == 1
    out = tmp_path / "pgmaps"
    assert repl.type(f"%zonedev pgmaps > {out}") == ""
    assert "FS_DAX" in out.read_text()
    assert "unrecognized arguments: --bogus" in repl.type("%zonedev check --bogus")
    assert "there is no resource 'here'" in repl.type("%zonedev pfn here")
    assert "give a command: check, " in repl.type("%zonedev")
    assert repl.type("from drgn_zonedev import *") == ""
    assert repl.type(f"pfn_valid({COLLISION_START:#x})").strip() == "True"
    assert repl.type(f"bool(pfn_to_online_page({COLLISION_START:#x}))").strip() == "False"
    assert repl.type("len(list(for_each_dev_pagemap()))").strip() == "1"
    assert repl.type("[r.case.value for r in classify()][1:4]").strip() == (
        "['reserved', 'metadata', 'device']"
    )
    assert "drgn_zonedev" in repl.type("check.__module__")
    assert repl.close() == 0
