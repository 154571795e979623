# SPDX-License-Identifier: LGPL-2.1-or-later

"""Memory that no kernel has yet, by the names of the patches that bring it."""

from __future__ import annotations

import pytest
from drgn import FindObjectFlags, Object, Program, TypeEnumerator, TypeMember, sizeof
from support.fakekernel import FakeKernel, collision

from drgn_zonedev.classification.unsupported import unsupported_memory
from drgn_zonedev.report import check

TREE = 0xFFFF888001F00000


def with_tree(kernel: FakeKernel, root: int | None) -> Program:
    """A kernel with the maple tree of the patch, whose root cannot be read if it is None."""
    prog = kernel.program()
    tree = prog.struct_type("maple_tree", 8, (TypeMember(prog.type("unsigned long"), "ma_root"),))

    def find(prog: Program, name: str, flags: FindObjectFlags, file: str | None) -> Object | None:
        wanted = name == "device_private_pgmap_tree"
        return Object(prog, tree, address=TREE) if wanted else None

    prog.register_object_finder("tree", find, enable_index=0)
    if root is not None:
        raw = root.to_bytes(8, "little")
        prog.add_memory_segment(TREE, 8, lambda a, count, at, p: raw[at : at + count])
    return prog


@pytest.mark.parametrize(("root", "told"), [(0, 0), (0xFFFF888012345600, 1), (None, 1)])
def test_tree_of_device_private_memory(root: int | None, told: int) -> None:
    prog = with_tree(collision("7.2"), root)
    found = [u for u in check(prog).unjudged if "device_private_pgmap_tree" in u.reason]
    assert len(found) == told
    assert all(u.address == TREE for u in found)


def test_private_nodes() -> None:
    kernel = collision("7.2")
    kernel.set_variable("nr_node_ids", 3)
    prog = kernel.program()
    states = kernel.layout.constant("NR_NODE_STATES")
    enum = prog.enum_type(
        None, prog.type("unsigned int"), (TypeEnumerator("N_MEMORY_PRIVATE", states),)
    )
    mask = prog.type("nodemask_t")
    raw = bytes(states * sizeof(mask)) + (0b101).to_bytes(sizeof(mask), "little")
    table = prog.array_type(mask, states + 1)

    def find(prog: Program, name: str, flags: FindObjectFlags, file: str | None) -> Object | None:
        if name == "N_MEMORY_PRIVATE":
            return Object(prog, enum, states)
        return Object.from_bytes_(prog, table, raw) if name == "node_states" else None

    prog.register_object_finder("nodes", find, enable_index=0)
    reasons = [u.reason for u in unsupported_memory(prog)]
    assert [reason.split(" is ")[0] for reason in reasons] == ["node 0", "node 2"]
    assert all("N_MEMORY_PRIVATE" in reason for reason in reasons)


def test_kernels_of_today_have_neither() -> None:
    assert list(unsupported_memory(collision("7.2").program())) == []
