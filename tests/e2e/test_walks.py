# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real PFN walkers meet real bad pages, and do what we say they do."""

from __future__ import annotations

import pytest

from drgn_zonedev.known_bugs.in_logs import known_bugs_of_log
from drgn_zonedev.lab import LabError, fetch_kernel
from drgn_zonedev.lab.verdict.trials import run_trial
from drgn_zonedev.oops_log.answer import read_log

pytestmark = pytest.mark.qemu

DEVICE_PAGES = 0xC000


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "7.3"])
def test_walkers_do_as_predicted_at_a_collision(kernel: str) -> None:
    trial = run_trial(fetch_kernel(kernel), "fsdax-collision")
    assert (trial.impossible, trial.panic) == ("", "")
    assert trial.disagreements == ()
    assert [(k.file, k.compared, k.undecided) for k in trial.kpage] == [
        ("kpageflags", DEVICE_PAGES, 0),
        ("kpagecount", DEVICE_PAGES, 0),
    ]
    said = {(visit.walker, visit.pfn): visit.said for visit in trial.visits}
    assert said["compaction", None] == "ok"
    if kernel == "7.3":
        # Only this one has CONFIG_MEMORY_FAILURE. It reaches the data, and nothing in front of it.
        assert said["memory_failure", 0x24000] == "No such device or address"
        assert said["memory_failure", 0x24002] == "No such device or address"
        assert said["memory_failure", 0x24400] == "Device or resource busy"


longer = pytest.mark.long("two guests more; 7.3 panics in every run, and 6.12 survives")
# Since memory failure changes the zone of a page first, from v6.14 on.
PANICS = ("7.2", "7.3")


@pytest.mark.parametrize(
    "kernel", ["6.12", "7.3", *(pytest.param(k, marks=longer) for k in ("5.10", "6.1", "7.2"))]
)
def test_memory_failure_of_a_page_without_a_zone_ends_as_predicted(kernel: str) -> None:
    trial = run_trial(fetch_kernel(kernel), "acpi-hole")
    if kernel in ("5.10", "6.1"):
        assert trial.impossible == "this kernel has no hard_offline_page"
        return
    assert [(p.pfn, p.is_panic) for p in trial.predicted] == [(0x3FFDF, kernel in PANICS)]
    assert trial.disagreements == ()
    if kernel in PANICS:
        assert trial.panic.startswith("BUG: unable to handle page fault")
        # The log of that boot says which page it was about, and which bug it is.
        log = read_log(trial.console.encode())
        assert known_bugs_of_log(log) == ("zone-of-reserved-hole",)
        assert [hole for boot in log.boots for hole in boot.reserved_holes] == [(0x3FFDF, 0x3FFE3)]
    else:
        assert trial.panic == ""
        assert [(v.pfn, v.said) for v in trial.visits] == [(0x3FFDF, "Device or resource busy")]


@pytest.mark.long("two guests; unit tests judge such an end")
def test_memory_failure_of_a_page_that_nobody_initialised_ends_as_predicted() -> None:
    # The reserve of a device whose media were full of 0xa5: so are its struct pages.
    trial = run_trial(fetch_kernel("7.3"), "dirty-media")
    assert [(p.pfn, p.is_panic) for p in trial.predicted] == [(0x100000, True)]
    assert trial.disagreements == ()
    assert trial.panic.startswith("BUG: unable to handle page fault")
    assert known_bugs_of_log(read_log(trial.console.encode())) == ("memory-failure-node",)


@pytest.mark.long("two kernels that take long to build, and four guests")
@pytest.mark.parametrize(("kernel", "panics"), [("7.3-small", True), ("7.3-mended", False)])
def test_panic_is_gone_where_the_zone_loop_is_mended(kernel: str, panics: bool) -> None:
    try:
        built = fetch_kernel(kernel)
    except LabError as error:
        pytest.skip(str(error))
    trial = run_trial(built, "acpi-hole")
    assert [(p.pfn, p.is_panic) for p in trial.predicted] == [(0x3FFDF, panics)]
    assert bool(trial.panic) == panics
    assert trial.disagreements == ()
