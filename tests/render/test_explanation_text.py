# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import re

from fakekernel import collision, partial

from drgn_zonedev.explain import explain
from drgn_zonedev.render.explanation_text import explanation_text


def _section(text: str, title: str) -> list[str]:
    return text.split(f"\n{title}\n\n")[1].split("\n\n")[0].splitlines()


def test_explanation_ends_in_a_verdict() -> None:
    text = explanation_text(explain(partial("6.1").program(), 0x114000))
    assert text.splitlines()[-1].startswith("Case 3: ")
    assert "not readable" in text


def test_neighbours_are_above_and_below() -> None:
    text = explanation_text(explain(collision("6.1").program(), 0x24100))
    _, below, here, above, *_ = _section(text, "RANGE")
    assert re.match(r"below +\[0x24000, 0x24002\) +8 KiB +reserved \(5\)", below)
    assert re.match(r"this +\[0x24002, 0x24400\) +4\.0 MiB +metadata", here)
    assert re.match(r"above +\[0x24400, 0x30000\) +188 MiB +device \(2\)", above)


def test_nothing_is_below_the_first_pfn() -> None:
    text = explanation_text(explain(collision("6.1").program(), 0))
    assert [line.split()[0] for line in _section(text, "RANGE")[1:3]] == ["this", "above"]


def test_words_are_shown_with_their_addresses_and_once() -> None:
    kernel = collision("6.1")
    text = explanation_text(explain(kernel.program(), 0x24400))
    lines = _section(text, "WHAT THE KERNEL WOULD SAY")
    (nr_range,) = (line for line in lines if "pgmap->nr_range" in line)
    assert nr_range.endswith("= 0x1")
    assert sum("section_mem_map @" in line for line in lines) == 1


def test_what_differs_is_marked_and_nothing_else() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x25000, 1, 0xFFFF888000000000)
    lines = _section(explanation_text(explain(kernel.program(), 0x25000)), "STRUCT PAGE")
    (marked,) = (line for line in lines if line.endswith("DIFFERS"))
    assert marked.startswith("+08   page->pgmap ")
    assert "0xffff888000000000" in marked


def test_reason_of_what_cannot_be_read_is_given_once_for_each_answer() -> None:
    kernel = collision("6.1")
    kernel.unmap_memmap(0x24400, 0x24440)
    text = explanation_text(explain(kernel.program(), 0x24400))
    (line,) = (
        line
        for line in _section(text, "WHAT THE KERNEL WOULD SAY")
        if "is_zone_device_page()" in line
    )
    assert re.match(r"is_zone_device_page\(\) +\? +cannot be read: ", line)
