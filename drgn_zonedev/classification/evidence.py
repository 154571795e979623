# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Evidence
--------

Collects the words of memory that decide a verdict, with their addresses, so that the verdict
can be checked by hand.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from drgn import Program, offsetof

from drgn_zonedev.classification.ram_evidence import block_memmap_facts, deferred_facts
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.mmzone import decode_section_word
from drgn_zonedev.model import Evidence, EvidenceKind, Pgmap

__all__ = ("EvidenceBuilder",)


class EvidenceBuilder:
    """Collect evidence from a snapshot; caches what is expensive to decode."""

    def __init__(self, prog: Program, snapshot: Snapshot) -> None:
        self._prog = prog
        self._snapshot = snapshot
        self._pgmaps = {p.address: p for p in snapshot.pgmaps}
        self._flags_text: dict[int, str] = {}
        self._offsets: dict[tuple[str, str], int] = {}

    def of_range(self, start_pfn: int, rows: np.ndarray, pgmap: int | None) -> tuple[Evidence, ...]:
        """
        Get the evidence that decided a range that starts at ``start_pfn``.

        :param rows: Rows of the snapshot's sections that the range touches.
        """
        facts = []
        facts += self._sections(rows)
        if len(rows):
            facts.append(self._subsection(int(rows[0]), start_pfn))
        if pgmap is not None:
            facts += self._pgmap(start_pfn, pgmap)
        elif len(rows):
            facts.append(Evidence(f"pgmap_array[{start_pfn:#x}]", value=0, note="no pgmap"))
            facts.append(self._memory_block(int(rows[0])))
            facts += deferred_facts(self._prog, self._snapshot, start_pfn)
            facts += block_memmap_facts(self._prog, self._snapshot, start_pfn)
        return tuple(facts)

    def _offset(self, type_name: str, member: str) -> int:
        key = type_name, member
        if key not in self._offsets:
            self._offsets[key] = offsetof(self._prog.type(type_name), member)
        return self._offsets[key]

    def _sections(self, rows: np.ndarray) -> list[Evidence]:
        # One item for each combination of flags, with the first section that has it.
        sections = self._snapshot.sections
        flag_bits = np.uint64(~self._snapshot.flags.map_mask & (1 << 64) - 1)
        words = sections.word[rows] & flag_bits
        # The usual case, without np.unique(), which is slow.
        if (words == words[:1]).all():
            flags, first, count = words[:1], np.arange(len(words[:1])), np.array([len(words)])
        else:
            flags, first, count = np.unique(words, return_index=True, return_counts=True)
        offset = self._offset("struct mem_section", "section_mem_map")
        facts = []
        for i in np.argsort(first):
            row = rows[first[i]]
            note = self._decode_flags(int(flags[i]))
            if count[i] > 1:
                note += f" (and {count[i] - 1} more sections)"
            facts.append(
                Evidence(
                    what=f"mem_section[{sections.nr[row]}].section_mem_map",
                    address=int(sections.address[row]) + offset,
                    value=int(sections.word[row]),
                    note=note,
                )
            )
        return facts

    def _decode_flags(self, flags: int) -> str:
        if flags not in self._flags_text:
            self._flags_text[flags] = "|".join(decode_section_word(self._prog, flags))
        return self._flags_text[flags]

    def _subsection(self, row: int, pfn: int) -> Evidence:
        snapshot, geometry = self._snapshot, self._snapshot.geometry
        nr = int(snapshot.sections.nr[row])
        usage = int(snapshot.sections.usage[row])
        bit = geometry.subsection_map_index(pfn)
        what = f"mem_section[{nr}].usage->subsection_map"
        if not usage:
            return Evidence(what, note=f"bit {bit} is clear: usage is NULL")
        if not snapshot.sections.usage_readable[row]:
            crowded = snapshot.sections.crowded[row]
            note = "ignored as garbage" if crowded else "cannot be read"
            return Evidence(what, address=usage, note=note)
        word = int(snapshot.sections.subsection_map[row, bit // 64])
        state = "set" if word >> bit % 64 & 1 else "clear"
        offset = self._offset("struct mem_section_usage", "subsection_map") + bit // 64 * 8
        return Evidence(what, address=usage + offset, value=word, note=f"bit {bit} is {state}")

    def _progress(self, pgmap: Pgmap) -> list[Evidence]:
        # The kernel records it since v5.10.
        if not pgmap.records_progress:
            return []
        note = "a range is in progress" if pgmap.in_progress else "all ranges are initialised"
        word = self._pgmap_word(pgmap, "nr_range", pgmap.nr_range, note)
        return [dataclasses.replace(word, kind=EvidenceKind.PROGRESS)]

    def _pgmap(self, pfn: int, address: int) -> list[Evidence]:
        pgmap = self._pgmaps.get(address)
        if pgmap is None:
            return [Evidence(f"pgmap_array[{pfn:#x}]", value=address, note="cannot be read")]
        facts = [
            Evidence(f"pgmap_array[{pfn:#x}]", value=pgmap.address, note=pgmap.type),
            *self._progress(pgmap),
            Evidence("pgmap->ref", note=pgmap.ref.state),
        ]
        if pgmap.altmap:
            altmap = pgmap.altmap
            first = altmap.base_pfn + altmap.offset
            facts += [
                self._pgmap_word(pgmap, "altmap.base_pfn", altmap.base_pfn),
                self._pgmap_word(pgmap, "altmap.reserve", altmap.reserve),
                self._pgmap_word(
                    pgmap, "altmap.free", altmap.free, f"the first device page is {first:#x}"
                ),
            ]
        return facts

    def _pgmap_word(self, pgmap: Pgmap, member: str, value: int, note: str = "") -> Evidence:
        address = pgmap.address + self._offset("struct dev_pagemap", member)
        return Evidence(f"pgmap->{member}", address=address, value=value, note=note)

    def _memory_block(self, row: int) -> Evidence:
        block_id = int(self._snapshot.sections.nr[row]) // self._snapshot.sections_per_block
        block = self._snapshot.memory_blocks.find(block_id)
        what = f"memory_blocks[{block_id}]"
        if block is None:
            return Evidence(what, value=0, note="no memory block")
        return Evidence(what, value=block[0], note=block[1])
