# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which release a kernel was built from, and which guards follow from it."""

from __future__ import annotations

import dataclasses

import pytest
from drgn import FindObjectFlags, Object, Program, TypeParameter
from support.fakekernel import collision
from support.layoutmachine import layout_machine

from drgn_zonedev.pfn_walkers import Judgement, walkers
from drgn_zonedev.pfn_walkers.kernel_release import has_change, kernel_release
from drgn_zonedev.pfn_walkers.kpageflags import kpage_end_pfn
from drgn_zonedev.pfn_walkers.outcome import Act


def released(layout: str, release: str) -> Program:
    """A machine of a layout file, whose kernel says that it is of another release."""
    kernel = layout_machine(layout).kernel
    kernel.layout = dataclasses.replace(kernel.layout, name="other", release=release)
    return kernel.program()


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("5.15.0-91-generic", (5, 15, None)),
        ("6.18.0", (6, 18, 0)),
        ("6.18.0-mine", (6, 18, 0)),
        ("6.12.107+deb13-cloud-amd64", (6, 12, 107)),
        ("6.18.36", (6, 18, 36)),
        ("7.3-rc1", (7, 3, 0)),
        # Debian's 6.1.192, and one that nothing is known of.
        ("6.1.0-56-cloud-amd64", (6, 1, 192)),
        ("6.1.0-9-cloud-amd64", (6, 1, None)),
        ("odd", (0, 0, None)),
    ],
)
def test_release_of_a_kernel(
    name: str, release: tuple[int, int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    prog = collision("6.1").program()
    monkeypatch.setattr("drgn_zonedev.pfn_walkers.kernel_release.c_string", lambda _: name)
    monkeypatch.setattr("drgn_zonedev.pfn_walkers.kernel_release._release_in_version", _none)
    assert kernel_release(prog) == release


def _none(prog: Program) -> None:
    return None


def test_fixes_of_stable_trees_count_in_their_tree_alone() -> None:
    stable = ((6, 6, 107), (6, 12, 48))
    assert has_change((6, 17, 0), (6, 17), stable)
    assert has_change((6, 12, 48), (6, 17), stable)
    assert not has_change((6, 12, 47), (6, 17), stable)
    assert not has_change((6, 8, 200), (6, 17), stable)


def test_fixes_are_unknown_where_the_stable_release_is() -> None:
    stable = ((6, 6, 107), (6, 12, 48))
    assert has_change((6, 12, None), (6, 17), stable) is None
    assert has_change((0, 0, None), (6, 17), stable) is None
    # Nothing was fixed in this tree, or it was before it began.
    assert has_change((6, 8, None), (6, 17), stable) is False
    assert has_change((6, 17, None), (6, 17), stable) is True


# What the sources say: read by eye, not taken from the table. (walker, release): the steps, and
# the filters.
ONLINE, VALID, ZONE = "pfn_to_online_page()", "pfn_valid()", "in a zone with RAM"
SAME_ZONE = "page_zone() is the zone that is walked"
SAME_NODE = "page_to_nid() is the node that is walked"
NODE_WALK = "in a node that is online", ONLINE, f"then {SAME_NODE}", "then page_count() != 0"
ZONE_WALK = ZONE, ONLINE, f"then {SAME_ZONE}", "then page_count() != 0"
CONTIG = ZONE, ONLINE, f"then {SAME_ZONE}", "then !PageReserved()"
LAST_SECTION = "below the end of max_pfn's section"
RAM_BLOCK = "a section of System RAM without holes"
FOR_RELEASES: dict[str, dict[str, tuple[str, ...] | None]] = {
    "5.4.0": {
        "kpageflags": ("below max_pfn", ONLINE),
        "kpagecgroup": ("below max_pfn", ONLINE),
        "memory-failure": (ONLINE,),
        "unpoison": (VALID, "then PageHWPoison()"),
        "hwpoison-inject": (VALID, "then folio_try_get()"),
        "page-idle": (VALID, "then PageLRU()"),
        "memory-offline": ("a section with System RAM", VALID),
        "alloc-contig": CONTIG,
        "compaction-ends": (ZONE, "the pageblock begins online", VALID),
        "zone-shrink-ends": (ZONE, ONLINE, f"then {SAME_ZONE}"),
        "shuffle": (ZONE, "a section that is present"),
        "memory-offline-zone": None,
        "auto-movable": None,
        "virtio-mem-unplug": None,
        "damon": None,
        "kcore": None,
        "kmemleak": NODE_WALK,
    },
    "5.4.178": {"kmemleak": ZONE_WALK},
    "5.4.300": {"unpoison": (ONLINE, "then PageHWPoison()")},
    "5.15.0": {
        "kpagecgroup": (LAST_SECTION, ONLINE),
        "memory-failure": (ONLINE, "then HWPoisonHandlable() of v5.13"),
        "soft-offline": (VALID, ONLINE, "then HWPoisonHandlable() for soft offline"),
        "unpoison": (VALID, "then PageHWPoison()"),
        "hwpoison-inject": (VALID, "then corrupt-filter-enable is set"),
        "page-idle": (ONLINE, "then PageLRU()"),
        "split-huge-pages": (ZONE, VALID, "then get_page_unless_zero()", f"then {SAME_ZONE}"),
        "auto-movable": (ONLINE,),
        "alloc-contig": CONTIG,
        "memory-offline": (RAM_BLOCK, ONLINE, VALID),
        "memory-offline-zone": (RAM_BLOCK, ONLINE),
        "virtio-mem-movable": ("memory of virtio-mem", ONLINE),
        "page-isolation-edges": None,
        "damon": None,
        "kcore": ("System RAM", ONLINE),
        "kmemleak": NODE_WALK,
    },
    "5.15.21": {"kmemleak": NODE_WALK},
    "5.15.22": {"kmemleak": ZONE_WALK},
    "5.15.73": {
        "split-huge-pages": (ZONE, ONLINE, "then get_page_unless_zero()", f"then {SAME_ZONE}"),
    },
    "6.6.0": {
        "memory-failure": (ONLINE, "then HWPoisonHandlable()"),
        "unpoison": (VALID, "then PageHWPoison()", "then !PageReserved()"),
        "page-idle": (ONLINE, "then !PageTail()", "then PageLRU()"),
        "damon": (ONLINE, "then !PageTail()", "then PageLRU()"),
        "split-huge-pages": (
            *(ZONE, ONLINE, "then !PageTail()", "then folio_try_get()", f"then {SAME_ZONE}"),
        ),
        "memory-offline": (RAM_BLOCK, ONLINE, VALID),
        "kho-restore": None,
        "dma-debug": None,
    },
    "6.6.107": {"unpoison": (ONLINE, "then PageHWPoison()", "then !PageReserved()")},
    "6.8.0": {
        "unpoison": (VALID, "then PageHWPoison()", "then !PageReserved()"),
        "damon": (ONLINE, "then !PageTail()", "then PageLRU()"),
    },
    "6.18.0": {
        "unpoison": (ONLINE, "then PageHWPoison()", "then !PageReserved()"),
        "damon": (ONLINE, "then PageLRU()"),
        "kho-restore": (ONLINE, "then KHO's magic in page->private"),
        "dma-debug": None,
        "access-phys": None,
    },
    "6.18.36": {"damon": (ONLINE, "then folio_try_get()", "then PageLRU()"), "dma-debug": (VALID,)},
    "7.0.0": {"memory-offline": (RAM_BLOCK, ONLINE, VALID)},
    "7.1.0": {"memory-offline": (RAM_BLOCK, ONLINE)},
}
LAYOUTS = {
    "5.4": "x86-64-5.8-res",
    "5.15": "x86-64-5.16-pageext",
    "6.6": "x86-64-6.6-like",
    "6.8": "x86-64-6.6-like",
    "6.18": "x86-64-6.12",
    "7.0": "x86-64-6.12",
    "7.1": "x86-64-6.12",
}


def guard_of(judgement: Judgement) -> tuple[str, ...] | None:
    guard = judgement.guard
    return (*guard.steps, *(f"then {name}" for name in guard.filters)) if guard else None


@pytest.mark.parametrize("release", FOR_RELEASES)
def test_guards_of_a_layout_are_those_of_its_release(release: str) -> None:
    layout = LAYOUTS[release.rpartition(".")[0]]
    found = {j.walker.name: j for j in walkers(released(layout, release)).walkers}
    expected = FOR_RELEASES[release]
    assert {name: guard_of(found[name]) for name in expected} == expected
    for name in expected:
        walker = found[name].walker
        assert found[name].by_release is (found[name].guard is not walker.guards[-1]), name


@pytest.mark.parametrize(("release", "changes_pagesets"), [("5.8.0", False), ("5.12.0", True)])
def test_code_of_memory_failure_disables_pagesets_since_v5_11(
    release: str, changes_pagesets: bool
) -> None:
    found = {j.walker.name: j for j in walkers(released("x86-64-5.8-res", release)).walkers}
    for name in ("memory-failure", "soft-offline", "unpoison"):
        guard = found[name].guard
        assert guard
        assert (Act.ZONE in guard.acts) is changes_pagesets, name


@pytest.mark.parametrize(
    ("layout", "release", "asks"),
    [
        ("5.4", "5.4.0", True),
        ("5.4", "5.12.0", True),
        ("5.15", "5.13.0", False),
        ("5.15", "5.15.108", False),
        ("5.15", "5.15.109", True),
        ("6.6", "6.1.25", False),
        ("6.6", "6.1.26", True),
        ("6.6", "6.2.12", False),
        ("6.6", "6.2.13", True),
        ("6.6", "6.3.0", True),
        ("6.6", "6.6.0", True),
        ("6.18", "6.18.0", True),
    ],
)
def test_contiguous_ranges_had_huge_pages_from_v5_13_to_v6_2(
    layout: str, release: str, asks: bool
) -> None:
    # PageHuge() follows the compound link, as page_count() does.
    found = {j.walker.name: j for j in walkers(released(LAYOUTS[layout], release)).walkers}
    guard = found["alloc-contig"].guard
    assert guard
    assert (Act.HEAD in guard.acts) is asks


def test_the_files_of_v5_4_end_with_max_pfn() -> None:
    before, after = (released("x86-64-5.8-res", name) for name in ("5.4.0", "5.8.0"))
    assert kpage_end_pfn(before) == before["max_pfn"].value_()
    assert kpage_end_pfn(after) == -(-after["max_pfn"].value_() // 0x8000) * 0x8000


def test_a_walker_is_not_judged_if_the_stable_release_would_decide() -> None:
    # unpoison got pfn_to_online_page() in v6.6.107; page-idle is the same in all of v6.6.
    found = {j.walker.name: j for j in walkers(released("x86-64-6.6-like", "6.6.0-26")).walkers}
    unknown, known = found["unpoison"], found["page-idle"]
    assert unknown.unjudged == "which stable release this kernel is of is not known"
    assert unknown.exposures == ()
    assert known.unjudged is None
    assert guard_of(known) == FOR_RELEASES["6.6.0"]["page-idle"]


@pytest.mark.parametrize(("parameters", "filter_"), [(1, " of v5.13"), (2, ""), (None, "")])
def test_parameters_of_a_function_choose_the_guard_unless_they_are_unknown(
    parameters: int | None, filter_: str
) -> None:
    prog = released("x86-64-6.6-like", "6.6.0")
    number = prog.int_type("int", 4, True)
    # An export of what was inlined, from BTF, has void (...).
    takes = [TypeParameter(number, f"p{i}") for i in range(parameters or 0)]
    made = prog.function_type(prog.void_type(), takes, parameters is None)

    def find(prog: Program, name: str, flags: FindObjectFlags, _: str | None) -> Object | None:
        return Object(prog, made, address=0) if name == "HWPoisonHandlable" else None

    prog.register_object_finder("test", find, enable_index=0)
    found = {j.walker.name: j for j in walkers(prog).walkers}
    guard = guard_of(found["memory-failure"])
    assert guard
    assert guard[-1] == f"then HWPoisonHandlable(){filter_}"
