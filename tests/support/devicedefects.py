# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Single defects in device pages of a booted kernel of any architecture: what its struct pages look
like is in its own debugging information, and which PFNs they have, in the scenario's arithmetic.
"""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from drgn import Program
from support.defects import Injector, Overlay, Pages, Spot
from support.fakekernel.layoutfile import Layout, load_layout

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.lab.scenarios import Expected
from drgn_zonedev.verification.verify import verify_snapshot
from scripts.kernel_layout import layout_of


def booted_layout(prog: Program, name: str) -> Layout:
    """The structures of a program; *name* begins with the architecture and the release."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"{name}.json")
        path.write_text(json.dumps(layout_of(prog, name)), encoding="utf-8")
        return load_layout(path)


def device_pages(
    expected: Iterable[Expected], type_: str = "MEMORY_DEVICE_FS_DAX", order: int = 0
) -> Iterator[Pages]:
    """The struct pages that a scenario's devices have, and those of their altmaps."""
    for start, end, case in expected:
        if case == "metadata":
            yield Pages(start, end, type_, 0, metadata=True)
        elif case == "device":
            yield Pages(start, end, type_, order)


def sample(pages: Pages, rng: random.Random, count: int) -> set[int]:
    """PFNs of all kinds that there are: ends, the first of compound pages, and any."""
    first = {pages.start_pfn, pages.start_pfn + 1, pages.end_pfn - 1}
    heads = range(pages.start_pfn, pages.end_pfn, 1 << pages.order)
    some = min(count, len(heads))
    near = {head + i for head in rng.sample(heads, some) for i in range(min(4, 1 << pages.order))}
    left = range(pages.start_pfn, pages.end_pfn)
    return first | near | set(rng.sample(left, min(count, len(left))))


def missed_defects(
    prog: Program, layout: Layout, areas: Iterable[Pages], count: int
) -> tuple[Counter[str], list[str]]:
    """
    Inject each kind of defect into *count* pages of each kind and more.

    :return: How many were injected, by what they were, and those of which something else was
        found than they ask for.
    """
    rng, overlay, make = random.Random(layout.name), Overlay(prog), Injector(prog, layout)
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    injected: Counter[str] = Counter()
    missed = []
    for pages in areas:
        (whole,) = (r for r in ranges if r.start_pfn <= pages.start_pfn < r.end_pfn)
        for pfn in sorted(sample(pages, rng, count)):
            # What is read is a few pages of vmemmap, but heads and tails are in it.
            start = max(pages.start_pfn, pfn >> 10 << 10)
            end = min(pages.end_pfn, start + 2048)
            part = dataclasses.replace(whole, start_pfn=start, end_pfn=end)
            for defect in make.page_defects(pages, pfn, rng):
                with overlay.injected(defect):
                    findings = verify_snapshot(prog, snapshot, [part]).findings
                found: set[Spot] = {(f.slug, f.start_pfn, f.end_pfn) for f in findings}
                (slug,) = {slug for slug, _, _ in defect.expected}
                injected[slug] += 1
                if found != defect.expected:
                    missed.append(f"{defect.what}: {sorted(found)}")
    return injected, missed
