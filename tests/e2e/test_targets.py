# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Every way in: the same guest, read from dumps that makedumpfile wrote, from a
real kdump, and by the guest itself. All must say the same, apart from what a
way cannot show; and that must be said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.guests import Booted, Result, each_guest, long_guest, zonedev

from drgn_zonedev.lab import SCENARIOS, fetch_kernel
from drgn_zonedev.lab.targets import (
    FORMATS,
    NOT_POSSIBLE,
    Format,
    boot_inside,
    makedumpfile,
    take_kdump,
    write_filtered,
)

pytestmark = pytest.mark.qemu

Document = dict[str, Any]

COLLISION = "fsdax-collision"
# 192 MiB at 0x24000000, of which the first section lies among boot RAM: only
# its struct pages are in RAM, those behind it are on the device itself.
ON_DEVICE = (0x28000, 0x30000)
DEVICE_PAGES = 0x30000 - 0x24000
# Those struct pages are 2 MiB, for which vmemmap_populate() takes one huge page out of
# the altmap: the first one behind the reserve of 8 KiB.
THEIR_MEMORY = {"start": "0x24200000", "end": "0x24400000"}


def formats(*names: str) -> tuple[Format, ...]:
    return tuple(form for form in FORMATS if str(form) in names)


# One kernel in everything, others where they differ.
FILTERED = {
    ("6.1", COLLISION): formats("zlib-1", "zlib-31", "lzo-1", "lzo-31", "elf-1", "elf-31"),
    ("6.1", "fsdax-mem"): formats("lzo-31", "elf-31"),
    ("6.1", "devdax-2m"): formats("zlib-31", "elf-31"),
    ("6.12", COLLISION): formats("zstd-31", "lzo-1", "elf-31"),
    ("7.3", COLLISION): formats("zstd-1", "zstd-23", "zstd-31", "elf-31"),
}


@dataclass(frozen=True)
class Core:
    path: Path
    vmlinux: Path

    def run(self) -> Result:
        symbols = ("-s", str(self.vmlinux))
        # Of RAM, each of these kernels has pages in no zone, and filters leave out struct pages.
        only = ("--only", "devices")
        return zonedev("-c", str(self.path), *symbols, "check", *only, "--format", "json")

    def check(self) -> Document:
        result = self.run()
        assert result.status == 0, result.stderr
        return result.document


def cases(document: Document) -> list[tuple[int, int, str]]:
    return [(r["start_pfn"], r["end_pfn"], r["case"]) for r in document["ranges"]]


def said(document: Document) -> Document:
    """What must be the same whichever way a kernel is read."""
    document = json.loads(json.dumps(document))
    document["kernel"]["live"] = None
    for pgmap in document["pgmaps"]:
        # It moves on a running kernel.
        pgmap["ref"]["count"] = None
    return {key: document[key] for key in ("kernel", "pgmaps", "ranges", "findings")}


def errors(document: Document) -> list[str]:
    return [f["slug"] for f in document["findings"] if f["severity"] == "error"]


def assert_device_memmap_is_unjudged(document: Document) -> None:
    assert [(u["start_pfn"], u["end_pfn"]) for u in document["unjudged"]] == [ON_DEVICE]
    assert document["unjudged"][0]["reason"].startswith("struct pages not readable: ")
    (missing,) = document["missing"]
    assert {key: missing[key] for key in ("start", "end")} == THEIR_MEMORY
    assert missing["holds"] == "struct pages of [0x28000, 0x30000)"
    assert "on the device itself (map=dev)" in missing["hint"]
    assert document["coverage"]["pages_unreadable"] == ON_DEVICE[1] - ON_DEVICE[0]
    assert document["coverage"]["pages_verified"] == DEVICE_PAGES - (ON_DEVICE[1] - ON_DEVICE[0])


