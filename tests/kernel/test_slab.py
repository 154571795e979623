# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Objects in slabs of kernels that once ran, and of the same kernels with garbage in what
leads to free objects.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from drgn import FaultError, Object, Program
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.slab import find_containing_slab_cache, slab_object_info
from support.fakekernel import collision

from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.kernel import slab
from drgn_zonedev.kernel.slab import SlabObject, slab_object
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.report import check

_END = (1 << 64) - 1
_KERNEL_HALF = 1 << 63

# Before sheaves, and with them.
KERNELS = ("5.10-ghost", "6.12-ghost", "7.3-ghost")


class Damaged:
    """A stored dump, some of whose words are others, and some 4 GiB of zeros."""

    ZEROS = 0xFFFFA00000000000

    def __init__(self, directory: Path, name: str) -> None:
        dumps = default_directory()
        assert dumps is not None
        unpack(dumps / name / ARCHIVE, directory)
        self.source = open_dump(directory / "vmcore", directory / "vmlinux")
        self.directory = directory
        self.words: dict[int, bytes] = {}

    def read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        if self.ZEROS <= address < self.ZEROS + (1 << 36):
            data = bytearray(count)
        else:
            data = bytearray(self.source.read(address, count, physical))
        for at, word in self.words.items():
            for i, byte in enumerate(word):
                if not physical and address <= at + i < address + count:
                    data[at + i - address] = byte
        return bytes(data)

    def program(self) -> Program:
        prog = Program(self.source.platform)
        prog.set_linux_kernel_custom(self.source["VMCOREINFO"].string_(), False)
        prog.add_memory_segment(0, _END, self.read, physical=True)
        prog.add_memory_segment(_KERNEL_HALF, _END - _KERNEL_HALF, self.read)
        prog.load_debug_info([self.directory / "vmlinux"])
        return prog

    def poke(self, member: Object, value: int) -> None:
        assert member.address_ is not None
        size = member.type_.size or 8
        self.words[member.address_] = value.to_bytes(size, "little")


def pgmap_that_is_gone(prog: Program) -> int:
    facts = (e for finding in check(prog).findings for e in finding.evidence)
    value = next(fact.value for fact in facts if fact.what == "dangling pgmap")
    assert value is not None
    return value


@pytest.fixture(params=KERNELS)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    return Damaged(tmp_path, request.param)


def test_object_is_that_of_drgn(damaged: Damaged) -> None:
    prog = damaged.source
    address = pgmap_that_is_gone(prog)
    theirs = slab_object_info(prog, address)
    assert theirs is not None
    expected = SlabObject("kmalloc-512", theirs.address, theirs.allocated)
    assert slab_object(prog, address) == expected
    assert theirs.allocated is not None


def test_what_is_no_slab_is_none(damaged: Damaged) -> None:
    prog = damaged.source
    assert slab_object(prog, prog["mem_section"].address_of_().value_()) is None


@pytest.mark.parametrize("count", ["nr_cpu_ids", "nr_node_ids"])
def test_absurd_counts(damaged: Damaged, count: str) -> None:
    address = pgmap_that_is_gone(damaged.source)
    damaged.poke(damaged.source[count], (1 << 31) - 1)
    assert slab_object(damaged.program(), address) == SlabObject("kmalloc-512", None, None)


@pytest.mark.parametrize("size", [0, 1 << 31])
def test_absurd_size_of_objects(damaged: Damaged, size: int) -> None:
    address = pgmap_that_is_gone(damaged.source)
    cache = find_containing_slab_cache(damaged.source, address)
    damaged.poke(cache.size, size)
    found = slab_object(damaged.program(), address)
    assert found is not None
    assert found.cache == "kmalloc-512"
    if not size:
        assert (found.address, found.allocated) == (None, None)


def test_absurd_sheaf(tmp_path: Path) -> None:
    # Four billion free objects, all of which can be read.
    damaged = Damaged(tmp_path, "7.3-ghost")
    address = pgmap_that_is_gone(damaged.source)
    cache = find_containing_slab_cache(damaged.source, address)
    pcs = per_cpu_ptr(cache.cpu_sheaves, 0)
    sheaf = Object(damaged.source, "struct slab_sheaf *", Damaged.ZEROS)
    damaged.poke(pcs.spare, Damaged.ZEROS)
    damaged.poke(sheaf.size, (1 << 32) - 1)
    assert slab_object(damaged.program(), address) == SlabObject("kmalloc-512", None, None)


def test_sheaves_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = Damaged(tmp_path, "7.3-ghost")
    address = pgmap_that_is_gone(damaged.source)
    monkeypatch.setattr(slab, "_MAX_SHEAVES", -1)
    assert slab_object(damaged.source, address) == SlabObject("kmalloc-512", None, None)


def test_kernel_whose_caches_are_not_known() -> None:
    kernel = collision("6.1")
    prog = kernel.program()
    (pgmap,) = check(prog).pgmaps
    with pytest.raises(FaultError):
        slab_object(prog, pgmap.address)


def test_a_dump_that_does_not_say_where_the_direct_mapping_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # drgn raises a plain Exception, as of exports of arm64.
    def find(prog: Program, address: int) -> None:
        raise Exception("could not find variable in direct mapping")

    monkeypatch.setattr(slab, "find_containing_slab_cache", find)
    with pytest.raises(FaultError, match="direct mapping"):
        slab_object(Program(), 0xFFFF000000001000)


def test_a_mistake_of_ours_is_not_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(prog: Program, address: int) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(slab, "find_containing_slab_cache", find)
    with pytest.raises(RuntimeError, match="a mistake"):
        slab_object(Program(), 0xFFFF000000001000)


@pytest.mark.parametrize("alien", [0, 0xFFFF888000001000])
def test_free_objects_of_several_nodes_with_slab_are_not_looked_for(
    alien: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slab, "nr_node_ids", lambda prog: 2)
    node = SimpleNamespace(alien=alien)
    cache = SimpleNamespace(prog_=None, cpu_cache=1, node=[None, node, None])
    assert slab._has_alien_caches(cast(Object, cache)) == bool(alien)
    del cache.cpu_cache
    assert not slab._has_alien_caches(cast(Object, cache))
