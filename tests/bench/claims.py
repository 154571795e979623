# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must hold."""

from __future__ import annotations

from .measure import Claim
from .ram import SMALLER

__all__ = ("CLAIMS", "LINEAR", "claims")


def claims(sizes: tuple[int, ...]) -> list[Claim]:
    """All of them; ``sizes`` are those of the machines, in TiB, in ascending order."""
    small, large = sizes[0], sizes[-1]
    return [*CLAIMS, *_DEVICES, *_metadata(large), _linear(small, large)]


CLAIMS = (
    Claim(
        "verifying 4 KiB device pages is as fast as reading them, but for a factor",
        "verify, 4 KiB pages",
        "raw read",
        "ratio",
        "at most",
        2.5,
    ),
    Claim(
        "it is faster than a loop over drgn's objects",
        "drgn objects",
        "verify, 4 KiB pages",
        "ratio",
        "at least",
        200,
    ),
    Claim(
        "it is faster than crash's kmem -p, which checks nothing",
        "crash kmem -p",
        "verify, 4 KiB pages",
        "ratio",
        "at least",
        10,
    ),
    Claim(
        "of a devdax memmap with 2 MiB pages, only a part is read",
        "bytes read, 2 MiB pages",
        None,
        "ratio",
        "at most",
        1 / 3,
    ),
    Claim(
        "of a devdax memmap with 1 GiB pages, hardly anything is read",
        "bytes read, 1 GiB pages",
        None,
        "ratio",
        "at most",
        1 / 100,
    ),
    Claim(
        "two processes decompress a large dump faster than one",
        "check --jobs 1, large kdump",
        "check --jobs 2, large kdump",
        "ratio",
        "at least",
        1.7,
    ),
    Claim(
        "on a small dump, the tool does not start processes to be slower",
        "check --jobs 1, small kdump",
        "check, small kdump",
        "ratio",
        "at least",
        0.95,
    ),
    Claim(
        "memory on top of drgn's, large dump (MiB)",
        "memory of zonedev check, large",
        "memory of drgn -e pass, large",
        "difference",
        "at most",
        100,
    ),
    Claim(
        "memory on top of drgn's, small dump (MiB)",
        "memory of zonedev check, small",
        "memory of drgn -e pass, small",
        "difference",
        "at most",
        100,
    ),
    Claim(
        "a whole check of a 1 GiB guest takes little longer than a drgn that does nothing",
        "zonedev check",
        "drgn -e pass",
        "ratio",
        "at most",
        1.5,
    ),
    Claim(
        "with RAM, it takes little longer than of devices only",
        "zonedev check",
        "zonedev check --only devices",
        "ratio",
        "at most",
        1.3,
    ),
    Claim(
        "verifying RAM in use is as fast as reading its struct pages, but for a factor",
        "verify, RAM",
        "raw read, RAM",
        "ratio",
        "at most",
        3,
    ),
    Claim(
        "a census is as fast as reading the struct pages, but for a factor",
        "census",
        "raw read, census",
        "ratio",
        "at most",
        3,
    ),
    Claim(
        "memory of a census on top of drgn's (MiB)",
        "memory of zonedev pages, RAM",
        "memory of drgn -e pass, RAM",
        "difference",
        "at most",
        100,
    ),
    Claim(
        "a TiB of RAM takes no longer per GiB than a part of it",
        "verify, a TiB of RAM",
        "verify, a part of that",
        "ratio",
        "at most",
        1.25 * SMALLER,
    ),
    Claim(
        "memory that verifying a TiB of RAM takes (MiB)",
        "memory of verify, a TiB of RAM",
        None,
        "ratio",
        "at most",
        100,
    ),
    Claim(
        "a survey with two processes is faster than with one",
        "survey -j 1",
        "survey -j 2",
        "ratio",
        "at least",
        1.6,
    ),
    Claim(
        "everybody's REPL starts as fast with the plugin as without",
        "REPL with the plugin",
        "REPL without the plugin",
        "ratio",
        "at most",
        1.25,
    ),
    Claim(
        "so does one that imports drgn_zonedev",
        "REPL that imports drgn_zonedev",
        "REPL without the plugin",
        "ratio",
        "at most",
        1.25,
    ),
    Claim(
        "a check of a 1 GiB guest takes no longer without vmlinux",
        "check without vmlinux",
        "check with vmlinux",
        "ratio",
        "at most",
        1,
    ),
    Claim(
        "memory that it takes in all (MiB)",
        "memory of check without vmlinux",
        None,
        "ratio",
        "at most",
        150,
    ),
    Claim(
        "a REPL without vmlinux starts as fast with the plugin as without",
        "REPL without vmlinux, with the plugin",
        "REPL without vmlinux, without the plugin",
        "ratio",
        "at most",
        1.25,
    ),
)


_DEVICES = tuple(
    Claim(text, f"{what}, a TiB in {size} pages", None, "ratio", "at most", limit)
    for size, share in (("2 MiB", 1 / 3), ("1 GiB", 1 / 100))
    for text, what, limit in (
        (f"the same of a TiB in {size} pages, page tables included", "bytes read", share),
        (f"memory that verifying a TiB in {size} pages takes (MiB)", "memory of verify", 100),
    )
)


def _metadata(large: int) -> tuple[Claim, ...]:
    name = f"classify, {large} TiB"
    return (
        Claim(
            f"{large} TiB are classified as fast as their metadata is read, but for a factor",
            name,
            f"raw read of the metadata, {large} TiB",
            "ratio",
            "at most",
            20,
        ),
        Claim(
            "that is faster than with drgn's objects, section by section",
            f"drgn objects, {large} TiB",
            name,
            "ratio",
            "at least",
            20,
        ),
        Claim(
            f"memory that classifying {large} TiB takes (MiB)",
            f"memory of {name}",
            None,
            "ratio",
            "at most",
            100,
        ),
    )


# What may be lost to caches, which hold small machines and not large ones.
LINEAR = 1.5


def _linear(small: int, large: int) -> Claim:
    return Claim(
        f"time is linear: {large} TiB against {small} TiB",
        f"classify, {large} TiB",
        f"classify, {small} TiB",
        "ratio",
        "at most",
        LINEAR * large / small,
    )
