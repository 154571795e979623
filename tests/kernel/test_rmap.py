# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn import BadDataError, FaultError, Object
from support.usedpages import machine

from drgn_zonedev.kernel.rmap import (
    Mapping,
    MappingKind,
    anon_vma_vmas,
    decode_mapping,
    file_vmas,
    mapping_host,
    rb_nodes,
)

AT = 0xFFFF888001234560


@pytest.mark.parametrize(
    ("word", "kind", "address"),
    [
        (0, MappingKind.NONE, 0),
        (AT, MappingKind.FILE, AT),
        (AT | 1, MappingKind.ANON, AT),
        (AT | 2, MappingKind.MOVABLE, AT),
        (AT | 3, MappingKind.KSM, AT),
        # PAGE_MAPPING_DAX_SHARED
        (1, MappingKind.SHARED, 0),
        (2, MappingKind.NONE, 0),
    ],
)
def test_a_mapping_says_what_it_is(word: int, kind: MappingKind, address: int) -> None:
    assert decode_mapping(word) == Mapping(kind, address)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 20])
def test_vmas_come_in_the_order_of_their_tree(count: int) -> None:
    made = machine("6.1")
    for _ in range(count):
        made.users.map(made.first, made.file, [None])
    prog = made.kernel.program()
    found = list(file_vmas(Object(prog, "struct address_space *", made.file.mapping)))
    assert [vma.address for vma in found] == made.file.vmas
    assert {(vma.mm, vma.file) for vma in found} <= {(made.first.mm, made.file.file)}


def test_a_tree_that_has_a_cycle_ends_after_what_is_new() -> None:
    made = machine("7.2")
    for _ in range(3):
        made.users.map(made.first, made.file, [None])
    nodes = [made.users.at("vm_area_struct", vma, "shared.rb") for vma in made.file.vmas]
    made.kernel.poke_member("rb_node", nodes[2], "rb_right", nodes[1])
    root = made.users.at("address_space", made.file.mapping, "i_mmap.rb_root")
    found: list[int] = []
    with pytest.raises(BadDataError, match="has no end"):
        found += rb_nodes(made.kernel.program(), root)
    walk = rb_nodes(made.kernel.program(), root)
    assert [next(walk), next(walk), next(walk)] == nodes


def test_an_address_space_knows_its_inode() -> None:
    made = machine("7.2")
    prog = made.kernel.program()
    space = Object(prog, "struct address_space *", made.file.mapping)
    assert mapping_host(space).value_() == made.file.inode
    other = made.users.file(made.file_system, "other")
    made.kernel.poke_member("address_space", made.file.mapping, "host", other.inode)
    with pytest.raises(BadDataError, match="no address_space"):
        mapping_host(space)
    with pytest.raises(FaultError):
        mapping_host(Object(prog, "struct address_space *", 0xDEAD << 48))


def test_a_chain_belongs_to_its_anon_vma() -> None:
    made = machine("7.2")
    anon = made.users.anon_vma(made.first, [None], index=3)
    prog = made.kernel.program()
    (vma,) = anon_vma_vmas(Object(prog, "struct anon_vma *", anon))
    assert (vma.mm, vma.pgoff) == (made.first.mm, 3)
    node = made.kernel.member("anon_vma", anon, "rb_root.rb_root.rb_node")
    chain = node - made.kernel.layout.locate("anon_vma_chain", "rb")[0]
    made.kernel.poke_member("anon_vma_chain", chain, "anon_vma", anon + 64)
    with pytest.raises(BadDataError, match="no anon_vma"):
        list(anon_vma_vmas(Object(prog, "struct anon_vma *", anon)))
