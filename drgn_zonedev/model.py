# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Model
-----

The tool's results as plain data. All output is a rendering of a :class:`Report`.
Nothing here depends on drgn, except that :mod:`drgn_zonedev.util.handles` gets the
drgn objects that results are about.

PFN ranges are half-open: ``[start_pfn, end_pfn)``. Addresses, PFNs and words
are plain ``int``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from drgn import Object

from drgn_zonedev.util.handles import OfPage, OfPgmap, Result

__all__ = (
    "CASES",
    "EVERYTHING",
    "Access",
    "Altmap",
    "Case",
    "Coverage",
    "Evidence",
    "EvidenceKind",
    "Finding",
    "FreeBlocks",
    "KernelFacts",
    "Memmap",
    "MemmapMemory",
    "MemmapPart",
    "MemoryKind",
    "Missing",
    "PageCounts",
    "Pgmap",
    "PgmapDevice",
    "PgmapRange",
    "Provenance",
    "Range",
    "RefState",
    "Report",
    "Scope",
    "Severity",
    "Unjudged",
    "lacks_memmap",
)


class Case(enum.Enum):
    """
    What a range of PFNs is.

    The five cases of the September 2019 mail keep their numbers; the others are
    states that real kernels added. A case equals its string: ``range.case == "device"``.
    """

    ONLINE = "online"
    OFFLINE = "offline"
    DEVICE = "device"
    PARTIAL = "partial"
    INITIALIZING = "initializing"
    RESERVED = "reserved"
    METADATA = "metadata"
    TEARDOWN = "teardown"
    ORPHAN = "orphan"
    GHOST = "ghost"
    UNKNOWN = "unknown"

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, str) and self.value == other)

    def __hash__(self) -> int:
        # It equals the string, so it needs the same hash.
        return hash(self._value_)

    @property
    def number(self) -> int | None:
        """The case's number in the 2019 mail, or ``None`` if the mail did not list it."""
        return _CASE_NUMBERS.get(self)


# Columns hold indices into this.
CASES = tuple(Case)

_CASE_NUMBERS = {
    Case.OFFLINE: 1,
    Case.DEVICE: 2,
    Case.PARTIAL: 3,
    Case.INITIALIZING: 4,
    Case.RESERVED: 5,
}


class Memmap(enum.Enum):
    """Whether a range has struct pages, by its metadata (not by reading them)."""

    MAPPED = "mapped"
    """Populated: by its subsection bit, or in an early section, whose memmap is complete."""
    UNMAPPED = "unmapped"
    """Not populated: reading a ``struct page`` here also faults on a running kernel."""
    UNKNOWN = "unknown"
    """The structures that decide this could not be read."""


class Access(enum.Enum):
    """
    Whether the memory behind struct pages may be read. "Online" is not "readable": the case says
    whether struct pages are initialised, and this says what reading the memory would do.
    """

    READABLE = "readable"
    OFFLINE = "logically offline"
    """The memory block is offline, or PageOffline(): a hypervisor or balloon may have taken it."""
    HWPOISON = "hwpoison"
    """PageHWPoison(), or that of its compound page: reading it may raise a machine check."""
    UNACCEPTED = "unaccepted"
    """The guest has not accepted it yet (PageUnaccepted())."""
    MMIO = "MMIO"
    """It belongs to a PCI device, where a read may have side effects (P2PDMA)."""
    NO_MEMORY = "no memory"
    """Processors have nothing there (device-private memory)."""
    STRUCT_PAGES = "holds struct pages"
    UNKNOWN = "unknown"


class MemmapMemory(enum.Enum):
    """The memory that struct pages are in, by the page tables; the value is for people."""

    RAM = "RAM"
    ALTMAP = "altmap"
    """On the device itself."""
    BLOCK = "memory block"
    """At the head of the memory block itself (``memmap_on_memory``)."""
    ANOTHER = "another device or block"
    """Where another device, or another memory block, stores its own."""
    ASTRAY = "astray"
    """Where no struct pages can be."""
    UNMAPPED = "nothing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class MemmapPart:
    """
    PFNs whose struct pages are in the same kind of memory, mapped by pages of the same size, in
    bytes; ``None`` if that is not known.
    """

    start_pfn: int
    end_pfn: int
    memory: MemmapMemory
    page_size: int | None

    def is_like(self, other: MemmapPart) -> bool:
        """Return whether both are equal except for their PFNs."""
        return (self.memory, self.page_size) == (other.memory, other.page_size)


