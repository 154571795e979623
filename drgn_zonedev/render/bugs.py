# SPDX-License-Identifier: LGPL-2.1-or-later

"""What every view says of a known bug."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drgn_zonedev.known_bugs.bugs import AS_OF, BUGS, KnownBug

__all__ = ("bug_lines", "fix_text", "releases_text")


def bug_lines(slugs: Iterable[str]) -> Iterator[str]:
    """Get a line for each known bug: its name, and which releases have its fix."""
    for slug in slugs:
        yield f"    known bug: {slug}: {fix_text(BUGS[slug])}"


def fix_text(bug: KnownBug) -> str:
    """Say what fixes a bug, and where that is."""
    if bug.fix is None or bug.fixed is None:
        return f"no fix known as of {AS_OF}"
    return f"fixed by {bug.fix} in {releases_text(bug)}"


def releases_text(bug: KnownBug) -> str:
    """Name the first fixed releases, mainline first."""
    if bug.fixed is None:
        return "none"
    versions = (bug.fixed, *sorted(bug.stable))
    return ", ".join(".".join(map(str, version)) for version in versions)
