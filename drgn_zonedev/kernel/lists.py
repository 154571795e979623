# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Lists
-----

The ``drgn_zonedev.kernel.lists`` module iterates over linked lists of a kernel
whose memory may be damaged.

In :mod:`drgn.helpers.linux.list`, ``list_for_each_entry()`` never ends on a list that has
a cycle, and ``validate_list_for_each_entry()`` stops at an entry whose ``prev`` is
damaged, although ``next`` still leads on.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import Object, Program, offsetof

from drgn_zonedev.vmcore.reads import read_word

__all__ = ("list_entries", "list_nodes")

# Longer than any list that we iterate over. A damaged list that has no cycle ends at memory
# that cannot be read.
_MAX_ENTRIES = 1 << 20


def list_entries(prog: Program, type_name: str, head: Object, member: str) -> Iterator[Object]:
    """
    Iterate over a list like ``list_for_each_entry()``, but stop before the first entry
    that comes twice.

    :param type_name: Type of the entries, e.g., ``struct device``.
    :param head: ``struct list_head *``
    :param member: Name of the ``struct list_head`` in an entry.
    :return: Iterator of pointers to that type.
    :raises FaultError: at an entry that cannot be read
    """
    entry_type = prog.type(type_name)
    pointer = prog.pointer_type(entry_type)
    in_entry = offsetof(entry_type, member)
    for node in list_nodes(prog, head):
        yield Object(prog, pointer, node - in_entry & (1 << 64) - 1)


def list_nodes(prog: Program, head: Object) -> Iterator[int]:
    """
    Iterate over the addresses of the ``struct list_head`` of a list's entries, but stop before
    the first that comes twice.

    :param head: ``struct list_head *``
    :raises FaultError: at an entry that cannot be read
    """
    next_offset = offsetof(prog.type("struct list_head"), "next")
    seen = {head.value_()}
    node = read_word(prog, head.value_() + next_offset)
    while node not in seen and len(seen) <= _MAX_ENTRIES:
        seen.add(node)
        yield node
        node = read_word(prog, node + next_offset)
