# SPDX-License-Identifier: LGPL-2.1-or-later

"""
From a Log to Pages
-------------------

Finds everything that a log says about struct pages: the meaning of each address, the page that
it lies in, and, where that is not known, what is missing.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from drgn_zonedev.oops_log.architectures import LogArchitecture, architecture_of_lines
from drgn_zonedev.oops_log.events import Event, events
from drgn_zonedev.oops_log.identity import LogKernel, boots, kernel_of_lines
from drgn_zonedev.oops_log.lines import LogLine, log_lines
from drgn_zonedev.oops_log.mails import decoded_lines, has_encoded_parts, mail_lines
from drgn_zonedev.oops_log.mentions import Mention, Said, mentions
from drgn_zonedev.oops_log.page_dumps import PageDump, page_dumps
from drgn_zonedev.oops_log.page_fields import (
    PageFields,
    PageWordsRead,
    fields_of_release,
    read_page_words,
)
from drgn_zonedev.oops_log.poison import (
    Pattern,
    from_kasan_shadow,
    poison_at,
    wrapped_member,
)
from drgn_zonedev.oops_log.regions import Data, regions
from drgn_zonedev.oops_log.reservations import reserved_outside_ram
from drgn_zonedev.oops_log.vmemmap_bases import (
    Base,
    BaseSource,
    default_bases,
    linked_to_itself,
    log_bases,
    register_bases,
)

__all__ = (
    "AddressKind",
    "Boot",
    "KnownKernel",
    "LoggedAddress",
    "LoggedPage",
    "Need",
    "OopsLog",
    "read_log",
)


class AddressKind(enum.Enum):
    """What an address is."""

    STRUCT_PAGE = "struct-page"
    POISON = "poison"
    VMEMMAP = "vmemmap"
    OTHER = "other"


class Need(enum.Enum):
    """Information that is missing in the log; the value is the text to show."""

    BASE = (
        "the PFN of an address in vmemmap: KASLR may have moved vmemmap. A dump of this boot (-c), "
        "or a page dump with pfn: and an address, gives its base"
    )
    ADDRESSES = "addresses: this log has neither an oops with addresses nor a page dump"
    WORDS = "the struct page that was poisoned or overwritten: its address is not in a register"
    EXACT = "the exact address: s390x reports only the page of vmemmap that it is in"
    SAME_BOOT = "one base of vmemmap: the page dumps of this log give several"


@dataclass(frozen=True)
class KnownKernel:
    """Facts that do not come from the log: a dump's base of vmemmap, or only its types."""

    fields: PageFields
    base: Base | None = None
    page_size: int | None = None


@dataclass(frozen=True)
class LoggedAddress:
    """
    An address of a log. ``offset`` and ``field`` are within the struct page of ``pfn``.
    ``base`` says what the PFN was computed from.
    """

    line: int
    address: int
    kind: AddressKind
    pfn: int | None
    offset: int | None
    field: str | None
    pattern: Pattern | None
    base: BaseSource | None
    role: Said
    name: str


@dataclass(frozen=True)
class LoggedPage:
    """
    A struct page that the log prints. ``address`` and ``pfn`` may be computed from each other,
    by ``base``; ``pattern`` is what all its words consist of.
    """

    line: int
    pfn: int | None
    node: int | None
    zone: int | None
    flags: int | None
    flag_names: tuple[str, ...]
    words: tuple[int, ...]
    address: int | None
    base: BaseSource | None
    pattern: Pattern | None
    read: PageWordsRead
    head_pfn: int | None
    reason: str | None
    refcount: int | None
    mapcount: int | None


@dataclass(frozen=True)
class Boot:
    """
    What a log says about one boot of a kernel. ``reserved_holes`` are PFNs that boot reserved
    although there is no RAM.
    """

    kernel: LogKernel
    architecture: str | None
    page_size: int | None
    fields: PageFields
    bases: tuple[Base, ...]
    events: tuple[Event, ...]
    addresses: tuple[LoggedAddress, ...]
    pages: tuple[LoggedPage, ...]
    needs: tuple[Need, ...]
    reserved_holes: tuple[tuple[int, int], ...]

    def physical_address(self, pfn: int) -> int | None:
        """``PFN_PHYS()``, if the size of a page is known."""
        return None if self.page_size is None else pfn * self.page_size


