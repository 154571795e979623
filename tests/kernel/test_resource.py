# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tree of I/O memory, and what is done about a damaged one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from drgn import Object, Program, TypeMember
from fakekernel import FakeKernel

from drgn_zonedev.kernel import resource as module
from drgn_zonedev.kernel.resource import Resource, iomem_resources


def test_kernel_without_the_tree() -> None:
    kernel = FakeKernel()
    kernel.section(0)
    assert iomem_resources(kernel.program()) is None


def entry(prog: Program, start: int, end: int, flags: int) -> Object:
    words = [("start", 0), ("end", 8), ("flags", 16), ("name", 24)]
    members = [TypeMember(prog.type("unsigned long"), name, 8 * at) for name, at in words]
    type_ = prog.struct_type("resource", 32, members)
    value = {"start": start, "end": end, "flags": flags, "name": 0}
    buffer = b"".join(value[name].to_bytes(8, "little") for name, _ in words)
    address = 0x1000 + start
    prog.add_memory_segment(
        address, 32, lambda a, count, offset, p: buffer[offset : offset + count]
    )
    return Object(prog, prog.pointer_type(type_), address)


@pytest.mark.parametrize(
    ("flags", "is_ram"), [(0x200, False), (0x1000000, False), (0x81000200, True)]
)
def test_resources_are_half_open(flags: int, is_ram: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel()
    kernel.section(0)
    kernel.add_variable("iomem_resource", "unsigned long")
    prog = kernel.program()
    found = entry(prog, 0x100000, 0x1FFFFF, flags)
    monkeypatch.setattr(module, "for_each_resource", lambda root: iter([root, found]))
    expected = Resource(0x100000, 0x200000, "", 0x101000, is_ram)
    assert iomem_resources(prog) == (expected,)


def test_an_endless_tree_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel()
    kernel.section(0)
    kernel.add_variable("iomem_resource", "unsigned long")
    prog = kernel.program()

    def endless(root: Object) -> Iterator[Object]:
        while True:
            yield root

    monkeypatch.setattr(module, "for_each_resource", endless)
    assert iomem_resources(prog) == ()
