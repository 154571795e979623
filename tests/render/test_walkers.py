# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drgn.commands import CommandError, run_command
from support.fakekernel import collision, in_flight, partial
from support.kernels import each_layout
from support.schema import load_schema, validated

from drgn_zonedev import plugin
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.pfn_walkers import WALKERS, WalkersReport, WalkOutcome, walkers
from drgn_zonedev.render.screen import Screen, height, is_folded
from drgn_zonedev.render.walkers import walkers_document, walkers_text

VMCORES = Path(__file__).parents[2] / "vmcores"
SCENES = {"collision": collision, "in_flight": in_flight, "partial": partial}


@each_layout
@pytest.mark.parametrize("scene", SCENES)
def test_documents_conform_to_the_schema(layout: str, scene: str) -> None:
    document = validated(walkers_document(walkers(SCENES[scene](layout).program())))
    assert [w["name"] for w in document["walkers"]] == [w.name for w in WALKERS]


def test_the_document_holds_what_a_walker_meets() -> None:
    document = validated(walkers_document(walkers(in_flight("5.10").program())))
    (flags,) = (w for w in document["walkers"] if w["name"] == "kpageflags")
    assert flags["guard"]["steps"][-1] == "pfn_to_online_page()"
    assert flags["exposures"][2] == {
        "start_pfn": 0x24400,
        "end_pfn": 0x28000,
        "case": "initializing",
        "number": 4,
        "touched": 0x3C00,
        "used": 0x3C00,
        "outcomes": {"stale": 0x3C00},
        "contents": {"a reserved page from boot, linked to itself": 0x3C00},
    }


def test_the_schema_names_every_outcome() -> None:
    items = load_schema()["$defs"]["walkers"]["properties"]["walkers"]["items"]
    exposure = items["properties"]["exposures"]["items"]
    names = exposure["properties"]["outcomes"]["propertyNames"]["enum"]
    assert names == [outcome.name.lower().replace("_", "-") for outcome in WalkOutcome]


def test_text_says_which_guards_the_release_chose() -> None:
    text = walkers_text(walkers(in_flight("5.10").program()))
    (line,) = (line for line in text.splitlines() if "if this kernel was patched" in line)
    assert "5.10.223-fake" in line
    assert line.endswith(
        "patched: kpagecgroup, memory-failure, soft-offline, unpoison, compaction, page-idle, "
        "damon, split-huge-pages, memory-offline, alloc-contig, kcore, page-isolation-edges, "
        "auto-movable, virtio-mem-movable, virtio-mem-unplug, access-phys, kho-restore, dma-debug"
    )
    assert "[0x24400, 0x28000)  initializing (4)" in text


def test_text_explains_the_outcomes_that_it_names() -> None:
    text = walkers_text(walkers(collision("6.12").program()))
    assert "stale: it takes a stale struct page for a current one" in text
    assert "wild-pointer: " not in text


def test_what_the_kernel_lacks_is_shown_apart_and_not_counted() -> None:
    with StoredDump(VMCORES / "6.1-init-in-flight").program() as prog:
        report = walkers(prog)
    text = walkers_text(report)
    here, absent = text.split(
        "NOT IN THIS KERNEL. What these walkers would do if it were built with them:"
    )
    for name in ("hwpoison-inject", "page-owner", "memory-failure"):
        assert f"\n{name} " not in here
        assert f"\n{name} " in absent
    assert "\nhibernation-free " in here
    assert "\nhibernation-free " not in absent
    # That one uses 15362 pages whose zone it walks; what it drops is not counted.
    counted = sum(j.counts for j in report.walkers)
    assert f"\n1 of {counted} walkers that this kernel has or may have would use " in text
    (row,) = (line for line in here.splitlines() if line.startswith("hibernation-free "))
    assert row.split()[3:8] == ["yes", "49152", "reasoned", "15362", "stale"]
    documented = {w["name"]: w for w in validated(walkers_document(report))["walkers"]}
    assert documented["page-owner"]["in_kernel"] is False
    assert documented["page-owner"]["counts"] is False
    assert documented["page-owner"]["exposures"]


def test_what_leaves_no_trace_is_unknown_and_the_reason_is_given() -> None:
    report = walkers(collision("6.12").program())
    unknown = tuple(
        replace(j, present=None, untraced=True) if j.walker.name == "page-idle" else j
        for j in report.walkers
    )
    text = walkers_text(replace(report, walkers=unknown))
    (line,) = (line for line in text.splitlines() if "BTF and kallsyms do not show" in line)
    assert line.endswith(": page-idle")
    (row,) = (line for line in text.splitlines() if line.startswith("page-idle "))
    assert "not known" in row
    document = validated(walkers_document(replace(report, walkers=unknown)))
    (entry,) = (w for w in document["walkers"] if "in_kernel_unknown" in w)
    assert (entry["name"], entry["in_kernel"]) == ("page-idle", None)


def test_one_walker(capsys: pytest.CaptureFixture[str]) -> None:
    prog = in_flight("5.10").program()
    plugin.drgn_prog_set(prog)
    report = run_command(prog, "zonedev walkers --walker kpageflags --walker kcore")
    assert isinstance(report, WalkersReport)
    assert [j.walker.name for j in report.walkers] == ["kpageflags", "kcore"]
    assert "/proc/kpageflags" in capsys.readouterr().out


def test_unknown_walkers_are_refused() -> None:
    prog = in_flight("5.10").program()
    plugin.drgn_prog_set(prog)
    with pytest.raises(CommandError):
        run_command(prog, "zonedev walkers --walker nosuch")


@pytest.mark.parametrize("size", [Screen(24, 80), Screen(40), Screen(50, 200)])
def test_text_fits_the_screen(size: Screen) -> None:
    report = walkers(in_flight("5.10").program())
    text = walkers_text(report, screen=size)
    assert height(text, size) <= size.lines
    assert is_folded(text)
    assert height(walkers_text(report), size) > size.lines


def test_where_there_is_little_room_the_worst_is_shown() -> None:
    report = walkers(in_flight("5.10").program())
    order = list(WalkOutcome)
    text = walkers_text(report, screen=Screen(24))
    rank = {
        j.walker.name: min((order.index(e.worst) for e in j.exposures), default=len(order))
        for j in report.walkers
    }
    shown = {name for name in rank if f"\n{name} " in text}
    assert 0 < len(shown) < len(rank)
    assert max(rank[n] for n in shown) <= min(rank[n] for n in rank if n not in shown)
