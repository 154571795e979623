# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What is asked about a damaged dump: a command line, with ``OUT`` for a path that may be
written, or, as the first word, ``%zonedev`` for what is typed in drgn's REPL.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from drgn_zonedev.pfn_walkers import WALKERS

from .image import Image

__all__ = ("OUT", "draw_command", "may_be_refused")

OUT = "{out}"

_Words = tuple[str, ...]
_FORMATS: tuple[_Words, ...] = ((), ("--format", "json"))
_SVG = ("--map", "-o", f"{OUT}.svg")

_NOTATIONS: tuple[Callable[[int], str], ...] = (str, hex)

# Of which /proc/iomem has several, one, or part of a name.
_RESOURCES = (
    "System RAM",
    "Persistent Memory",
    "Persistent Memory (legacy)",
    "namespace0.0",
    "dax0.0",
    "Kernel code",
    "PCI",
    "e",
)


def _check(rng: random.Random, image: Image) -> _Words:
    fail_on = ("--fail-on", rng.choice(["warning", "info", "case3,case4", "pgmap-range"]))
    return "check", *rng.choice(
        [
            (),
            ("--all",),
            ("-v",),
            ("--format", "jsonl"),
            ("--format", "jsonl"),
            ("--format", "junit"),
            ("--format", "junit", *fail_on),
            ("--map",),
            _SVG,
            (*_SVG, *fail_on),
            ("-o", f"{OUT}.txt", *fail_on),
        ]
    )


def _ranges(rng: random.Random, image: Image) -> _Words:
    return "ranges", *rng.choice([*_FORMATS, ("-v",), ("--all",), ("--map",), _SVG])


def _sections(rng: random.Random, image: Image) -> _Words:
    some = [str(rng.choice(image.pfns) >> 15) for _ in range(2)]
    return "sections", *rng.choice([(), ("--all",), some]), *rng.choice(_FORMATS)


def _pgmaps(rng: random.Random, image: Image) -> _Words:
    return "pgmaps", *rng.choice(_FORMATS)


def _pfn(rng: random.Random, image: Image) -> _Words:
    pfn = rng.choice(image.pfns)
    notation = _NOTATIONS[rng.randrange(2)]
    near = max(pfn + rng.randrange(-1024, 1025), 0)
    page = image.vmemmap + 64 * near
    what = rng.choice(
        [
            ("--as", "pfn", notation(pfn)),
            ("--as", "pfn", notation(pfn)),
            (notation(pfn),),
            (notation(near),),
            (hex(near << 12 | rng.randrange(4096)),),
            ("--as", "phys", hex(pfn << 12)),
            (hex(page),),
            ("--as", "page", hex(page + rng.randrange(64))),
            (hex(rng.getrandbits(64)),),
            (notation(rng.getrandbits(rng.randrange(1, 64))),),
            ("--as", rng.choice(["pfn", "phys", "page"]), hex(rng.getrandbits(70))),
            (rng.choice(_RESOURCES),),
            (rng.choice(_RESOURCES),),
        ]
    )
    return "pfn", *what, *rng.choice(_FORMATS)


def _pages(rng: random.Random, image: Image) -> _Words:
    by = rng.choice(["order", "migratetype", "flags", "slab-cache", "pgmap", "memory-block"])
    start = max(rng.choice(image.pfns) - rng.randrange(2048), 0)
    span = f"{start:#x}..{start + rng.randrange(1, 4096):#x}"
    filters = [
        ("--kind", rng.choice(["device", "free", "anon", "kernel"])),
        ("--flag", "lru"),
        ("--refcount", rng.choice([">1", "0", "<0"])),
        ("--limit", "50"),
        (),
    ]
    what = rng.choice(
        [
            (),
            ("--by", by),
            ("--by", by),
            (span, *rng.choice(filters)),
            # JSON of all pages of a device takes as much memory as it is long.
            (rng.choice(_RESOURCES), "--limit", "50"),
        ]
    )
    formats: tuple[_Words, ...] = (*_FORMATS, ("--format", "jsonl"), ("--format", "csv"))
    return "pages", *what, *rng.choice(formats)


def _pins(rng: random.Random, image: Image) -> _Words:
    pfn = rng.choice(image.pfns)
    what = rng.choice([(), (), ("--as", "pfn", hex(pfn)), (rng.choice(_RESOURCES),)])
    return "pins", *what, *rng.choice(_FORMATS)


def _walkers(rng: random.Random, image: Image) -> _Words:
    one = ("--walker", rng.choice(WALKERS).name)
    return "walkers", *rng.choice([*_FORMATS, ("--all",), one])


def _proposal(rng: random.Random, image: Image) -> _Words:
    return "proposal", *rng.choice([*_FORMATS, ("--all",)])


def _export(rng: random.Random, image: Image) -> _Words:
    options: list[_Words] = [(), ("--blank-names",), ("--margin", "0"), ("--all-memmap",)]
    return "export", OUT, *rng.choice(options)


def _repl(rng: random.Random, image: Image) -> _Words:
    kinds = (_check, _ranges, _sections, _pgmaps, _pfn, _pages, _pins, _walkers, _proposal)
    words = rng.choice(kinds)(rng, image)
    return "%zonedev", *words, *rng.choice([(), ("--drgn",), ("--drgn",)])


# An export is worth twenty of anything else.
_KINDS: tuple[tuple[int, Callable[[random.Random, Image], _Words]], ...] = (
    (30, _check),
    (12, _ranges),
    (6, _sections),
    (5, _pgmaps),
    (20, _pfn),
    (12, _pages),
    (8, _pins),
    (9, _walkers),
    (9, _proposal),
    (2, _export),
    (7, _repl),
)


def draw_command(rng: random.Random, image: Image) -> _Words:
    """Draw what is asked."""
    weights, kinds = zip(*_KINDS)
    return tuple(rng.choices(kinds, weights)[0](rng, image))


def may_be_refused(command: Sequence[str], image: Image) -> bool:
    """
    Return whether a command names something that need not exist: then it may be a
    mistake of whoever asked. Nor does an export follow if names cannot all be left out, or of
    memory that an export does not have.
    """
    if {"--blank-names", "--all-memmap"} & set(command):
        return True
    if "pins" in command:
        # A page need not be a device's.
        return len({"--as", *_RESOURCES} & set(command)) > 0
    if "pages" in command:
        # Nor need there be memory.
        return any(".." in word or word in _RESOURCES for word in command)
    if "pfn" not in command:
        return False
    known = {str(pfn) for pfn in image.pfns} | {hex(pfn) for pfn in image.pfns}
    certain = "--as" in command and command[command.index("--as") + 1] == "pfn"
    return not (certain and known & set(command))
