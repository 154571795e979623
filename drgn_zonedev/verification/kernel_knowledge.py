# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernel Knowledge
----------------

What is known of a kernel: which way each presence check went, which rules about struct pages
apply, and whether a kernel of the same layout was ever booted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.layout_parts import LayoutPart, layout_parts
from drgn_zonedev.classification.missing_debuginfo import optional
from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.memremap import has_zone_device
from drgn_zonedev.kernel.page_kinds import kinds_of_ram
from drgn_zonedev.model import KernelFacts
from drgn_zonedev.util.handles import Result
from drgn_zonedev.verification.promises import DevicePages, MetadataPages, Promise, RamPages
from drgn_zonedev.verification.rules import rules_about

__all__ = ("KernelKnowledge", "KnownRule", "PresenceCheck", "kernel_knowledge")


@dataclass(frozen=True)
class PresenceCheck:
    """Something whose presence decides which way is taken; ``release`` is the first to have it."""

    name: str
    is_present: bool
    decides: str
    release: str


@dataclass(frozen=True)
class KnownRule:
    """A rule about the struct pages of one kind of memory that applies to the kernel."""

    finding: str
    word: str
    memory: str
    commit: str
    release: str
    is_proven: bool


@dataclass(frozen=True, repr=False)
class KernelKnowledge(Result):
    """Everything that is known of a kernel without looking at its memory."""

    facts: KernelFacts
    parts: tuple[LayoutPart, ...]
    checks: tuple[PresenceCheck, ...]
    rules: tuple[KnownRule, ...]
    has_zone_device: bool

    def __repr__(self) -> str:
        return f"<KernelKnowledge Linux {self.facts.release!r}: {len(self.rules)} rules>"


@takes_program_or_default
def kernel_knowledge(prog: Program) -> KernelKnowledge:
    """
    Get what is known of a kernel.

    :raises LookupError: if the debugging information misses what everything else depends on
    """
    parts = layout_parts(prog)
    layout = optional("", None, lambda: page_layout(prog)).value
    proven = {part.name for part in parts if part.booted}
    rules = tuple(_rules(prog, layout, "struct pages" in proven)) if layout else ()
    checks, devices = tuple(_checks(prog)), has_zone_device(prog)
    return KernelKnowledge(kernel_facts(prog), parts, checks, rules, devices)


def _member(tag: str, member: str) -> Callable[[Program], bool]:
    def is_present(prog: Program) -> bool:
        try:
            return bool(prog.type(f"struct {tag}").has_member(member))
        except LookupError:
            return False

    return is_present


def _name(name: str) -> Callable[[Program], bool]:
    return lambda prog: name in prog


_CHECKS: tuple[tuple[str, Callable[[Program], bool], str, str], ...] = (
    ("pgmap_array", _name("pgmap_array"), "whether there is device memory", "v4.20"),
    (
        "SECTION_MARKED_PRESENT_BIT",
        _name("SECTION_MARKED_PRESENT_BIT"),
        "section flags are enumerators, not macros",
        "v6.0",
    ),
    (
        "pfn_to_online_page()",
        _name("pfn_to_online_page"),
        "where flags are macros: sections that a device shares are tainted",
        "v5.12",
    ),
    (
        "mem_section_usage.subsection_map",
        _member("mem_section_usage", "subsection_map"),
        "sections have subsections",
        "v5.3",
    ),
    (
        "dev_pagemap.nr_range",
        _member("dev_pagemap", "nr_range"),
        "progress of memremap_pages() is recorded",
        "v5.10",
    ),
    (
        "dev_pagemap.internal_ref",
        _member("dev_pagemap", "internal_ref"),
        "the reference is a pointer; gone in v5.17",
        "v5.3",
    ),
    ("percpu_ref.data", _member("percpu_ref", "data"), "where references are counted", "v5.10"),
    (
        "dev_pagemap.vmemmap_shift",
        _member("dev_pagemap", "vmemmap_shift"),
        "devices may have compound pages",
        "v5.17",
    ),
    ("page.pgmap", _member("page", "pgmap"), "otherwise, folio.pgmap, since v6.15", "v4.18"),
    (
        "page.compound_info",
        _member("page", "compound_info"),
        "links of tails may be masks",
        "v7.1",
    ),
    (
        "page.compound_order",
        _member("page", "compound_order"),
        "otherwise, the order lies under struct folio",
        "v4.4",
    ),
    ("memory_blocks", _name("memory_blocks"), "otherwise, blocks are on their bus", "v5.8"),
    ("MEM_ONLINE", _name("MEM_ONLINE"), "states of blocks are counted, not bits", "v6.19"),
)


def _checks(prog: Program) -> Iterator[PresenceCheck]:
    for name, is_present, decides, release in _CHECKS:
        yield PresenceCheck(name, is_present(prog), decides, release)


def _promises(prog: Program) -> Iterator[tuple[str, Promise]]:
    # One of each kind of memory; where it is does not matter.
    kinds = optional("", None, lambda: kinds_of_ram(prog)).value
    if kinds is not None:
        nowhere, zones = (0, 0), (0,)
        yield "RAM", RamPages(0, 0, nowhere, 0, kinds, zones, zones, (0,), 1)
    if not has_zone_device(prog):
        return
    yield "fsdax", DevicePages(0, "MEMORY_DEVICE_FS_DAX", 0, 1 << 9, (0,), 0)
    order = 9 if _member("dev_pagemap", "vmemmap_shift")(prog) else 0
    yield "devdax", DevicePages(0, "MEMORY_DEVICE_GENERIC", 0, 1 << 9, (0,), order)
    yield "altmap pages", MetadataPages((0,))


def _rules(prog: Program, layout: PageLayout, is_proven: bool) -> Iterator[KnownRule]:
    for memory, promise in _promises(prog):
        for rule in rules_about(layout, promise):
            word = rule.word.title or rule.word.name
            commit = rule.commit
            yield KnownRule(
                rule.finding, word, memory, commit.hash, commit.release, is_proven=is_proven
            )
