# SPDX-License-Identifier: LGPL-2.1-or-later

"""The summary of a store, as text."""

from __future__ import annotations

from collections.abc import Iterator

from drgn_zonedev.fleet.summarise import MachineCount, Summary
from drgn_zonedev.render.cells import table

__all__ = ("bytes_text", "last_line", "machine_text", "summary_text")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_NONE = "none"


def summary_text(summary: Summary) -> str:
    """Render a summary."""
    return "\n\n".join(_parts(summary))


def _parts(summary: Summary) -> Iterator[str]:
    if summary.kernels:
        rows = [(k.release, k.builds, k.dumps, k.with_errors, k.not_judged)
                for k in summary.kernels]  # fmt: skip
        yield table(("KERNEL", "BUILDS", "DUMPS", "WITH ERRORS", "NOT JUDGED"), rows)
    if summary.findings:
        found = [(f.severity, f.slug, f.release, f.dumps, f.pages, _new(summary, f.new))
                 for f in summary.findings]  # fmt: skip
        yield table(("SEVERITY", "FINDING", "KERNEL", "DUMPS", "PAGES", "NEW"), found)
    if summary.bugs:
        bugs = [(b.bug, b.release, b.dumps) for b in summary.bugs]
        yield table(("KNOWN BUG", "KERNEL", "DUMPS"), bugs)
    if summary.machines:
        machines = [(machine_text(m), m.dumps) for m in summary.machines]
        yield table(("DEVICE MEMORY", "DUMPS"), machines)
    if summary.failures:
        failures = [(f.ending, f.path, f.reason) for f in summary.failures]
        yield table(("NOT JUDGED", "DUMP", "WHY"), failures)
    yield last_line(summary)


def _new(summary: Summary, count: int) -> str:
    return "" if summary.is_first_run else str(count)


def machine_text(machine: MachineCount) -> str:
    """How much device memory the machines of a class have."""
    if machine.most == 0:
        return _NONE
    if machine.most is None:
        return f"more than {bytes_text(machine.least)}"
    return f"up to {bytes_text(machine.most)}"


def bytes_text(count: float) -> str:
    """A number of bytes, in the largest unit that leaves one or more."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.3g} {_UNITS[unit]}"


def last_line(summary: Summary) -> str:
    """How many dumps there are, and how many of them were judged."""
    parts = [f"{summary.dumps} dump{'' if summary.dumps == 1 else 's'}", f"{summary.judged} judged"]
    if summary.same:
        parts.append(f"{summary.same} the same as another one")
    if not summary.is_first_run:
        parts.append(f"{summary.new_dumps} new since the last run")
    return ", ".join(parts)
