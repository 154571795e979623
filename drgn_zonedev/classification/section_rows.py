# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Section Rows
------------

Decodes each section, to show the structures themselves instead of verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.mmzone import decode_section_word

__all__ = ("SectionRow", "section_rows")


@dataclass(frozen=True)
class SectionRow:
    """
    One present ``struct mem_section``.

    ``subsections`` holds the 64-bit words of ``subsection_map``, bit ``i`` of
    word ``j`` being subsection ``64 * j + i``; ``None`` if it cannot be read.
    ``memory_block`` is the state of the memory block, ``None`` if there is none.
    """

    nr: int
    start_pfn: int
    end_pfn: int
    address: int
    word: int
    flags: tuple[str, ...]
    usage: int
    subsections: tuple[int, ...] | None
    subsections_per_section: int
    memory_block: str | None


@takes_program_or_default
def section_rows(prog: Program) -> Iterator[SectionRow]:
    """
    Iterate over the present sections, decoded.

    :raises LookupError: if a type or symbol is missing in the debugging information
    """
    snapshot = take_snapshot(prog)
    sections = snapshot.sections
    flags: dict[int, tuple[str, ...]] = {}
    for i in range(len(sections)):
        word = int(sections.word[i])
        low = word & ~snapshot.flags.map_mask
        if low not in flags:
            flags[low] = decode_section_word(prog, low)
        yield _row(snapshot, i, word, flags[low])


def _row(snapshot: Snapshot, i: int, word: int, flags: tuple[str, ...]) -> SectionRow:
    sections, geometry = snapshot.sections, snapshot.geometry
    nr = int(sections.nr[i])
    block = snapshot.memory_blocks.find(nr // snapshot.sections_per_block)
    readable = bool(sections.usage_readable[i])
    return SectionRow(
        nr=nr,
        start_pfn=nr * geometry.pages_per_section,
        end_pfn=(nr + 1) * geometry.pages_per_section,
        address=int(sections.address[i]),
        word=word,
        flags=flags,
        usage=int(sections.usage[i]),
        subsections=tuple(sections.subsection_map[i].tolist()) if readable else None,
        subsections_per_section=geometry.subsections_per_section,
        memory_block=block[1] if block else None,
    )
