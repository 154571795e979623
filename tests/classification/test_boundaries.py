# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import dataclasses

import numpy as np
from support.fakekernel import collision

from drgn_zonedev.classification.boundaries import section_borders
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.mmzone import Geometry

ALL_ONES = (1 << 64) - 1


def test_a_section_of_whole_words_is_cut_between_them() -> None:
    # A machine with sections of 256 MiB: 128 subsections, two words of a bitmap.
    geometry = Geometry(12, 28, 46)
    snapshot = take_snapshot(collision("6.1").program())
    sections = dataclasses.replace(
        snapshot.sections,
        geometry=geometry,
        nr=np.array([4]),
        word=np.array([snapshot.flags.present | snapshot.flags.has_mem_map], np.uint64),
        subsection_map=np.array([[ALL_ONES, 0]], np.uint64),
    )
    snapshot = dataclasses.replace(snapshot, geometry=geometry, sections=sections)
    start, pages = 4 * geometry.pages_per_section, geometry.pages_per_subsection
    assert {start, start + 64 * pages, start + 128 * pages} <= set(
        section_borders(snapshot).tolist()
    )
