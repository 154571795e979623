# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Dumps that makedumpfile filtered, at every level and in both formats: what the memory
is comes from metadata, and must not depend on what else was left out.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import drgn
import pytest
from elfheader import without_sections

from drgn_zonedev import report
from drgn_zonedev.lab import Scenario, boot, fetch_kernel
from drgn_zonedev.lab.scenarios.hardware import DEVICE_MEMORY, nvdimm
from drgn_zonedev.lab.scenarios.layout import MIB, Memory
from drgn_zonedev.lab.scenarios.steps import namespace
from drgn_zonedev.lab.ways import Format, makedumpfile, write_filtered
from drgn_zonedev.lab.ways.program import DebianProgram
from drgn_zonedev.render import as_json

pytestmark = pytest.mark.qemu

Document = dict[str, Any]

# As little memory as holds RAM, a device among it, and one that ends in mid-section.
SMALL = Scenario(
    name="small",
    summary="fsdax in boot RAM, and on an NVDIMM of 160 MiB",
    kernel_args=("memmap=32M!0xc000000",),
    devices=nvdimm(1, Memory(DEVICE_MEMORY, 160 * MIB)),
    modules=("nd_e820", "nfit", "nd_pmem"),
    steps=(namespace("fsdax", region=0), namespace("fsdax", region=1)),
    memory_mib=384,
)
LEVELS = range(1, 32)


@pytest.mark.parametrize("name", ["6.1", "7.3"])
def test_cases_are_the_same_at_every_level(name: str, tmp_path: Path) -> None:
    kernel = fetch_kernel(name)
    program = makedumpfile(kernel)
    whole = tmp_path / "whole"
    with boot(kernel, SMALL) as guest:
        guest.dump(whole)
    expected = check(kernel.vmlinux, whole)
    assert {r["case"] for r in expected["ranges"]} >= {"online", "device", "metadata", "reserved"}
    assert errors(expected) == set()
    without_sections(whole)
    kinds = (("lzo", "-l"), ("elf", "-E"))
    forms = [Format(kind, option, level) for kind, option in kinds for level in LEVELS]
    look = functools.partial(filtered, kernel.vmlinux, program, whole)
    # Forking a process that debugs something else is not safe.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        worse = dict(
            zip(map(str, forms), (differences(expected, d) for d in pool.map(look, forms)))
        )
    assert {form: what for form, what in worse.items() if what} == {}


def filtered(vmlinux: Path, program: DebianProgram, whole: Path, form: Format) -> Document:
    path = whole.with_name(str(form))
    write_filtered(program, whole, path, form)
    document = check(vmlinux, path)
    path.unlink()
    return document


def check(vmlinux: Path, path: Path) -> Document:
    prog = drgn.Program()
    prog.set_core_dump(path)
    prog.load_debug_info([vmlinux])
    return as_json.report_document(report.check(prog))


def errors(document: Document) -> set[tuple[str, int]]:
    return {(f["slug"], f["start_pfn"]) for f in document["findings"] if f["severity"] == "error"}


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
