# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drgn_zonedev.known_bugs.bugs import AS_OF, BUGS, affected, release_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("slug", "release", "answer"),
    [
        ("devdax-tails-uninitialized", "5.18.9", False),
        ("devdax-tails-uninitialized", "5.19.0", True),
        ("devdax-tails-uninitialized", "6.1.176", True),
        ("devdax-tails-uninitialized", "6.1.184", False),
        ("devdax-tails-uninitialized", "6.1.192", False),
        ("devdax-tails-uninitialized", "6.5.13", True),
        ("devdax-tails-uninitialized", "7.1.4", True),
        ("devdax-tails-uninitialized", "7.1.5", False),
        ("devdax-tails-uninitialized", "7.3.4", False),
        # Debian's number is that of its ABI.
        ("devdax-tails-uninitialized", "6.1.0-56-cloud-amd64", None),
        ("devdax-tails-uninitialized", "7.3.4-cloud-amd64", False),
        ("devdax-tails-uninitialized", "5.14.0-70.el9.x86_64", False),
        ("collision-untainted", "5.10.0-32-cloud-amd64", True),
        ("collision-untainted", "5.12.0", False),
        ("collision-untainted", "5.12.0-rc1", None),
        ("zone-of-reserved-hole", "7.3.4", True),
        ("zone-of-reserved-hole", "5.4.0", False),
        ("kpageflags-reads-reserve", "5.2.0", True),
        ("kpageflags-reads-reserve", "5.3.9", None),
        ("kpageflags-reads-reserve", "5.4.1", False),
        ("sections-left-behind", "next", None),
        ("sections-left-behind", None, None),
    ],
)
def test_a_release_decides_what_it_can(slug: str, release: str | None, answer: bool | None) -> None:
    assert affected(BUGS[slug], release) is answer


def test_releases_are_read() -> None:
    assert release_of("6.12.107-1-cloud") == ((6, 12, 107), True)
    assert release_of("6.1.0-13-amd64") == ((6, 1, 0), False)
    assert release_of("7.3-rc1") == ((7, 3, 0), False)
    assert release_of("linux") is None


@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.slug)
def test_an_entry_is_whole(bug: object) -> None:
    from drgn_zonedev.known_bugs.bugs import KnownBug

    assert isinstance(bug, KnownBug)
    assert (bug.fix is None) == (bug.fixed is None)
    for commit in (bug.introduced, bug.fix):
        assert commit is None or re.fullmatch(r"[0-9a-f]{12}", commit.hash)
    # Each stable series has the bug, and one fix.
    assert all(bug.since <= version[:2] for version in bug.stable)
    assert len({version[:2] for version in bug.stable}) == len(bug.stable)
    assert bug.fixed is None or all(version[:2] < bug.fixed for version in bug.stable)
    assert bug.consequence
    assert bug.cure


def test_the_date_is_one() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", AS_OF)


def test_the_book_has_every_bug() -> None:
    text = (DOCS / "bugs.md").read_text(encoding="utf-8")
    for bug in BUGS.values():
        assert f"`{bug.slug}`" in text
        for commit in (bug.introduced, bug.fix):
            assert commit is None or commit.hash in text, bug.slug
    assert AS_OF in text
