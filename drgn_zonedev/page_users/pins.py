# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pins
----

What keeps the pages of a device, as plain data.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from drgn_zonedev.kernel.page_holders import PageHolder
from drgn_zonedev.kernel.rmap import MappingKind
from drgn_zonedev.kernel.tasks import Process
from drgn_zonedev.model import KernelFacts, Pgmap
from drgn_zonedev.util.handles import OfPage, Result

__all__ = (
    "Awaited",
    "Gap",
    "HeldBy",
    "MappedBy",
    "OpenedBy",
    "PageOwner",
    "PgmapPins",
    "Pins",
    "ReferenceSum",
    "Searched",
    "Sleeper",
    "UsedPages",
    "Waiter",
)


class Searched(enum.Enum):
    """What a part of the search was about; the value is for people."""

    STRUCT_PAGES = "struct pages"
    OWNER = "the file or anonymous memory of pages"
    VMAS = "VMAs that may map pages"
    PAGE_TABLES = "page tables"
    PROCESSES = "processes"
    OPEN_FILES = "open files that hold pages"
    WAITERS = "tasks that wait"
    DEBUGINFO = "debugging information"


@dataclass(frozen=True)
class Gap:
    """
    A part of the search that could not be done, because of what is at ``address``, if that
    is known: users may be missing.
    """

    searched: Searched
    address: int | None
    reason: str


@dataclass(frozen=True)
class PageOwner:
    """
    What pages belong to. ``address`` is that of the ``struct address_space`` or
    ``anon_vma``, or 0; ``path`` is untrusted text from the kernel, escaped.
    """

    kind: MappingKind
    address: int
    inode: int | None = None
    path: str | None = None


@dataclass(frozen=True)
class MappedBy:
    """
    Processes that share an address space, and a VMA of it that maps ``pages`` of some pages,
    ``None`` if the VMA covers them and it is not known whether it maps them. Without a
    process, the address space belongs to none that could be found.
    """

    processes: tuple[Process, ...]
    mm: int
    start: int
    end: int
    path: str | None
    pages: int | None


@dataclass(frozen=True)
class OpenedBy:
    """A process that has a file open."""

    process: Process
    fd: int


@dataclass(frozen=True)
class HeldBy:
    """A pipe or an io_uring that keeps ``references`` to some pages, and who has it open."""

    holder: PageHolder
    opened_by: tuple[OpenedBy, ...]
    references: int


@dataclass(frozen=True, repr=False)
class UsedPages(OfPage):
    """
    Pages that are used in the same way: folios of ``1 << order`` pages each.

    ``references``, ``pins`` and ``mappings`` are those of each folio, and ``idle`` is how many
    references it has while it is not used. ``index`` is that of the first page in its file.
    Of all folios together, ``unknown_references`` and ``unknown_pins`` have no user that was
    found, and ``unknown_mappings`` no VMA. If there are any, ``sleepers`` are those of the
    processes that map them: they may wait for I/O with these pages.
    """

    start_pfn: int
    end_pfn: int
    order: int
    references: int
    idle: int
    pins: int
    mappings: int
    owner: PageOwner
    index: int
    mapped_by: tuple[MappedBy, ...]
    held_by: tuple[HeldBy, ...]
    unknown_references: int
    unknown_pins: int
    unknown_mappings: int
    sleepers: tuple[Sleeper, ...] = ()

    def __repr__(self) -> str:
        return f"<UsedPages of PFNs [{self.start_pfn:#x}, {self.end_pfn:#x})>"

    @property
    def pages(self) -> int:
        """How many pages these are."""
        return self.end_pfn - self.start_pfn

    @property
    def folios(self) -> int:
        """How many folios these are."""
        return self.pages >> self.order

    @property
    def is_held(self) -> bool:
        """Whether they have more references than idle ones."""
        return self.references > self.idle

    @property
    def has_unknown_user(self) -> bool:
        """Whether a reference, pin or mapping has no user that was found."""
        return bool(self.unknown_references or self.unknown_pins or self.unknown_mappings)


@dataclass(frozen=True)
class ReferenceSum:
    """
    The references to a pgmap: ``initial`` is that of ``percpu_ref_init()``, ``of_pages`` those
    that ``memremap_pages()`` takes for its pages, and ``of_users`` those that its pages have
    taken while they are used. ``found`` is what the kernel counts, ``None`` if that cannot be
    read.
    """

    initial: int
    of_pages: int
    of_users: int
    found: int | None

    @property
    def expected(self) -> int:
        """What the pages account for."""
        return self.initial + self.of_pages + self.of_users


@dataclass(frozen=True)
class Sleeper:
    """
    A process that maps pages, and a thread of it that sleeps in the kernel and cannot be
    interrupted. ``stack`` has the names of functions, the innermost first.
    """

    process: Process
    stack: tuple[str, ...]


class Awaited(enum.Enum):
    """What a task waits for; the value is for people."""

    REMOVAL = "the last reference to the pgmap"
    PAGE = "a page that is used"


@dataclass(frozen=True)
class Waiter:
    """
    A task that waits. ``stack`` has the names of functions, the innermost first; it is empty
    if it cannot be unwound. ``pfn`` is the page that it waits for, if it is one.
    """

    process: Process
    awaited: Awaited
    pfn: int | None
    stack: tuple[str, ...]


@dataclass(frozen=True)
class PgmapPins:
    """
    The users of a pgmap's pages, of which ``pages`` were looked at. The sum of references is
    about all of them: it is ``None`` if one was asked about.
    """

    pgmap: Pgmap
    pages: int
    references: ReferenceSum | None
    uses: tuple[UsedPages, ...]
    waiters: tuple[Waiter, ...]

    @property
    def used_pages(self) -> int:
        """How many of its pages are used."""
        return sum(use.pages for use in self.uses)

    @property
    def is_kept(self) -> bool:
        """Whether something uses its pages, or waits for that to end."""
        return bool(self.uses or self.waiters)


@dataclass(frozen=True, repr=False)
class Pins(Result):
    """
    What keeps the pages of devices. ``pfn`` is the page that was asked about, ``None`` for all
    of the pgmaps. ``gaps`` are parts of the search that could not be done.
    """

    kernel: KernelFacts
    pfn: int | None
    pgmaps: tuple[PgmapPins, ...]
    gaps: tuple[Gap, ...]

    def __repr__(self) -> str:
        used = sum(pgmap.used_pages for pgmap in self.pgmaps)
        return f"<Pins of {len(self.pgmaps)} pgmaps: {used} pages are used>"

    @property
    def is_kept(self) -> bool:
        """Whether anything uses the pages, or waits for that to end."""
        return any(pgmap.is_kept for pgmap in self.pgmaps)
