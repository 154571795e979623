# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Dumps that makedumpfile filtered, at every level and in both formats: what the memory
is comes from metadata, and must not depend on what else was left out.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drgn import FaultError, Program, sizeof
from support.elfheader import without_sections
from support.guests import COMMAND_SECONDS, boot_alone

from drgn_zonedev import report
from drgn_zonedev.kernel.memmap import UnreadablePages, read_pages
from drgn_zonedev.lab import Kernel, Scenario, fetch_kernel
from drgn_zonedev.lab.scenarios.arithmetic import MIB, MemoryArea
from drgn_zonedev.lab.scenarios.hardware import DEVICE_MEMORY, nvdimm
from drgn_zonedev.lab.scenarios.steps import namespace
from drgn_zonedev.lab.targets import Format, makedumpfile, write_filtered
from drgn_zonedev.lab.targets.program import DebianProgram
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.render import as_json
from drgn_zonedev.shell.cli import main
from drgn_zonedev.vmcore.elf import read_elf_dump

pytestmark = pytest.mark.qemu

Document = dict[str, Any]

# As little memory as holds RAM, a device among it, and one that ends in mid-section.
SMALL = Scenario(
    name="small",
    summary="fsdax in boot RAM, and on an NVDIMM of 160 MiB",
    kernel_args=("memmap=32M!0xc000000",),
    devices=nvdimm(1, MemoryArea(DEVICE_MEMORY, 160 * MIB)),
    modules=("nd_e820", "nfit", "nd_pmem"),
    steps=(namespace("fsdax", region=0), namespace("fsdax", region=1)),
    memory_mib=384,
)
# Each of what makedumpfile can leave out alone, and all of it.
SINGLE_LEVELS = (1, 2, 4, 8, 16, 31)
COMBINED_LEVELS = tuple(level for level in range(1, 31) if level not in SINGLE_LEVELS)
combined = pytest.mark.long("50 dumps a kernel; what they leave out, 12 others do one by one")


Taken = tuple[Kernel, DebianProgram, Path, Document]


@pytest.fixture(scope="module", params=["6.1", "7.3"])
def taken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """A kernel, its makedumpfile, a dump of it, and what there is to say of that."""
    kernel = fetch_kernel(request.param)
    whole = tmp_path_factory.mktemp(request.param) / "whole"
    with boot_alone(kernel, SMALL) as guest:
        guest.dump(whole)
    expected = check(kernel.vmlinux, whole)
    assert {r["case"] for r in expected["ranges"]} >= {"online", "device", "metadata", "reserved"}
    assert errors(expected) == set()
    without_sections(whole)
    return kernel, makedumpfile(kernel), whole, expected


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param(SINGLE_LEVELS, id="single"),
        pytest.param(COMBINED_LEVELS, id="combined", marks=combined),
    ],
)
def test_cases_are_the_same_at_every_level(taken: Taken, levels: tuple[int, ...]) -> None:
    kernel, program, whole, expected = taken
    kinds = (("lzo", "-l"), ("elf", "-E"))
    forms = [Format(kind, option, level) for kind, option in kinds for level in levels]
    look = functools.partial(filtered, kernel.vmlinux, program, whole)
    # Forking a process that debugs something else is not safe.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        worse = dict(
            zip(map(str, forms), (differences(expected, d) for d in pool.map(look, forms)))
        )
    assert {form: what for form, what in worse.items() if what} == {}