@dataclass(frozen=True)
class OopsLog:
    """What a log says about struct pages; a log can contain more than one boot."""

    boots: tuple[Boot, ...]

    @property
    def addresses(self) -> tuple[LoggedAddress, ...]:
        """All addresses, in the order of lines."""
        return tuple(address for boot in self.boots for address in boot.addresses)

    @property
    def pages(self) -> tuple[LoggedPage, ...]:
        """All struct pages that are printed, in the order of lines."""
        return tuple(page for boot in self.boots for page in boot.pages)

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, in the order of lines."""
        return tuple(event for boot in self.boots for event in boot.events)

    @property
    def pfns(self) -> tuple[int, ...]:
        """Every known PFN, once: those of faults first, then those that are printed."""
        faults = (a.pfn for a in self.addresses if a.role is Said.FAULT)
        others = (a.pfn for a in self.addresses)
        found = (*faults, *(p.pfn for p in self.pages), *others)
        return tuple(dict.fromkeys(pfn for pfn in found if pfn is not None))


def read_log(data: Data, known: KnownKernel | None = None) -> OopsLog:
    """
    Read a log from a console, from ``dmesg`` or from a mail.

    :param data: The bytes of the file, which may be mapped.
    :param known: The kernel of the log, if there is a dump or a vmlinux.
    """
    lines = list(_lines(data))
    found = (_read_boot(part, known) for part in boots(lines))
    return OopsLog(tuple(b for b in found if b.addresses or b.pages or b.events or not lines))


def _lines(data: Data) -> Iterator[LogLine]:
    if bytes(data[:2]) in (b"\xff\xfe", b"\xfe\xff"):
        data = bytes(data).decode("utf-16", "replace").encode()
    parts = [mail_lines(data)] if has_encoded_parts(data) else regions(data)
    for part in parts:
        yield from log_lines(decoded_lines(part))


def _read_boot(lines: Sequence[LogLine], known: KnownKernel | None) -> Boot:
    kernel = kernel_of_lines(lines)
    architecture = architecture_of_lines(line.text for line in lines)
    dumps = list(page_dumps(lines))
    found = [m for line in lines for m in mentions(line)]
    fields = known.fields if known else fields_of_release(kernel.release)
    happened = tuple(events(lines))
    bases, contradictory = _known_bases(known) or _agreed(
        list(log_bases(dumps, architecture, fields)),
        default_bases(architecture, kernel, [m.address for m in found]),
        _bases_of_events(happened, found, architecture, kernel, fields),
    )
    page_size = (known.page_size if known else None) or kernel.page_size
    reader = _Reader(architecture, kernel, fields, bases, found)
    pages = tuple(
        reader.page(dump) for dump in dumps if dump.words or dump.named or dump.refcount is not None
    )
    addresses = tuple(reader.addresses(found, dumps))
    size = page_size or (architecture.page_size if architecture else None)
    boot = Boot(
        kernel=kernel,
        architecture=architecture.name if architecture else None,
        page_size=size,
        fields=fields,
        bases=bases,
        events=happened,
        addresses=addresses,
        pages=pages,
        needs=(),
        reserved_holes=reserved_outside_ram(lines, size) if size else (),
    )
    return replace(boot, needs=tuple(_needs(boot, contradictory)))


def _bases_of_events(
    happened: Iterable[Event],
    found: Sequence[Mention],
    architecture: LogArchitecture | None,
    kernel: LogKernel,
    fields: PageFields,
) -> Iterator[Base]:
    lines = [m.line for m in found]
    for event in happened:
        start = bisect.bisect_left(lines, event.line)
        within = found[start : bisect.bisect_right(lines, event.last_line)]
        registers = [m for m in within if m.role in (Said.FAULT, Said.REGISTER)]
        yield from register_bases(registers, architecture, kernel, fields)


def _known_bases(known: KnownKernel | None) -> tuple[tuple[Base, ...], bool] | None:
    return ((known.base,), False) if known is not None and known.base is not None else None


def _agreed(
    dumped: Sequence[Base], default: tuple[Base, ...], paired: Iterable[Base]
) -> tuple[tuple[Base, ...], bool]:
    # The bases to use, the most certain ones first, and whether the log contradicts itself.
    if len({base.address for base in dumped}) == 1:
        return (dumped[0],), False
    if default:
        return default, False
    by_address = {base.address: base for base in paired}
    found = tuple(by_address.values()) if len(by_address) == 1 else ()
    return found, bool(dumped) and not found


def _needs(boot: Boot, contradictory: bool) -> Iterator[Need]:
    if contradictory:
        yield Need.SAME_BOOT
    if not boot.addresses and not boot.pages:
        yield Need.ADDRESSES
    elif _has_unknown(boot):
        yield Need.BASE
    if any(a.role is Said.FAULT_PAGE and a.kind is AddressKind.VMEMMAP for a in boot.addresses):
        yield Need.EXACT
    poisoned = any(a.kind is AddressKind.POISON and a.role is Said.FAULT for a in boot.addresses)
    if poisoned and not any(a.pfn is not None for a in boot.addresses):
        yield Need.WORDS


def _has_unknown(boot: Boot) -> bool:
    if not boot.bases:
        return bool(boot.events or boot.pages)
    return any(
        a.kind is AddressKind.VMEMMAP and a.role is not Said.FAULT_PAGE for a in boot.addresses
    )


class _Reader:
    """Reads addresses and words of one boot."""

    def __init__(
        self,
        architecture: LogArchitecture | None,
        kernel: LogKernel,
        fields: PageFields,
        bases: Sequence[Base],
        found: Sequence[Mention],
    ) -> None:
        self.architecture, self.kernel, self.fields, self.bases = (
            architecture,
            kernel,
            fields,
            bases,
        )
        self.faults = frozenset(m.address for m in found if m.role is Said.FAULT)
        # A register that holds compound_head() of all ones explains an address that wrapped.
        self.has_head_of_ones = any(m.address == (1 << 64) - 2 for m in found)

    def addresses(
        self, found: Iterable[Mention], dumps: Iterable[PageDump]
    ) -> Iterator[LoggedAddress]:
        read = [self.address(m) for m in found]
        for dump in dumps:
            read += self._raw_addresses(dump)
        read.sort(key=lambda a: a.line)
        yield from read

    def address(self, mention: Mention) -> LoggedAddress:
        value, faulted = (
            mention.address,
            mention.role in (Said.FAULT, Said.FAULT_PAGE),
        )
        pattern = self._pattern(mention, faulted)
        if pattern is not None:
            return self._poison(mention, pattern)
        base, place = self._place(value)
        if base is not None and place is not None and mention.role is not Said.FAULT_PAGE:
            pfn, offset = place
            name = self.fields.name_at(offset)
            return _logged(mention, AddressKind.STRUCT_PAGE, pfn, offset, name, None, base.source)
        kind = AddressKind.VMEMMAP if place is not None or self._in_area(value) else None
        return _logged(mention, kind or AddressKind.OTHER, None, None, None, None, None)

    def _pattern(self, mention: Mention, faulted: bool) -> Pattern | None:
        value = mention.address
        faulted = faulted or value in self.faults
        pattern = poison_at(value, self.architecture, faulted=faulted)
        if pattern is not None or mention.role is Said.CODE:
            return pattern
        if faulted and self.has_head_of_ones and wrapped_member(value) is not None:
            return Pattern.ALL_ONES
        if not faulted or not self.kernel.kasan:
            return None
        shadowed = from_kasan_shadow(value)
        if shadowed is None:
            return None
        # The shadow is of eight bytes.
        near = (poison_at(shadowed + i, self.architecture, faulted=True) for i in range(8))
        return next((p for p in near if p is not None), None)

    def _poison(self, mention: Mention, pattern: Pattern) -> LoggedAddress:
        offset = None
        if pattern is Pattern.ALL_ONES and mention.role is not Said.RAW:
            offset = (mention.address + 2) & ((1 << 64) - 1)
        name = None if offset is None or offset >= 64 else self.fields.name_at(offset)
        offset = offset if name else None
        return _logged(mention, AddressKind.POISON, None, offset, name, pattern, None)

    def _place(self, value: int) -> tuple[Base | None, tuple[int, int] | None]:
        for base in self.bases:
            place = base.split(value, self.fields.size)
            if place is not None:
                return base, place
        return None, None

    def _in_area(self, value: int) -> bool:
        # The default address of vmemmap, which may have been moved.
        if self.bases or self.architecture is None:
            return False
        if self.kernel.kaslr_offset and not self.kernel.kasan:
            return False
        areas = self.architecture.areas
        return any(0 <= value - a.base < a.pfns * self.fields.size for a in areas)

    def _raw_addresses(self, dump: PageDump) -> Iterator[LoggedAddress]:
        filled = _fill_pattern(dump)
        seen: set[tuple[int, int]] = set()
        for word in (*dump.words, *dump.head_words):
            if (word.line, word.value) in seen:
                continue
            seen.add((word.line, word.value))
            mention = Mention(word.line, word.value, Said.RAW, "raw")
            if filled is not None and word.value == dump.words[0].value:
                yield self._poison(mention, filled)
                continue
            read = self.address(mention)
            if read.kind is not AddressKind.OTHER:
                yield read

    def page(self, dump: PageDump) -> LoggedPage:
        words = tuple(word.value for word in dump.words)
        address, pfn, base = self._page_place(dump)
        big_endian = self.architecture is not None and self.architecture.big_endian
        read = read_page_words(words, self.fields, address, big_endian=big_endian)
        head = read.head if read.head is not None else dump.head_address
        _, head_place = (None, None) if head is None else self._place(head)
        return LoggedPage(
            line=dump.line,
            pfn=pfn,
            node=dump.node,
            zone=dump.zone,
            flags=dump.flags if dump.flags is not None else (words[0] if words else None),
            flag_names=dump.flag_names,
            words=words,
            address=address,
            base=base,
            pattern=_fill_pattern(dump),
            read=read,
            head_pfn=head_place[0] if head_place else None,
            reason=dump.reason,
            refcount=dump.refcount if dump.refcount is not None else read.refcount,
            mapcount=dump.mapcount,
        )

    def _page_place(self, dump: PageDump) -> tuple[int | None, int | None, BaseSource | None]:
        # Address and PFN, of which one may follow from the other.
        address = dump.address
        if address is None and dump.pfn is None:
            address = linked_to_itself(dump, self.fields)
        if address is not None:
            base, place = self._place(address)
            if dump.pfn is not None or place is None or base is None:
                return address, dump.pfn, None
            return (address, place[0], base.source) if not place[1] else (None, None, None)
        if dump.pfn is not None and len(self.bases) == 1:
            base = self.bases[0]
            return base.address + dump.pfn * self.fields.size, dump.pfn, base.source
        return None, dump.pfn, None


def _fill_pattern(dump: PageDump) -> Pattern | None:
    if dump.poisoned:
        return Pattern.ALL_ONES
    return {0xFF: Pattern.ALL_ONES, 0xFD: Pattern.UNUSED_FILL, 0xAA: Pattern.PAGE_POISON}.get(
        dump.is_filled_with or 0
    )


def _logged(
    mention: Mention,
    kind: AddressKind,
    pfn: int | None,
    offset: int | None,
    name: str | None,
    pattern: Pattern | None,
    base: BaseSource | None,
) -> LoggedAddress:
    return LoggedAddress(
        line=mention.line,
        address=mention.address,
        kind=kind,
        pfn=pfn,
        offset=offset,
        field=name,
        pattern=pattern,
        base=base,
        role=mention.role,
        name=mention.name,
    )
