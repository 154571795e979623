# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Reverse Mapping
---------------

The ``drgn_zonedev.kernel.rmap`` module goes from a page to the processes that may map it,
as :linux:`mm/rmap.c` does: from ``page->mapping`` to the VMAs of a file (``i_mmap``) or of
anonymous memory (``anon_vma``).

drgn's helpers for red-black trees never end on a tree that has a cycle.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from drgn import BadDataError, IntegerLike, Object, Program, offsetof

from drgn_zonedev.kernel.arguments import require_struct
from drgn_zonedev.vmcore.reads import need_object, read_memory, read_word

__all__ = (
    "Mapping",
    "MappingKind",
    "Vma",
    "anon_vma_vmas",
    "decode_mapping",
    "file_vmas",
    "mapping_host",
    "rb_nodes",
)

# A file that is mapped this often, or a tree that is larger, is damaged: a process can have
# 65530 VMAs (vm.max_map_count).
_MAX_NODES = 1 << 22

# The flags of page->mapping: macros, or anonymous enumerators since v6.17.
_ANON, _MOVABLE, _FLAGS = 1, 2, 3


class MappingKind(enum.Enum):
    """What ``page->mapping`` says that a page belongs to."""

    NONE = "none"
    FILE = "file"
    ANON = "anon"
    KSM = "ksm"
    MOVABLE = "movable"
    SHARED = "shared"
    """A page of several files of a DAX file system (reflink): it does not say which."""


@dataclass(frozen=True)
class Mapping:
    """``page->mapping``; ``address`` is that of the address_space or anon_vma, or 0."""

    kind: MappingKind
    address: int


def decode_mapping(word: IntegerLike) -> Mapping:
    """
    Decode ``page->mapping``.

    :param word: ``unsigned long``
    """
    word = int(word)
    if word == _ANON:
        # PAGE_MAPPING_DAX_COW since Linux kernel commit 6061b69b9a55 ("fsdax: set a CoW flag
        # when associate reflink mappings") (in v6.0), PAGE_MAPPING_DAX_SHARED since
        # 169004265860 ("fsdax: introduce page->share for fsdax in reflink mode") (in v6.2).
        return Mapping(MappingKind.SHARED, 0)
    flags, address = word & _FLAGS, word & ~_FLAGS
    kinds = {0: MappingKind.FILE, _ANON: MappingKind.ANON, _MOVABLE: MappingKind.MOVABLE}
    kind = kinds.get(flags, MappingKind.KSM)
    return Mapping(kind if address else MappingKind.NONE, address)


@dataclass(frozen=True)
class Vma:
    """A ``struct vm_area_struct``: ``[start, end)`` of ``mm`` maps ``file``, if not 0."""

    address: int
    mm: int
    start: int
    end: int
    pgoff: int
    file: int


def mapping_host(mapping: Object) -> Object:
    """
    Get the inode that an address space belongs to.

    :param mapping: ``struct address_space *``
    :return: ``struct inode *``
    :raises BadDataError: if it is not the address space of that inode: it was freed
    :raises FaultError: if it cannot be read
    """
    require_struct(mapping, "struct address_space")
    need_object(mapping[0])
    inode = mapping.host.read_()
    if inode:
        need_object(inode[0])
    if not inode or inode.i_data.address_of_().value_() != mapping.value_():
        raise BadDataError(f"there is no address_space at {mapping.value_():#x}")
    return inode


def file_vmas(mapping: Object) -> Iterator[Vma]:
    """
    Iterate over the VMAs that map an address space, in the order of its interval tree.

    :param mapping: ``struct address_space *``
    :raises BadDataError: if the tree has a cycle
    :raises FaultError: if a part of it cannot be read
    """
    prog, tree = mapping.prog_, mapping.i_mmap
    # Cached since Linux kernel commit f808c13fd373 ("lib/interval_tree: fast overlap
    # detection") (in v4.14).
    root = tree.rb_root if tree.type_.has_member("rb_root") else tree
    in_vma = offsetof(prog.type("struct vm_area_struct"), "shared.rb")
    for node in rb_nodes(prog, root.address_of_().value_()):
        yield _read_vma(prog, node - in_vma)


def anon_vma_vmas(anon_vma: Object) -> Iterator[Vma]:
    """
    Iterate over the VMAs of an ``anon_vma``.

    :param anon_vma: ``struct anon_vma *``
    :raises BadDataError: if the tree has a cycle, or is that of another anon_vma
    :raises FaultError: if a part of it cannot be read
    """
    prog, tree = anon_vma.prog_, anon_vma.rb_root
    root = tree.rb_root if tree.type_.has_member("rb_root") else tree
    chain_type = prog.type("struct anon_vma_chain")
    in_chain = offsetof(chain_type, "rb")
    for node in rb_nodes(prog, root.address_of_().value_()):
        chain = Object(prog, chain_type, address=_wrapped(node - in_chain))
        need_object(chain)
        if chain.anon_vma.value_() != anon_vma.value_():
            raise BadDataError(f"there is no anon_vma at {anon_vma.value_():#x}")
        yield _read_vma(prog, chain.vma.value_())


def _read_vma(prog: Program, address: int) -> Vma:
    vma = Object(prog, "struct vm_area_struct", address=_wrapped(address))
    need_object(vma)
    return Vma(
        address=_wrapped(address),
        mm=vma.vm_mm.value_(),
        start=vma.vm_start.value_(),
        end=vma.vm_end.value_(),
        pgoff=vma.vm_pgoff.value_(),
        file=vma.vm_file.value_(),
    )


def _wrapped(address: int) -> int:
    return address % (1 << 64)


def rb_nodes(prog: Program, root: int) -> Iterator[int]:
    """
    Iterate over the addresses of the nodes of a red-black tree, in order.

    :param root: ``struct rb_root *``
    :raises BadDataError: at the first node that comes twice
    :raises FaultError: at a node that cannot be read
    """
    node_type = prog.type("struct rb_node")
    right_at, left_at = offsetof(node_type, "rb_right"), offsetof(node_type, "rb_left")
    size = max(right_at, left_at) + 8
    seen: set[int] = set()
    above: list[tuple[int, int]] = []
    node = read_word(prog, root)
    while node or above:
        if node:
            if node in seen or len(seen) == _MAX_NODES:
                raise BadDataError(f"the red-black tree at {root:#x} has no end")
            seen.add(node)
            raw = read_memory(prog, node, size)
            above.append((node, int.from_bytes(raw[right_at:][:8], "little")))
            node = int.from_bytes(raw[left_at:][:8], "little")
        else:
            here, node = above.pop()
            yield here