@pytest.mark.parametrize("taken", ["6.1"], indirect=True)
def test_flattened_split_and_incomplete_dumps_accuse_nobody(taken: Taken) -> None:
    kernel, program, whole, expected = taken
    run = functools.partial(
        subprocess.run, check=True, stderr=subprocess.PIPE, timeout=COMMAND_SECONDS
    )
    at = {n: whole.with_name(n) for n in ("kdump", "elf", "flat-kdump", "flat-elf", "1", "2", "-R")}
    for kind, option in (("kdump", "-l"), ("elf", "-E")):
        write_filtered(program, whole, at[kind], Format(kind, option, 31))
        with at[f"flat-{kind}"].open("wb") as file:
            run(program.command("-F", option, "-d", "31", str(whole)), stdout=file)
    for words in (
        ("--split", "-l", "-d", "31", str(whole), str(at["1"]), str(at["2"])),
        ("--reassemble", str(at["1"]), str(at["2"]), str(at["-R"])),
    ):
        run(program.command(*words), stdout=subprocess.PIPE)
    # In the flattened form, too, what was left out is told from zeros.
    frames = np.arange(SMALL.memory_mib * MIB // 4096)
    plain, flat = read_elf_dump(at["elf"]), read_elf_dump(at["flat-elf"])
    assert plain
    assert flat
    assert plain.reads_zeros
    assert flat.reads_zeros
    assert (plain.absent_frames(frames, 4096) == flat.absent_frames(frames, 4096)).all()
    good = [at[n] for n in ("flat-kdump", "flat-elf", "-R")]
    cut = [cut_off(at[n], percent) for n in ("kdump", "elf") for percent in (1, 50, 90, 99)]
    cut += [cut_off(at[n], 99) for n in ("flat-kdump", "flat-elf")]
    paths = [*good, at["1"], at["2"], *cut]
    look = functools.partial(by_command, kernel.vmlinux)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        found = dict(zip(paths, pool.map(look, paths)))
    for path in good:
        status, document, _ = found[path]
        assert (status, document and differences(expected, document)) == (1, []), path.name
    for path in (at["1"], at["2"], *cut):
        status, document, complaint = found[path]
        if document is None:
            # libkdumpfile opens no flattened dump that lacks its end.
            assert status == (2 if path.name.startswith("flat") else 3), path.name
            assert complaint.startswith("zonedev: error: ")
            assert complaint.count("\n") == 1
        else:
            assert errors(document) == set(), path.name
            assert unknown_or_same(expected, document) == [], path.name
            assert status == 3 or document["coverage"]["pages_verified"], path.name


# makedumpfile gives -e up if some of vmemmap is not mapped by huge pages, as for a device that
# ends in mid-section.
HUGE = Scenario(
    name="huge",
    summary="fsdax on an NVDIMM of two whole sections, its memmap in RAM",
    devices=nvdimm(1, MemoryArea(DEVICE_MEMORY, 256 * MIB)),
    modules=("nfit", "nd_pmem"),
    steps=(namespace("fsdax", "mem"),),
    memory_mib=384,
)


@dataclass(frozen=True)
class WithoutVmemmap:
    """A whole dump, and one without so many pages of vmemmap."""

    whole: Path
    small: Path
    excluded: int


def without_unused_vmemmap(kernel: Kernel, directory: Path) -> WithoutVmemmap:
    """Boot a guest, and have makedumpfile exclude vmemmap."""
    directory.mkdir()
    whole, small = directory / "whole", directory / "small"
    with boot_alone(kernel, HUGE) as guest:
        guest.dump(whole)
    without_sections(whole)
    words = ("-l", "-d", "31", "-e", "--work-dir", str(directory), "-x", str(kernel.vmlinux))
    command = makedumpfile(kernel).command(*words, str(whole), str(small))
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    excluded = re.search(r"Excluded (\d+) unused vmemmap pages", said.stdout + said.stderr)
    assert excluded
    return WithoutVmemmap(whole, small, int(excluded[1]))


def has_all(prog: Program, address: int, size: int) -> bool:
    try:
        prog.read(address, size)
    except FaultError:
        return False
    return True


def test_vmemmap_of_excluded_ram_is_missing_and_that_of_the_device_is_not(tmp_path: Path) -> None:
    kernel = fetch_kernel("6.1")
    ram_pages = HUGE.memory_mib * MIB // 4096
    for attempt in range(3):
        dumps = without_unused_vmemmap(kernel, tmp_path / str(attempt))
        prog = open_dump(dumps.small, kernel.vmlinux)
        struct_page = sizeof(prog.type("struct page"))
        # makedumpfile 1.7.2 counted pages, and kept all of them, of one guest among four.
        if not has_all(prog, prog["vmemmap"].value_(), ram_pages * struct_page):
            break
    expected = check(kernel.vmlinux, dumps.whole)
    gaps = [p for p in read_pages(prog, 0, ram_pages) if isinstance(p, UnreadablePages)]
    absent = sum(gap.end_pfn - gap.start_pfn for gap in gaps)
    assert absent == dumps.excluded * 4096 // struct_page > 0
    found = as_json.report_document(report.check(prog))
    for part in ("ranges", "findings"):
        assert found[part] == expected[part], part
    pages = found["coverage"]["by_case"]
    assert pages["device"] == expected["coverage"]["by_case"]["device"]
    assert pages["online"]["unreadable"] == absent


def cut_off(dump: Path, percent: int) -> Path:
    path = dump.with_name(f"{dump.name}-{percent}")
    with dump.open("rb") as file:
        path.write_bytes(file.read(dump.stat().st_size * percent // 100))
    return path


def by_command(vmlinux: Path, path: Path) -> tuple[int, Document | None, str]:
    """Run ``zonedev check`` on a dump."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["-c", str(path), "-s", str(vmlinux), "check", "--format", "json"])
    return status, json.loads(out.getvalue()) if out.getvalue() else None, err.getvalue()


def unknown_or_same(expected: Document, found: Document) -> list[str]:
    return [
        f"{f['start_pfn']:#x} is {e['case']}, not {f['case']}"
        for e in expected["ranges"]
        for f in found["ranges"]
        if e["start_pfn"] < f["end_pfn"] and f["start_pfn"] < e["end_pfn"]
        if f["case"] not in ("unknown", e["case"])
    ]


def filtered(vmlinux: Path, program: DebianProgram, whole: Path, form: Format) -> Document:
    path = whole.with_name(str(form))
    write_filtered(program, whole, path, form)
    document = check(vmlinux, path)
    path.unlink()
    return document


def check(vmlinux: Path, path: Path) -> Document:
    return as_json.report_document(report.check(open_dump(path, vmlinux)))


def errors(document: Document) -> set[tuple[str, int]]:
    # Of RAM, each of these kernels has pages in a zone that it does not have.
    found = {(f["slug"], f["start_pfn"]) for f in document["findings"] if f["severity"] == "error"}
    return {each for each in found if each[0] != "ram-hole-zone"}


def differences(expected: dict[str, Any], found: Document) -> list[str]:
    """What a filtered dump says otherwise, and has no excuse for."""
    wrong = [f"accuses {each}" for each in sorted(errors(found) - errors(expected))]
    truth = {pfn: r for r in expected["ranges"] for pfn in (r["start_pfn"], r["end_pfn"] - 1)}
    for pfn, range_ in truth.items():
        at = [r for r in found["ranges"] if r["start_pfn"] <= pfn < r["end_pfn"]]
        case = at[0]["case"] if at else None
        if case == range_["case"]:
            continue
        # What the filter took away of the kernel's own memory is told, and what it was for.
        if case != "unknown" or not excused(found, pfn):
            wrong.append(f"{pfn:#x} is {range_['case']}, not {case}")
    return wrong


def excused(found: Document, pfn: int) -> bool:
    reasons = [u for u in found["unjudged"] if u["start_pfn"] <= pfn < u["end_pfn"]]
    return any(u["address"] for u in reasons) and bool(found["missing"])
