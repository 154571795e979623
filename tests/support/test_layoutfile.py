# SPDX-License-Identifier: LGPL-2.1-or-later

"""The files of layouts, and the layouts of kernels that were booted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drgn import offsetof, sizeof
from support.fakekernel import FakeKernel
from support.fakekernel.layouts import LAYOUT_FILES

from drgn_zonedev.export.store import unpacked
from drgn_zonedev.opening.core import open_dump
from scripts.kernel_layout import KERNELS, layout_of

DUMPS = Path(__file__).parents[2] / "vmcores"


@pytest.mark.parametrize("name", KERNELS)
def test_layout_of_a_booted_kernel_is_what_its_dump_says(name: str) -> None:
    path = LAYOUT_FILES[f"x86-64-{name}"]
    with unpacked(DUMPS / f"{name}-empty") as files:
        prog = open_dump(files / "vmcore", files / "vmlinux")
        found = layout_of(prog, path.stem)
    assert json.loads(path.read_text(encoding="utf-8")) == found


@pytest.mark.parametrize("name", LAYOUT_FILES)
def test_layout_of_the_machine_is_that_of_the_file(name: str) -> None:
    # Members of anonymous structures lie where the file says, however they are nested.
    prog = FakeKernel(name).program()
    text = json.loads(LAYOUT_FILES[name].read_text(encoding="utf-8"))
    for tag in ("dev_pagemap", "vmem_altmap", "page", "mem_section", "mem_section_usage"):
        given = text[f"struct {tag}"]
        type_ = prog.type(f"struct {tag}")
        assert sizeof(type_) == given["size"]
        for member, (offset, size, type_name) in given["members"].items():
            if offset % 8 == size % 8 == 0 and "<anonymous>" not in type_name:
                assert 8 * offsetof(type_, member) == offset, member
    for enumerator, value in text["enum zone_type"].items():
        assert prog.constant(enumerator) == value


def test_macros_that_no_file_has() -> None:
    found = {name: FakeKernel(name).macros.subsections_per_section for name in LAYOUT_FILES}
    for name, subsections in found.items():
        text = json.loads(LAYOUT_FILES[name].read_text(encoding="utf-8"))
        members = text["struct mem_section_usage"]["members"]
        # A bit of the bitmap is a subsection; on ppc64, a word has more bits than there are.
        bits = members["subsection_map"][1]
        assert subsections == (8 if name.startswith("ppc64") else bits), name
