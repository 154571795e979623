# SPDX-License-Identifier: LGPL-2.1-or-later

"""An export says which struct pages it was made with, whenever it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drgn import Program
from support.fakekernel import FakeKernel

from drgn_zonedev.vmcore import exported
from drgn_zonedev.vmcore.exported import exported_ram, leaves_out_ram, with_memmap_line


def program(vmcoreinfo: bytes = b"") -> Program:
    prog = FakeKernel("6.1").program()
    info = prog["VMCOREINFO"].string_() + vmcoreinfo
    other = Program(prog.platform, vmcoreinfo=info)
    other.set_linux_kernel_custom(info, False)
    return other


def meta(directory: Path, **changes: object) -> None:
    document = {
        "schema": "drgn-zonedev/export/1",
        "kernel": {"release": "6.1.0"},
        "options": {"all_memmap": False, "margin": 512},
        **changes,
    }
    (directory / "meta.json").write_text(json.dumps(document, indent=2))


@pytest.mark.parametrize("all_memmap", [True, False])
def test_line_says_whether_ram_was_left_out(all_memmap: bool) -> None:
    line = with_memmap_line(b"", all_memmap=all_memmap)
    assert leaves_out_ram(program(line)) is not all_memmap


def test_line_names_the_pfns_of_ram_that_an_export_has() -> None:
    line = with_memmap_line(b"", all_memmap=False, pfns=[(0x40, 0x50), (0x10, 0x20), (0x20, 0x28)])
    assert line == b"DRGN_ZONEDEV_MEMMAP=devices,0x10-0x28,0x40-0x50\n"
    assert leaves_out_ram(program(line))
    assert exported_ram(program(line)) == ((0x10, 0x28), (0x40, 0x50))
    assert exported_ram(program(with_memmap_line(b"", all_memmap=False))) == ()
    whole = with_memmap_line(b"", all_memmap=True, pfns=[(0x40, 0x50)])
    assert whole == b"DRGN_ZONEDEV_MEMMAP=all\n"
    assert exported_ram(program(whole)) is exported_ram(program()) is None


@pytest.mark.parametrize("spans", [b",0x10", b",0x10-0x", b",16-32", b",0x10-0x20,", b";0x1-0x2"])
def test_line_that_is_damaged_is_none(spans: bytes) -> None:
    assert not leaves_out_ram(program(b"DRGN_ZONEDEV_MEMMAP=devices" + spans + b"\n"))


def test_export_of_an_export_has_no_more_than_that() -> None:
    line = with_memmap_line(b"", all_memmap=False)
    assert with_memmap_line(line, all_memmap=True) == line


def test_other_programs_leave_nothing_out() -> None:
    assert not leaves_out_ram(program())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"options": {"all_memmap": True}}, False),
        ({"schema": "another/export/1"}, False),
        ({"options": {}}, False),
    ],
)
def test_export_without_the_line_has_a_file_beside_it(
    tmp_path: Path,
    changes: dict[str, object],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meta(tmp_path, **changes)
    monkeypatch.setattr(exported, "core_dump_path", lambda prog: str(tmp_path / "vmcore"))
    assert leaves_out_ram(program()) is expected
