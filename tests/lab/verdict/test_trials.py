# SPDX-License-Identifier: LGPL-2.1-or-later
"""What walkers did, against what is said of them: silent on the truth, loud on any lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.fakekernel import collision

from drgn_zonedev.lab import SCENARIOS, Guest, Kernel
from drgn_zonedev.lab.scenarios.arithmetic import Expected
from drgn_zonedev.lab.truth.answers import Values, Visit
from drgn_zonedev.lab.truth.guest_facts import parse_facts
from drgn_zonedev.lab.verdict import trials
from drgn_zonedev.lab.verdict.trials import (
    PROVED,
    TRIALS,
    Prediction,
    Trial,
    judge_end,
    judge_trial,
    predict_victims,
    trial_scenario,
    trial_text,
    visited_pfns,
    walked_spans,
)
from drgn_zonedev.pfn_walkers import WALKERS, WalkOutcome, judge

NOPAGE, RESERVED = 1 << 20, 1 << 32
REJECTED, NOT_ONLINE, REACHED = "No such device or address", "Input/output error", "Device busy"
SCENARIO = SCENARIOS["fsdax-collision"]
KERNEL = Kernel("6.12", "6.12.1", "1", Path("z"), Path("x"), None, (), None)


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    # A fake kernel has no functions. What tells that memory_failure() asks pgmap_pfn_valid(), real
    # ones from v5.12 on have.
    monkeypatch.setattr(judge, "has_function", lambda prog, name: name == "pgmap_pfn_valid")


# hexdump's words: the lower half comes first.
TOLD = """\
== begin kpageflags_values\r
from 0\r
0 0000000000000001\r
1179648 0010000000000000\r
2097144 end\r
from 128\r
0 0000000700000000\r
262144 end\r
== end kpageflags_values\r
== begin visits\r
memory_failure\t24000\tNo such device or address\r
compaction\t-\tok\r
== end visits\r
"""


def test_what_the_guest_tells_is_parsed() -> None:
    facts = parse_facts(TOLD)
    assert facts["kpageflags_values"] == (
        Values(0, 0x24000, 1 << 32),
        Values(0x24000, 0x3FFFF, 1 << 20),
        Values(128 << 15, 129 << 15, 7),
    )
    assert facts["visits"] == (
        Visit("memory_failure", 0x24000, "No such device or address"),
        Visit("compaction", None, "ok"),
    )


def guest_of(layout: str) -> dict[str, Any]:
    """What real guests of fsdax-collision tell. Before v5.12, half of it is online."""
    shared, other = (RESERVED, NOPAGE) if layout == "5.10" else (NOPAGE, NOPAGE)
    return {
        "kpageflags_values": (
            Values(0, 0x24000, 0),
            Values(0x24000, 0x28000, shared),
            Values(0x28000, 0x30000, other),
            Values(0x30000, 0x40000, 0),
        ),
        "kpagecount_values": (Values(0, 0x40000, 0),),
        "visits": (
            Visit("memory_failure", 0x24000, REJECTED),
            Visit("soft_offline_page", 0x24000, NOT_ONLINE),
            Visit("memory_failure", 0x24002, REJECTED),
            Visit("hwpoison_inject", 0x24400, REACHED),
            Visit("unpoison_memory", 0x24400, NOT_ONLINE),
            Visit("soft_offline_page", 0x23000, "ok"),
            Visit("compaction", None, "ok"),
        ),
        "visits_log": ("Memory failure: 0x24000",),
    }


def judged(layout: str, facts: dict[str, Any]) -> Trial:
    guest = SimpleNamespace(kernel=KERNEL, facts=facts)
    return judge_trial(cast(Guest, guest), collision(layout).program(), SCENARIO)


def test_what_was_predicted_is_agreed_with() -> None:
    trial = judged("6.1", guest_of("6.1"))
    assert trial.disagreements == ()
    # All that is not RAM; the fake kernel ends its RAM 0x20 pages before the section does.
    assert [(k.file, k.compared, k.undecided) for k in trial.kpage] == [
        ("kpageflags", 0xC000, 0),
        ("kpagecount", 0xC000, 0),
    ]


def test_a_kernel_that_sees_device_pages_is_agreed_with() -> None:
    facts = guest_of("5.10")
    facts["visits"] = ()
    assert judged("5.10", facts).disagreements == ()


@pytest.mark.parametrize("file", ["kpageflags", "kpagecount"])
@pytest.mark.parametrize("pfn", [0x24000, 0x2ABCD, 0x2FFFF])
def test_one_word_that_is_not_as_predicted_is_found(file: str, pfn: int) -> None:
    facts = guest_of("6.1")
    facts[f"{file}_values"] = tuple(
        part
        for run in facts[f"{file}_values"]
        for part in (
            (
                replace(run, end_pfn=pfn),
                Values(pfn, pfn + 1, run.value ^ 1 << 19),
                replace(run, start_pfn=pfn + 1),
            )
            if run.start_pfn <= pfn < run.end_pfn
            else (run,)
        )
    )
    (found,) = judged("6.1", facts).disagreements
    assert (found.about, found.start_pfn, found.end_pfn) == (f"/proc/{file}", pfn, pfn + 1)


def test_a_file_of_another_length_is_found() -> None:
    facts = guest_of("6.1")
    facts["kpagecount_values"] = (Values(0, 0x38000, 0),)
    (found,) = judged("6.1", facts).disagreements
    assert str(found) == "/proc/kpagecount ends at PFN: we say 0x40000, the kernel says 0x38000"


@pytest.mark.parametrize(
    ("walker", "pfn", "said", "ours"),
    [
        ("memory_failure", 0x24000, REACHED, "rejects it"),
        ("memory_failure", 0x24002, "ok", "rejects it"),
        ("memory_failure", 0x24400, REJECTED, "lets it pass"),
        ("soft_offline_page", 0x24400, "ok", "rejects it"),
        ("unpoison_memory", 0x1000, REJECTED, "lets it pass"),
    ],
)
def test_a_guard_that_does_something_else_is_found(
    walker: str, pfn: int, said: str, ours: str
) -> None:
    facts = guest_of("6.1")
    facts["visits"] = (*facts["visits"], Visit(walker, pfn, said))
    (found,) = judged("6.1", facts).disagreements
    assert (found.about, found.ours, found.theirs) == (f"{walker}()'s guard", ours, said)


@pytest.mark.parametrize(
    ("walker", "pfn", "said"),
    [
        # A page of RAM that is in use and cannot be migrated; a PFN without a struct page.
        ("soft_offline_page", 0x1000, NOT_ONLINE),
        ("memory_failure", 0x90000, REACHED),
    ],
)
def test_what_a_guard_cannot_be_told_from_is_left_alone(walker: str, pfn: int, said: str) -> None:
    facts = guest_of("6.1")
    facts["visits"] = (*facts["visits"], Visit(walker, pfn, said))
    assert judged("6.1", facts).disagreements == ()


@pytest.mark.parametrize(
    ("layout", "pfn", "flags"), [("5.10", 0x24001, NOPAGE), ("6.1", 0x24100, RESERVED)]
)
def test_a_bad_page_that_is_seen_where_the_table_says_no_is_found(
    layout: str, pfn: int, flags: int
) -> None:
    facts = guest_of(layout)
    facts["visits"] = ()
    first, shared, *more = facts["kpageflags_values"]
    facts["kpageflags_values"] = (
        first,
        replace(shared, end_pfn=pfn),
        Values(pfn, pfn + 1, flags),
        replace(shared, start_pfn=pfn + 1),
        *more,
    )
    about = {d.about: (d.ours, d.start_pfn) for d in judged(layout, facts).disagreements}
    assert about["/proc/kpageflags sees a bad page"] == ("yes" if layout == "5.10" else "no", pfn)


# --- arranging it ---


def test_what_the_table_calls_proved_is_what_trials_compare() -> None:
    assert {walker.name for walker in WALKERS if walker.proof} == set(PROVED)


def test_walkers_are_sent_to_the_first_pfn_of_every_range_and_to_ram() -> None:
    assert visited_pfns(SCENARIO) == (0x24000, 0x24002, 0x24400, 0x3F000)
    scenario = trial_scenario(KERNEL, SCENARIO)
    assert scenario.steps == (
        *SCENARIO.steps,
        ("kpage",),
        ("walkers", "24000", "24002", "24400", "3f000"),
    )
    assert scenario.modules == SCENARIO.modules


def test_what_lies_between_ram_and_a_device_far_up_is_not_walked() -> None:
    far = SCENARIOS["device-private"]
    (device,) = far.expected
    assert walked_spans(far) == ((0, 0x40000), (device.start_pfn, device.end_pfn))
    step = ("kpage", "0:8", f"{device.start_pfn >> 15}:2")
    assert step in trial_scenario(KERNEL, far).steps


def test_words_of_parts_of_the_files_are_compared() -> None:
    far = replace(SCENARIO, expected=(*SCENARIO.expected, Expected(1 << 25, 1 << 26, "partial")))
    facts = guest_of("6.1")
    # What is beyond the end of the files cannot be read.
    guest = SimpleNamespace(kernel=KERNEL, facts=facts)
    trial = judge_trial(cast(Guest, guest), collision("6.1").program(), far)
    assert trial.disagreements == ()
    assert [k.compared for k in trial.kpage] == [0xC000, 0xC000]
    facts["kpageflags_values"] = facts["kpageflags_values"][1:]
    trial = judge_trial(cast(Guest, guest), collision("6.1").program(), far)
    assert [d.about for d in trial.disagreements] == ["/proc/kpageflags ends at PFN"]


def test_a_module_is_loaded_only_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/mm/hwpoison-inject.ko.xz:\n")
    kernel = replace(KERNEL, modules=tmp_path)
    assert trial_scenario(kernel, SCENARIO).modules == (*SCENARIO.modules, "hwpoison_inject")
    (tmp_path / "modules.dep").write_text("kernel/mm/other.ko.xz:\n")
    assert trial_scenario(kernel, SCENARIO).modules == SCENARIO.modules


def test_trials_end_where_walkers_can_be_run() -> None:
    assert all(not SCENARIOS[name].breakpoint for name in TRIALS)


def test_a_trial_can_be_read() -> None:
    facts = guest_of("6.1")
    text = trial_text(judged("6.1", facts))
    assert "memory_failure at PFN 0x24000: No such device or address" in text
    assert "compaction at all memory: ok" in text
    assert text.endswith("all as predicted")
    facts["visits"] = (Visit("memory_failure", 0x24000, "\x1b[31m"),)
    text = trial_text(judged("6.1", facts), verbose=True)
    assert "DIFFERS: PFNs 0x24000-0x24001: memory_failure()'s guard: we say rejects it" in text
    assert "\x1b" not in text
    assert text.endswith("Memory failure: 0x24000")


def test_a_panic_and_what_is_not_possible_are_said() -> None:
    assert trial_text(Trial(KERNEL, SCENARIO, panic="BUG: x")).endswith("panicked: BUG: x")
    assert trial_text(Trial(KERNEL, SCENARIO, impossible="no")).endswith("not possible: no")


# --- victims ---

HOLE = SCENARIOS["acpi-hole"]
VICTIM = HOLE.victims[0]
FATAL, HARMLESS = WalkOutcome.WILD_ZONE, WalkOutcome.FALSE_ZONE


@pytest.mark.parametrize(
    ("outcome", "panic", "agree"),
    [
        (FATAL, "BUG: x", True),
        (FATAL, "", False),
        (HARMLESS, "", True),
        (HARMLESS, "BUG: x", False),
        (None, "", True),
        (None, "BUG: x", False),
    ],
)
def test_end_of_a_guest_is_compared_with_what_was_predicted(
    outcome: WalkOutcome | None, panic: str, agree: bool
) -> None:
    predicted = (Prediction(VICTIM, outcome),)
    trial = Trial(KERNEL, HOLE, panic=panic, predicted=predicted)
    trial = replace(trial, disagreements=tuple(judge_end(trial)))
    assert (trial.disagreements == ()) == agree
    text = trial_text(trial)
    assert f"predicted of memory failure at PFN {VICTIM:#x}: " in text
    assert ("the guest panicked: BUG: x" in text) == bool(panic)
    assert text.endswith("all as predicted") == agree


def test_nothing_bad_is_predicted_of_ram() -> None:
    (prediction,) = predict_victims(collision("7.2").program(), (0x3F000,))
    assert prediction == Prediction(0x3F000, None)
    assert not prediction.is_panic


def test_what_is_not_ram_is_handled_by_a_walker_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Since v6.3, it asks the node of a struct page that nobody wrote.
    prog = collision("7.2").program()
    (prediction,) = predict_victims(prog, (0x24000,))
    assert prediction.outcome is not None
    # A kernel that asks pfn_zone_device() before that does not.
    monkeypatch.setattr(trials, "shows_devices", lambda prog: True)
    assert predict_victims(prog, (0x24000,)) == (Prediction(0x24000, None),)