@each_guest([("6.1", "init-in-flight")])
def test_what_an_elf_dump_leaves_out_is_unjudged(booted: Booted, tmp_path: Path) -> None:
    kernel = booted.kernel
    program = makedumpfile(kernel)
    expected = Core(booted.dump, kernel.vmlinux).check()
    found = {}
    for form in formats("lzo-31", "elf-31"):
        write_filtered(program, booted.for_makedumpfile, tmp_path / str(form), form)
        found[form.name] = Core(tmp_path / str(form), kernel.vmlinux).check()
    # kdump format holds what is zero, an ELF dump leaves it out like anything else.
    assert said(found["lzo"]) == said(expected)
    assert found["lzo"]["unjudged"] == expected["unjudged"] == []
    assert cases(found["elf"]) == cases(expected)
    assert errors(found["elf"]) == []
    assert_device_memmap_is_unjudged(found["elf"])
    assert "left out of the dump" in found["elf"]["unjudged"][0]["reason"]


same_steps = "6.1 and 7.3 with fsdax-collision are in every run"
ALWAYS_FILTERED = [
    guest if guest in (("6.1", COLLISION), ("7.3", COLLISION)) else long_guest(*guest, same_steps)
    for guest in FILTERED
]


@each_guest(ALWAYS_FILTERED)
def test_makedumpfile(booted: Booted, tmp_path: Path) -> None:
    kernel = booted.kernel
    program = makedumpfile(kernel)
    expected = Core(booted.dump, kernel.vmlinux).check()
    assert errors(expected) == []
    for form in FILTERED[kernel.name, booted.guest.scenario.name]:
        core = Core(tmp_path / "filtered", kernel.vmlinux)
        write_filtered(program, booted.for_makedumpfile, core.path, form)
        if (kernel.name, str(form)) in NOT_POSSIBLE:
            _assert_no_false_errors(core)
        else:
            _compare_filtered(core, expected, form)
        core.path.unlink()


def _assert_no_false_errors(core: Core) -> None:
    # Whatever happens to be missing: what cannot be judged is no error of the kernel's.
    result = core.run()
    assert result.status in (0, 3), result.stderr
    assert errors(result.document) == []
    # And it says what would be needed.
    assert result.document["missing"] or not result.document["unjudged"]


def _compare_filtered(core: Core, expected: Document, form: Format) -> None:
    found = core.check()
    assert said(found) == said(expected), str(form)
    # QEMU dumps the device, too, and no filter takes struct pages for free memory.
    assert found["unjudged"] == expected["unjudged"] == [], str(form)
    assert found["coverage"] == expected["coverage"], str(form)
    assert found["missing"] == []


def test_real_kdump() -> None:
    kernel = fetch_kernel("6.1")
    with take_kdump(kernel, SCENARIOS[COLLISION]) as dumps:
        expected = Core(dumps.whole, kernel.vmlinux).check()
        found = Core(dumps.vmcore, kernel.vmlinux).check()
    assert said(found) == said(expected)
    assert errors(found) == []
    assert {range_[2] for range_ in cases(found)} == {"online", "reserved", "metadata", "device"}
    # A kdump holds System RAM, and nothing of a device.
    assert_device_memmap_is_unjudged(found)
    assert expected["unjudged"] == expected["missing"] == []


@pytest.mark.parametrize(
    "name", [pytest.param("6.1", marks=pytest.mark.long("7.3 is in every run")), "7.3"]
)
def test_inside_the_guest(name: str) -> None:
    kernel = fetch_kernel(name)
    with boot_inside(kernel, SCENARIOS[COLLISION]) as guest:
        outside = zonedev(
            *("--qemu", guest.qmp_socket, "-s", str(kernel.vmlinux)), "check", "--format", "json"
        )
        facts = guest.facts
    # The kernel gave pages behind its RAM a zone that it does not have.
    assert (facts["inside_status"].strip(), facts["inside_errors"]) == ("1", "")
    found, expected = json.loads(facts["inside"]), outside.document
    assert said(found) == said(expected)
    assert errors(found) == ["ram-hole-zone"]
    # /proc/kcore, too, shows System RAM only.
    # The free areas of a running kernel may change each time that they are compared.
    lasting = [u for u in found["unjudged"] if "free_area" not in u["reason"]]
    assert [(u["start_pfn"], u["end_pfn"]) for u in lasting] == [ON_DEVICE]
    assert found["coverage"]["by_case"]["online"]["unreadable"] == 0
    assert found["coverage"]["pages_unreadable"] == ON_DEVICE[1] - ON_DEVICE[0]
    assert [u for u in expected["unjudged"] if "free_area" not in u["reason"]] == []
