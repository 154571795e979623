# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from support.schema import validated
from support.usedpages import FIRST, Machine, machine, mapped_file

from drgn_zonedev.page_users.pins import Pins
from drgn_zonedev.render.pins import pins_document, pins_text
from drgn_zonedev.render.screen import Screen, height, is_folded

BOTH = pytest.mark.parametrize("layout", ["6.1", "7.2"])


def used(layout: str) -> Machine:
    """A page of each kind of use, and two tasks that wait."""
    made = mapped_file(layout)
    made.users.pipe(made.first, [FIRST])
    made.set_used(FIRST + 8, others=1024, pages=2)
    made.users.ring(made.second, [FIRST + 8, FIRST + 9])
    made.set_used(FIRST + 16, others=3)
    made.users.wait_for_removal(made.first, made.pgmap)
    made.users.wait_for_page(made.second, FIRST + 8)
    return made


@BOTH
def test_text_names_every_user(layout: str) -> None:
    made = used(layout)
    text = pins_text(made.pins())
    for line in (
        "first (PID 100) waits for the last reference to the pgmap",
        f"second (PID 101) waits for a page that is used, PFN {FIRST + 8:#x}",
        "/mnt/file, page 0",
        "first (PID 100) maps 1 page, VMA [0x7f0000000000, 0x7f0000001000)",
        "1 reference in a pipe of first (PID 100), file descriptor 3",
        "2 pins in buffers registered with io_uring of second (PID 101), file descriptor 3",
        "no user found for 3 references",
        "4 of 32768 pages are used, 2 tasks wait",
    ):
        assert line in text
    assert text.count("no user found") == 1


@BOTH
def test_the_document_has_every_user(layout: str) -> None:
    made = used(layout)
    (pgmap,) = validated(pins_document(made.pins()))["pgmaps"]
    mapped, ring, unknown = pgmap["used"]
    assert [p["pid"] for user in mapped["mapped_by"] for p in user["processes"]] == [100]
    assert mapped["owner"]["path"] == "/mnt/file"
    assert [(h["kind"], h["references"]) for h in mapped["held_by"]] == [("pipe", 1)]
    assert [(h["kind"], h["references"]) for h in ring["held_by"]] == [("io_uring", 2)]
    assert (ring["start_pfn"], ring["end_pfn"], ring["pins"]) == (FIRST + 8, FIRST + 10, 1)
    assert unknown["unknown"] == {"references": 3, "pins": 0, "mappings": 0}
    assert [(w["pid"], w["waits_for"], w["pfn"]) for w in pgmap["waiting"]] == [
        (100, "removal", None),
        (101, "page", FIRST + 8),
    ]


def test_the_document_says_what_was_not_searched() -> None:
    made = used("7.2")
    made.kernel.hide(made.kernel.member("mm_struct", made.first.mm, "pgd"), 4096)
    (gap,) = validated(pins_document(made.pins()))["not_searched"]
    assert gap["searched"] == "page_tables"
    assert "NOT SEARCHED: page tables at " in pins_text(made.pins())


def test_one_page_has_no_sum() -> None:
    made = used("7.2")
    found = made.pins(FIRST)
    assert validated(pins_document(found))["pgmaps"][0]["references"] is None
    assert pins_text(found).endswith(f"PFN {FIRST:#x} is used")
    assert pins_text(made.pins(FIRST + 1)).endswith(f"PFN {FIRST + 1:#x} is not used")


@pytest.mark.parametrize("lines", [8, 12, 23])
@pytest.mark.parametrize("columns", [60, 80, None])
def test_a_screen_has_room_for_it(lines: int, columns: int | None) -> None:
    screen = Screen(lines, columns)
    text = pins_text(used("7.2").pins(), screen=screen)
    assert height(text, screen) <= lines
    assert text.endswith("tasks wait")
    assert is_folded(text) == (lines < 20)


def test_names_from_the_dump_are_escaped() -> None:
    made = machine("7.2")
    made.users.rename(made.first.task, "\x1b[31mred", 100)
    made.set_used(FIRST, others=1)
    made.users.pipe(made.first, [FIRST])
    found = made.pins()
    assert "\x1b" not in pins_text(found)
    assert "\\x1b[31mred (PID 100)" in pins_text(found)


def test_processes_that_share_their_memory_are_named_together() -> None:
    made = mapped_file("7.2")
    made.kernel.poke_member("task_struct", made.second.task, "mm", made.first.mm)
    assert "first (PID 100) and second (PID 101) map 1 page, VMA" in pins_text(made.pins())


def test_results_print_themselves() -> None:
    made = used("7.2")
    found: Pins = made.pins()
    assert str(found) == pins_text(found)
    (pgmap,) = found.pgmaps
    assert "of first (PID 100)" in str(pgmap.uses[0])
    assert pgmap.uses[0].page.value_() == made.kernel.page(FIRST)
