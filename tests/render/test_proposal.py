# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn.commands import run_command
from support.fakekernel import collision, in_flight, partial
from support.kernels import each_layout
from support.schema import validated

from drgn_zonedev import plugin
from drgn_zonedev.pfn_proposal import VARIANTS, ProposalReport, proposal
from drgn_zonedev.render.proposal import proposal_document, proposal_text
from drgn_zonedev.render.screen import NARROWED, Screen

SCENES = {"collision": collision, "in_flight": in_flight, "partial": partial}


@each_layout
@pytest.mark.parametrize("scene", SCENES)
def test_documents_conform_to_the_schema(layout: str, scene: str) -> None:
    document = validated(proposal_document(proposal(SCENES[scene](layout).program())))
    assert [v["name"] for v in document["variants"]] == [v.name for v in VARIANTS]


def test_the_document_holds_every_mistake() -> None:
    document = validated(proposal_document(proposal(collision("6.1").program())))
    (late,) = (v for v in document["variants"] if v["name"] == "late-bit")
    assert late["false_yes"] == {"reserved": 2, "metadata": 0x3FE}
    assert late["false_no"] == {}
    assert late["wrong"][0] == {
        "start_pfn": 0x24000,
        "end_pfn": 0x24002,
        "case": "reserved",
        "number": 5,
        "answer": True,
    }


def test_text_shows_who_is_wrong_where_and_what_it_costs() -> None:
    text = proposal_text(proposal(collision("6.1").program()))
    answers, cost = (line for line in text.splitlines() if line.startswith("late-bit  "))
    assert "2 reserved (5), 1022 metadata" in answers
    assert "64 KiB" in cost
    assert "[0x20000, 0x24000) online, 16384 pages: yes, takes RAM for it" in text
    assert "[0x24000, 0x24002) reserved (5), 2 pages: yes, reads unpromised struct pages" in text


@pytest.mark.parametrize("columns", [60, 90, 120, 170])
def test_a_pager_gets_all_columns_that_its_screen_has_room_for(columns: int) -> None:
    report = proposal(collision("6.1").program())
    text = proposal_text(report, screen=Screen(24, columns).endless)
    overview = text[: text.index("\nif ")]
    assert max(map(len, overview.splitlines())) <= columns
    # The counts by case take 82 columns.
    assert (NARROWED in text) == (columns == 60)
    assert ("16384 online, 2 reserved (5), 1022 metadata" in overview) == (columns > 60)
    assert ("a flag in the section's word" in overview) == (columns > 100)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    prog = collision("7.2").program()
    plugin.drgn_prog_set(prog)
    assert isinstance(run_command(prog, "zonedev proposal"), ProposalReport)
    assert "two-bits" in capsys.readouterr().out
