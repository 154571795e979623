# SPDX-License-Identifier: LGPL-2.1-or-later
"""The comparison with the kernel's answers: it must be silent on the truth, and loud on any lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.fakekernel import LAYOUTS, FakeKernel, collision, partial
from support.kernels import each_layout

from drgn_zonedev.kernel.memremap import get_dev_pagemap
from drgn_zonedev.lab.truth.answers import Answer, Kpageflags
from drgn_zonedev.lab.truth.guest_facts import Facts, IomemEntry
from drgn_zonedev.lab.verdict.agreement import compare, disagreements

DMA, DMA32, NORMAL, DEVICE = 0, 1, 2, 4
PAGE = 4096


def ram(start: int, end: int, zone: int) -> Answer:
    return Answer(start, end, True, True, 0, False, zone, 0, None, None)


def collision_answers(layout: str, pgmap: int) -> tuple[Answer, ...]:
    """What real kernels answer in fsdax-collision. Before v5.12, the collision is online, too."""
    shared = layout == "5.10"
    return (
        ram(0, 0x1000, DMA),
        ram(0x1000, 0x24000, DMA32),
        Answer(0x24000, 0x24002, True, shared, pgmap, False, DMA32, 0, None, None),
        Answer(0x24002, 0x24400, True, shared, pgmap, False, DEVICE, 0, None, None),
        Answer(0x24400, 0x28000, True, shared, pgmap, True, DEVICE, 0, 0, pgmap),
        Answer(0x28000, 0x30000, True, False, pgmap, True, DEVICE, 0, 0, pgmap),
        ram(0x30000, 0x40000, DMA32),
    )


def partial_answers(layout: str, pgmap: int) -> tuple[Answer, ...]:
    """What real kernels answer in nvdimm-partial."""
    order = 0 if layout == "5.10" else 9
    return (
        ram(0, 0x1000, DMA),
        ram(0x1000, 0x10000, DMA32),
        Answer(0x100000, 0x100002, True, False, pgmap, False, 0, 0, None, None),
        Answer(0x100002, 0x100600, True, False, pgmap, False, DEVICE, 0, None, None),
        Answer(0x100600, 0x114000, True, False, pgmap, True, DEVICE, 0, order, pgmap),
        Answer(0x114000, 0x118000, False, False, 0, False, None, None, None, None),
    )


def collided(layout: str) -> tuple[FakeKernel, Facts]:
    kernel = collision(layout)
    pgmap = pgmap_of(kernel, 0x24000)
    return kernel, {"truth": collision_answers(layout, pgmap)}


def pgmap_of(kernel: FakeKernel, pfn: int) -> int:
    return int(get_dev_pagemap(kernel.program(), pfn).value_())


# --- the truth ---


@each_layout
def test_the_truth_is_agreed_with(layout: str) -> None:
    kernel, facts = collided(layout)
    agreement = compare(kernel.program(), facts)
    assert agreement.disagreements == ()
    assert agreement.pages == 0x40000


@each_layout
def test_compound_pages_and_unmapped_ones_are_agreed_with(layout: str) -> None:
    kernel = partial(layout)
    answers = partial_answers(layout, pgmap_of(kernel, 0x100000))
    assert disagreements(kernel.program(), {"truth": answers}) == []


def test_a_leak_of_the_kernel_is_named_where_it_is() -> None:
    kernel, facts = collided("5.10")
    leaks = compare(kernel.program(), facts).leaks
    assert [(d.start_pfn, d.end_pfn, d.about) for d in leaks] == [
        (0x24000, 0x24002, "case reserved"),
        (0x24002, 0x24400, "case metadata"),
        (0x24400, 0x28000, "case device"),
    ]
    assert all("before v5.12" in d.leak for d in leaks)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "5.10"])
def test_kernels_that_know_of_collisions_leak_nothing(layout: str) -> None:
    kernel, facts = collided(layout)
    assert compare(kernel.program(), facts).leaks == ()


def test_a_collision_without_taint_is_a_leak() -> None:
    kernel, facts = collided("6.1")
    kernel.section(4, online=True, early=True, taint=False)
    facts["truth"] = collision_answers("5.10", facts["truth"][2].pgmap)
    agreement = compare(kernel.program(), facts)
    assert agreement.disagreements == ()
    assert {d.leak.partition(",")[0] for d in agreement.leaks} == {
        "without SECTION_TAINT_ZONE_DEVICE"
    }


def test_what_the_guest_did_not_report_is_said() -> None:
    silent = compare(collision("6.1").program(), {}).silent
    assert silent == tuple(
        f"the guest did not report {name}" for name in ("truth", "kpageflags", "frozen")
    )


# --- lies ---

# Of 0x24400-0x28000: device pages in a section that they share with RAM.
LIES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "pfn_valid": (
        {"valid": False},
        {"pfn_valid()", "helper pfn_valid()", "pfn_zone_device()", "case device"},
    ),
    "online": (
        {"online": True},
        {"pfn_to_online_page()", "helper pfn_to_online_page()", "case device"},
    ),
    "no pgmap": (
        {"pgmap": 0},
        {"get_dev_pagemap()", "helper get_dev_pagemap()", "pfn_zone_device()", "case device"},
    ),
    "other pgmap": ({"pgmap": 0x1000}, {"get_dev_pagemap()", "helper get_dev_pagemap()"}),
    "pgmap_valid": (
        {"pgmap_valid": False},
        {"pgmap_pfn_valid()", "helper pgmap_pfn_valid()", "pfn_zone_device()", "case device"},
    ),
    "zone": ({"zone": NORMAL}, {"zone"}),
    "node": ({"nid": 1}, {"node"}),
    "compound": ({"order": 9}, {"compound head"}),
    "irregular": ({"order": -1}, {"compound head: none"}),
    "page's pgmap": ({"page_pgmap": 0x1000}, {"page_pgmap()"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_one_field_is_found(lie: str) -> None:
    change, about = LIES[lie]
    kernel, facts = collided("6.1")
    facts["truth"] = tuple(
        replace(a, **change) if a.start_pfn == 0x24400 else a for a in facts["truth"]
    )
    found = disagreements(kernel.program(), facts)
    assert {d.about for d in found} == about
    assert all(0x24400 <= d.start_pfn < d.end_pfn <= 0x28000 for d in found)


def test_a_lie_about_a_single_pfn_is_found() -> None:
    kernel, facts = collided("6.1")
    *before, device, ram_after = facts["truth"]
    facts["truth"] = (
        *before,
        replace(device, end_pfn=0x2ABCD),
        replace(device, start_pfn=0x2ABCD, end_pfn=0x2ABCE, valid=False),
        replace(device, start_pfn=0x2ABCE),
        ram_after,
    )
    found = disagreements(kernel.program(), facts)
    assert {(d.start_pfn, d.end_pfn) for d in found} == {(0x2ABCD, 0x2ABCE)}


@pytest.mark.parametrize("word", [0, 1])
def test_a_damaged_struct_page_is_found(word: int) -> None:
    kernel, facts = collided("6.1")
    prog = kernel.program()
    kernel.poke_page_word(0x2ABCD, word, 0)
    found = disagreements(prog, facts)
    assert found
    assert {(d.start_pfn, d.end_pfn) for d in found} == {(0x2ABCD, 0x2ABCE)}


def test_struct_pages_that_we_cannot_read_but_the_kernel_can_are_found() -> None:
    kernel, facts = collided("6.1")
    kernel.hide(kernel.page(0x2A000), PAGE)
    found = disagreements(kernel.program(), facts)
    assert [(d.about, d.start_pfn, d.end_pfn) for d in found] == [("struct page", 0x2A000, 0x2A040)]


def test_sections_that_only_one_side_knows_are_found() -> None:
    kernel, facts = collided("6.1")
    facts["truth"] = (*facts["truth"][:-1], ram(0x30000, 0x38000, DMA32))
    (found,) = disagreements(kernel.program(), facts)
    assert (found.about, found.start_pfn, found.end_pfn) == ("coverage", 0x30000, 0x40000)
    facts["truth"] = (*facts["truth"][:-1], ram(0x30000, 0x48000, DMA32))
    about = {d.about for d in disagreements(kernel.program(), facts)}
    assert {"present", "pfn_valid()"} <= about


# --- a kernel that has pfn_zone_device() ---


def with_zone_device(answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """What a kernel with pfn_zone_device() adds: only data may be touched, all is claimed."""
    return tuple(
        replace(
            answer,
            zone_device=0x24400 <= answer.start_pfn < 0x30000,
            claimed=0x24000 <= answer.start_pfn < 0x30000,
            reserved=answer.start_pfn == 0x24000,
        )
        for answer in answers
    )


def test_the_kernels_own_pfn_zone_device_is_agreed_with() -> None:
    kernel, facts = collided("6.12")
    facts["truth"] = with_zone_device(facts["truth"])
    assert compare(kernel.program(), facts).disagreements == ()


@pytest.mark.parametrize("name", ["zone_device", "claimed", "reserved"])
@pytest.mark.parametrize("start_pfn", [0x1000, 0x24000, 0x24002, 0x24400, 0x28000])
def test_a_lie_of_the_kernels_own_pfn_zone_device_is_found(name: str, start_pfn: int) -> None:
    kernel, facts = collided("6.12")
    facts["truth"] = tuple(
        replace(a, **{name: not getattr(a, name)}) if a.start_pfn == start_pfn else a
        for a in with_zone_device(facts["truth"])
    )
    (found,) = compare(kernel.program(), facts).disagreements
    function = "pfn_zone_device" if name == "zone_device" else f"pfn_zone_device_{name}"
    assert found.about == f"the kernel's own {function}()"
    assert found.start_pfn == start_pfn


# --- a walker ---


def test_the_walker_agrees() -> None:
    kernel, _ = collided("6.1")
    told = (
        Kpageflags(0, 0x1000, "flags"),
        Kpageflags(0x1000, 0x24000, "zero"),
        Kpageflags(0x24000, 0x30000, "nopage"),
        Kpageflags(0x30000, 0x40000, "zero"),
    )
    agreement = compare(kernel.program(), {"kpageflags": told})
    assert agreement.disagreements == ()
    assert agreement.silent == (
        "the guest did not report truth",
        "the guest did not report frozen",
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Kpageflags(0x24400, 0x24500, "flags"), (0x24400, 0x24500)),
        (Kpageflags(0x100, 0x200, "nopage"), (0x100, 0x200)),
    ],
)
def test_a_walker_that_goes_elsewhere_is_found(told: Kpageflags, expected: tuple[int, int]) -> None:
    kernel, _ = collided("6.1")
    (found,) = disagreements(kernel.program(), {"kpageflags": (told,)})
    assert (found.start_pfn, found.end_pfn) == expected
    assert found.about == "/proc/kpageflags finds a page"


def test_without_nopage_a_zero_says_something_of_reserved_pages_only() -> None:
    kernel, _ = collided(LAYOUTS[-1])
    told = (Kpageflags(0x23000, 0x24500, "zero"), Kpageflags(0x3FFF0, 0x40000, "zero"))
    agreement = compare(kernel.program(), {"kpageflags": told})
    # The last page of RAM and what is behind it are reserved, and online.
    (found,) = agreement.disagreements
    assert (found.start_pfn, found.end_pfn) == (0x3FFF0, 0x40000)
    assert "0x" not in agreement.silent[-1]
    assert "4096 PFNs read 0" in agreement.silent[-1]


# --- what user space sees ---

PFN0 = {"resource": 0x24400 * PAGE, "size": 0xBC00 * PAGE, "mode": "pmem", "driver": "nd_pmem"}
SYSTEM: Facts = {
    "zoneinfo": {(0, "Device"): {"spanned": 0xC000, "present": 0}, (0, "DMA"): {"spanned": 1}},
    "memory_block_size": 128 << 20,
    "memory_blocks": dict.fromkeys((0, 1, 2, 3, 4, 6, 7), "online"),
    "iomem": (
        IomemEntry(0, 0x1000, 0x9FC00, "System RAM"),
        IomemEntry(0, 0x24000 * PAGE, 0x30000 * PAGE, "Persistent Memory (legacy)"),
        IomemEntry(0, 0x30000 * PAGE, 0x3FFE0 * PAGE, "System RAM"),
    ),
}


def test_user_space_agrees() -> None:
    assert disagreements(collision("6.1").program(), SYSTEM) == []


@pytest.mark.parametrize(
    ("fact", "lie", "about"),
    [
        ("zoneinfo", {(0, "Device"): {"spanned": 0xC001}}, "/proc/zoneinfo"),
        ("zoneinfo", {}, "/proc/zoneinfo"),
        ("memory_blocks", {**SYSTEM["memory_blocks"], 5: "online"}, "state of memory5"),
        ("memory_blocks", {**SYSTEM["memory_blocks"], 4: "offline"}, "state of memory4"),
        ("memory_block_size", 256 << 20, "memory block size"),
        ("iomem", (), "/proc/iomem"),
        ("iomem", (IomemEntry(0, 0, 0x40000 * PAGE, "System RAM"),), "/proc/iomem"),
        ("iomem", (*SYSTEM["iomem"], IomemEntry(0, 1 << 32, 2 << 32, "System RAM")), "/proc/iomem"),
    ],
)
def test_a_lie_of_user_space_is_found(fact: str, lie: Any, about: str) -> None:
    found = disagreements(collision("6.1").program(), {**SYSTEM, fact: lie})
    assert found
    assert all(d.about.startswith(about) for d in found)


def test_a_driver_without_a_pgmap_is_found() -> None:
    facts = {**SYSTEM, "nd": {"pfn0.0": PFN0, "namespace0.0": {"driver": "nd_pmem"}}, "dax": {}}
    (found,) = disagreements(collision("6.1").program(), facts)
    assert str(found) == "nd device pfn0.0: we say 0 pgmaps, the kernel says one driver"


# --- the parts ---