class Severity(enum.Enum):
    """
    How bad a :class:`Finding` is.

    ``ERROR``: the kernel broke its own promise. ``WARNING``: a hazard that
    kernels allow. ``INFO``: worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


class EvidenceKind(enum.Enum):
    """
    What a fact is about. Those of ``METADATA`` decided a range, and are shown with it;
    the others belong to a finding.
    """

    METADATA = enum.auto()
    PROGRESS = enum.auto()
    """How far ``memremap_pages()`` got."""
    STRUCT_PAGE = enum.auto()
    """A whole struct page."""
    PAGE_COUNT = enum.auto()
    """``value`` is a number of struct pages, not a word or an address."""


@dataclass(frozen=True)
class Evidence:
    """
    One fact that can be checked by hand.

    ``what`` is a C expression or a name, ``address`` is where it was read,
    ``value`` is the value there, and ``expected`` the value that should be there.
    """

    what: str
    address: int | None = None
    value: int | None = None
    expected: int | None = None
    note: str = ""
    kind: EvidenceKind = EvidenceKind.METADATA


@dataclass(frozen=True)
class PgmapRange:
    """One entry of ``dev_pagemap.ranges[]``, as a half-open PFN range."""

    start_pfn: int
    end_pfn: int


@dataclass(frozen=True)
class Altmap:
    """``struct vmem_altmap``; everything is in pages."""

    base_pfn: int
    end_pfn: int
    reserve: int
    free: int
    align: int
    alloc: int

    @property
    def offset(self) -> int:
        """``vmem_altmap_offset()``: pages before the first one that holds data."""
        return self.reserve + self.free


@dataclass(frozen=True)
class RefState:
    """
    State of ``dev_pagemap.ref``.

    ``state`` is ``live``, ``dead``, ``exited``, ``none`` (a NULL pointer, 5.10
    only) or ``unreadable``. ``count`` is the sum of references, or ``None``
    when it could not be computed; it includes transient references.
    """

    state: str
    mode: str | None
    count: int | None


@dataclass(frozen=True)
class PgmapDevice:
    """
    The device that a pgmap was created for; names are untrusted text from the kernel. ``driver``
    is the one that is bound to it, ``module`` the module that this is in, and ``region`` the
    number of the region that a dax or nd device is in, as ``daxctl list`` shows it;
    ``region_device`` is that region, as ``ndctl list`` or ``cxl list`` shows it; ``None`` if
    that is not known, or there is none.
    """

    name: str
    kind: str
    address: int
    disk: str | None = None
    driver: str | None = None
    module: str | None = None
    node: int | None = None
    region: int | None = None
    region_device: str | None = None


@dataclass(frozen=True, repr=False)
class Pgmap(Result):
    """
    A ``struct dev_pagemap`` found in ``pgmap_array``.

    ``ranges`` holds ``nr_range`` initialised ranges and, while
    ``memremap_pages()`` is running, one more that is in progress. The kernel does not
    record how many entries follow. ``resource`` is the name in the resource tree of
    device-private memory, which is untrusted text. Before v5.10, there is one range, and
    ``records_progress`` is false: nothing says whether it is initialised.
    """

    address: int
    type: str
    nr_range: int
    ranges: tuple[PgmapRange, ...]
    in_progress: bool
    vmemmap_shift: int
    flags: int
    altmap: Altmap | None
    ref: RefState
    ops: str | None
    ops_address: int
    owner: str | None
    owner_address: int
    device: PgmapDevice | None = None
    records_progress: bool = True
    resource: str | None = None

    def contains(self, pfn: int) -> bool:
        """Whether a PFN is in one of the ranges."""
        return any(r.start_pfn <= pfn < r.end_pfn for r in self.ranges)

    @property
    def is_settled(self) -> bool:
        """
        Whether the ranges that are not in progress are initialised for sure: the kernel
        records it, or the references that ``memremap_pages()`` takes afterwards, one for each
        page, are there.
        """
        if self.records_progress:
            return True
        pages = sum(r.end_pfn - self.pfn_first(i) for i, r in enumerate(self.ranges))
        return self.ref.count is not None and self.ref.count > pages

    def __repr__(self) -> str:
        spans = ", ".join(f"[{r.start_pfn:#x}, {r.end_pfn:#x})" for r in self.ranges[:1])
        more = f" and {len(self.ranges) - 1} more" if len(self.ranges) > 1 else ""
        return f"<Pgmap {self.address:#x} {self.type} {spans}{more}>"

    def pfn_first(self, index: int) -> int:
        """
        ``pfn_first()``: where the data of a range begins. In the first range, that is
        after the altmap's pages. A damaged altmap can be larger than its range.
        """
        head = self.altmap.offset if self.altmap and index == 0 else 0
        return self.ranges[index].start_pfn + head

    @property
    def object(self) -> Object:
        """``struct dev_pagemap *``"""
        return Object(self.prog, "struct dev_pagemap *", self.address)


@dataclass(frozen=True, repr=False)
class Range(OfPage, OfPgmap):
    """
    A run of PFNs with one case, and the structures that decided it.

    ``access`` says whether the memory may be read: by metadata and, where struct pages were
    looked at, by what each of them says of itself.
    """

    start_pfn: int
    end_pfn: int
    case: Case
    memmap: Memmap
    reason: str
    pgmap: int | None = None
    evidence: tuple[Evidence, ...] = ()
    access: Access = Access.READABLE

    def __repr__(self) -> str:
        return f"<Range [{self.start_pfn:#x}, {self.end_pfn:#x}) {self.case.value}>"

    @property
    def pages(self) -> int:
        """Number of PFNs."""
        return self.end_pfn - self.start_pfn


def lacks_memmap(ranges: Iterable[Range]) -> bool:
    """
    Return whether no range has struct pages. No kernel runs like that, so the sections
    that would have them could not be read, or are not sections.
    """
    return not any(r.memmap is Memmap.MAPPED for r in ranges)


@dataclass(frozen=True, repr=False)
class Finding(OfPage, OfPgmap):
    """
    Something wrong or dangerous.

    ``count`` pages of ``[start_pfn, end_pfn)`` are concerned; the evidence is
    about one of them, the first unless it says otherwise. ``known_bugs`` are the slugs of
    those that leave this state, and that this kernel can have.
    """

    slug: str
    severity: Severity
    case: Case
    start_pfn: int
    end_pfn: int
    count: int
    message: str
    pgmap: int | None = None
    evidence: tuple[Evidence, ...] = ()
    known_bugs: tuple[str, ...] = ()

    def __repr__(self) -> str:
        span = f"[{self.start_pfn:#x}, {self.end_pfn:#x})"
        return f"<Finding {self.severity.value} {self.slug} {span}>"


@dataclass(frozen=True)
class Unjudged:
    """
    Something that could not be judged, and why. ``start_pfn == end_pfn`` if no PFN is
    known. ``address`` is the virtual address that could not be read, if that is the reason;
    ``missing`` is what the debugging information does not have, if that is the reason.
    """

    start_pfn: int
    end_pfn: int
    reason: str
    address: int | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Missing:
    """
    Physical memory ``[start, end)``, in bytes, that was needed for a judgement and could
    not be read. ``hint`` says why it is missing, and what to do. ``start == end`` if the
    location of the memory is not known.
    """

    start: int
    end: int
    holds: str
    hint: str


@dataclass(frozen=True)
class PageCounts:
    """
    Numbers of struct pages of one kind.

    Of the ``verified`` ones, ``torn`` changed each time that they were read, so they are not
    judged. ``not_exported`` are those that an export leaves out.
    """

    verified: int = 0
    unreadable: int = 0
    torn: int = 0
    not_exported: int = 0

    def __add__(self, other: PageCounts) -> PageCounts:
        return PageCounts(
            self.verified + other.verified,
            self.unreadable + other.unreadable,
            self.torn + other.torn,
            self.not_exported + other.not_exported,
        )


@dataclass(frozen=True)
class Coverage:
    """
    How much was verified, so that a report without findings can be trusted.

    ``aliases_skipped`` of the verified struct pages share the memory of another one, and
    were verified together with it. On a running kernel, ``retries`` counts readings that
    were torn and repeated, and ``torn`` counts answers that stayed torn: ranges that are
    unknown and errors that are not judged because of that. ``by_case`` says of which
    cases the struct pages were.
    """

    pages_verified: int = 0
    pages_unreadable: int = 0
    bytes_read: int = 0
    aliases_skipped: int = 0
    retries: int = 0
    torn: int = 0
    by_case: Mapping[Case, PageCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class FreeBlocks:
    """
    Free blocks of the buddy allocator that were found among struct pages (``PageBuddy()``).

    ``number`` has how many there are by node (``page_to_nid()``), zone number
    (``page_zonenum()``) and order. ``unread`` are the PFNs of online memory, sorted and
    disjoint, whose struct pages were not all looked at: what is free there is not known.
    """

    number: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    unread: tuple[tuple[int, int], ...] = ()


_END = 1 << 64


class MemoryKind(enum.Enum):
    """What a check can be restricted to; the value is what users call it."""

    DEVICES = "devices"
    RAM = "ram"


@dataclass(frozen=True)
class Scope:
    """
    What a check looks at: all memory, or one kind of it, or PFNs in ``[start_pfn, end_pfn)``
    (both ``None`` for all), or both.
    """

    only: MemoryKind | None = None
    start_pfn: int | None = None
    end_pfn: int | None = None

    @property
    def pfns(self) -> tuple[int, int]:
        """The PFNs, half-open; without a restriction, more than any machine has."""
        if self.start_pfn is None or self.end_pfn is None:
            return 0, _END
        return self.start_pfn, self.end_pfn

    @property
    def is_whole(self) -> bool:
        """Whether it is all memory."""
        return self.only is None and self.start_pfn is None

    def includes(self, case: Case, pgmap: int | None) -> bool:
        """Whether memory of a case is of the kind to look at. Unknown memory is of every kind."""
        if self.only is None or case is Case.UNKNOWN:
            return True
        is_ram = case in (Case.ONLINE, Case.OFFLINE)
        # The memmap of hotplugged RAM, and RAM whose initialisation was deferred.
        is_ram |= pgmap is None and case in (Case.METADATA, Case.INITIALIZING)
        return is_ram == (self.only is MemoryKind.RAM)

    def overlaps(self, start_pfn: int, end_pfn: int) -> bool:
        """Whether any PFN of a range is in the scope."""
        return start_pfn < self.pfns[1] and self.pfns[0] < end_pfn


EVERYTHING = Scope()
"""All memory."""


@dataclass(frozen=True)
class KernelFacts:
    """The facts about the kernel that every answer depends on."""

    release: str
    architecture: str
    live: bool
    page_size: int
    section_size: int
    subsection_size: int
    sizeof_page: int
    vmemmap: int
    highest_present_section_nr: int
    features: dict[str, bool]
    types_from_btf: bool = False
    """There is no vmlinux: the kernel itself says what its types and symbols are."""
    never_booted: tuple[str, ...] = ()
    """Parts of the layout that no booted kernel has: what is decided by them is by reading."""
    max_nr_zones: int = 0
    """``__MAX_NR_ZONES``; 0 if the debugging information does not have it."""


@dataclass(frozen=True)
class Provenance:
    """
    Where a report comes from: the version of the tool, the path of the dump or what the user
    called the program, the build ID of the kernel and the time of its crash (seconds since 1970),
    if the dump has them, and whether types are from DWARF or BTF.
    """

    tool: str
    source: str
    build_id: str | None
    crash_time: int | None
    types: str


@dataclass(frozen=True, repr=False)
class Report(Result):
    """
    Everything that is known about one kernel's memory, or about the part of it in ``scope``.
    Ranges of another kind than that are there, but without findings. Reports that say the same
    are equal, whatever their ``provenance``.
    """

    kernel: KernelFacts
    pgmaps: tuple[Pgmap, ...]
    ranges: tuple[Range, ...]
    findings: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]
    coverage: Coverage
    missing: tuple[Missing, ...] = ()
    scope: Scope = EVERYTHING
    provenance: Provenance | None = field(default=None, compare=False)
    memmap: tuple[MemmapPart, ...] = ()

    @property
    def nothing_judged(self) -> bool:
        """
        Whether there was something to judge, but not a single struct page could be read, or
        :func:`lacks_memmap()`.
        """
        wanted = self.coverage.pages_unreadable > 0 or any(
            r.case is Case.UNKNOWN for r in self.ranges
        )
        nothing = self.scope.is_whole and lacks_memmap(self.ranges)
        return (wanted and self.coverage.pages_verified == 0) or nothing

    def __repr__(self) -> str:
        return (
            f"<Report Linux {self.kernel.release!r}: {len(self.pgmaps)} pgmaps, "
            f"{len(self.ranges)} ranges, {len(self.findings)} findings>"
        )
