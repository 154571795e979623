# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Where vmemmap Is
----------------

Finds the address of the struct page of PFN 0: from a dump, from the log itself, or from the
architecture's default if KASLR cannot have moved it. Without any of them, addresses in vmemmap
cannot be distinguished from others.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.oops_log.architectures import ARCHITECTURES, LogArchitecture
from drgn_zonedev.oops_log.identity import LogKernel
from drgn_zonedev.oops_log.mentions import Mention
from drgn_zonedev.oops_log.page_dumps import PageDump
from drgn_zonedev.oops_log.page_fields import PageFields, release_number

__all__ = ("Base", "BaseSource", "default_bases", "linked_to_itself", "log_bases", "register_bases")


class BaseSource(enum.Enum):
    """The source of a base."""

    DUMP = "dump"
    LOG = "log"
    DEFAULT = "default"


@dataclass(frozen=True)
class Base:
    """
    The address of the struct page of PFN 0, and how many PFNs can follow it. ``why`` says in
    words how it was found.
    """

    address: int
    pfns: int
    source: BaseSource
    why: str
    first_pfn: int = 0

    def split(self, address: int, size: int) -> tuple[int, int] | None:
        """Get the PFN and the offset in its struct page, if the address is in vmemmap."""
        pfn, offset = divmod(address - self.address, size)
        return (pfn, offset) if self.first_pfn <= pfn < self.pfns else None


def log_bases(
    dumps: Iterable[PageDump], architecture: LogArchitecture | None, fields: PageFields
) -> Iterator[Base]:
    """Get every base from page dumps with a PFN and an address."""
    alignment = architecture.alignment if architecture else 1 << 15
    most = architecture.most_pfns if architecture else 1 << 34
    for dump in dumps:
        if dump.pfn is None:
            continue
        for address, why in _addresses(dump, fields):
            base = address - dump.pfn * fields.size
            if base > 0 and base % alignment == 0:
                yield Base(base, most, BaseSource.LOG, f"{why} of line {dump.line}")


def _addresses(dump: PageDump, fields: PageFields) -> Iterator[tuple[int, str]]:
    if dump.address is not None:
        yield dump.address, f"the page and PFN {dump.pfn:#x}"
        return
    link = linked_to_itself(dump, fields)
    if link is not None:
        yield link, f"page->lru, which is linked to itself, and PFN {dump.pfn:#x}"


# No list head is this low, not even on s390x, where kernel addresses are low.
_USER = 1 << 32


def linked_to_itself(dump: PageDump, fields: PageFields) -> int | None:
    """
    Get the address of a struct page by its empty list head, which points to itself. Whether
    it does, only alignment can tell: another list head can be alone there.
    """
    at = fields.offset_of("compound_head", "compound_info")
    if at is None or len(dump.words) < at // 8 + 2:
        return None
    next_, prev = dump.words[at // 8].value, dump.words[at // 8 + 1].value
    if next_ != prev or next_ <= _USER or (next_ - at) % fields.size:
        return None
    return next_ - at


# Smaller numbers and powers of two are in registers for many reasons.
_LEAST_PFN = 0x1000


def register_bases(
    registers: Sequence[Mention],
    architecture: LogArchitecture | None,
    kernel: LogKernel,
    fields: PageFields,
) -> Iterator[Base]:
    """
    Get every base by which one register holds the PFN of the struct page in another one.

    Code that walks PFNs has both. Because bases are aligned, a pair fits by chance in less than one
    of a hundred thousand cases.
    """
    if architecture is None:
        return
    numbers = {m.address: m for m in registers if _can_be_pfn(m.address, architecture)}
    for page in registers:
        address = page.address // fields.size * fields.size
        if not address >> 63:
            continue
        for pfn, number in numbers.items():
            base = address - pfn * fields.size
            if _is_randomised_base(base, architecture, kernel):
                why = f"{number.name}, which holds the PFN of {page.name}, in line {page.line}"
                yield Base(base, architecture.most_pfns, BaseSource.LOG, why)


def _can_be_pfn(number: int, architecture: LogArchitecture) -> bool:
    return _LEAST_PFN <= number < architecture.most_pfns and bool(number & (number - 1))


def _is_randomised_base(base: int, architecture: LogArchitecture, kernel: LogKernel) -> bool:
    if architecture.name == "x86-64":
        return base % architecture.alignment == 0 and base in _X86_64_BASES
    if architecture.name != "arm64" or kernel.page_size is None:
        return False
    # By the struct pages of 1 GiB, below VMEMMAP_START.
    start = arm64_vmemmap_start(kernel)
    step = (1 << 30) // kernel.page_size * 64
    return start is not None and 0 <= start - base < 1 << 36 and (start - base) % step == 0


def default_bases(
    architecture: LogArchitecture | None, kernel: LogKernel, addresses: Sequence[int]
) -> tuple[Base, ...]:
    """
    Get the default bases of an architecture, if KASLR cannot have moved them.

    :param addresses: All addresses of the log, which show where the direct map and vmalloc are.
    """
    if architecture is None:
        return ()
    if architecture.name == "arm64":
        return tuple(_arm64_bases(kernel))
    why = _unmoved(architecture, kernel, addresses)
    if why is None:
        return ()
    return tuple(Base(a.base, a.pfns, BaseSource.DEFAULT, why) for a in architecture.areas)


_X86_64 = ARCHITECTURES["x86-64"]
# Between __PAGE_OFFSET_BASE_L4 and CPU_ENTRY_AREA_BASE, and of five levels.
_X86_64_BASES = range(0xFF11000000000000, 0xFFFFFE0000000000)
# __PAGE_OFFSET_BASE_L4 and VMALLOC_START, as far as a log shows them: one in thousands of
# random bases is as near, and both are by none in millions.
_DIRECT_MAP = range(0xFFFF888000000000, 0xFFFF889000000000)
_VMALLOC = range(0xFFFFC90000000000, 0xFFFFC91000000000)


def _unmoved(
    architecture: LogArchitecture, kernel: LogKernel, addresses: Sequence[int]
) -> str | None:
    if not architecture.movable:
        return f"nothing moves it on {architecture.name}"
    if architecture is not _X86_64:
        return None
    # kernel_randomize_memory() asks kaslr_memory_enabled().
    if kernel.kaslr_disabled:
        return "the log says that KASLR is disabled"
    if kernel.kasan:
        return "KASAN disables the randomisation of memory"
    if any(a in _DIRECT_MAP for a in addresses) and any(a in _VMALLOC for a in addresses):
        return "the direct map and vmalloc are at their defaults"
    return None


def _arm64_bases(kernel: LogKernel) -> Iterator[Base]:
    # vmemmap is VMEMMAP_START less the struct pages below PHYS_OFFSET (memstart_addr), which
    # KASLR changes; VMEMMAP_START does not move.
    start, phys = _phys_offset(kernel)
    vmemmap = arm64_vmemmap_start(kernel)
    if vmemmap is None or start is None or kernel.page_size is None:
        return
    first = start // kernel.page_size
    pfns = _arm64_size(kernel) // 64
    why = f"VMEMMAP_START of {kernel.va_bits}-bit addresses in {kernel.release}, and {phys}"
    yield Base(vmemmap - first * 64, first + pfns, BaseSource.DEFAULT, why, first)


def _phys_offset(kernel: LogKernel) -> tuple[int | None, str]:
    if kernel.phys_offset is not None:
        plausible = kernel.phys_offset >> 48 == 0
        return (kernel.phys_offset if plausible else None), "the PHYS_OFFSET of the log"
    if kernel.ram_start is None or not kernel.kaslr_disabled:
        return None, ""
    # ARM64_MEMSTART_ALIGN is 1 GiB with pages of 4K and 16K, and 512 MiB with 64K.
    align = 1 << 29 if kernel.page_size == 1 << 16 else 1 << 30
    return kernel.ram_start // align * align, "where the log says that RAM begins"


def _arm64_size(kernel: LogKernel) -> int:
    assert kernel.va_bits is not None
    assert kernel.page_size is not None
    return (1 << kernel.va_bits - 1) // kernel.page_size * 64


def arm64_vmemmap_start(kernel: LogKernel) -> int | None:
    """
    Get VMEMMAP_START of arm64, for a struct page of 64 bytes. It follows from macros only,
    so the release decides.
    """
    number = release_number(kernel.release)
    if number is None or kernel.va_bits is None or kernel.page_size is None:
        return None
    size, all_bits = _arm64_size(kernel), 1 << 64
    if number >= (6, 9):
        # Since Linux kernel commit 32697ff38287 ("arm64: vmemmap: Avoid base2 order of
        # struct page size to dimension region") (in v6.9).
        return all_bits - (1 << 30) - size
    if number >= (5, 11):
        # Since Linux kernel commit 9ad7c6d5e75b ("arm64: mm: tidy up top of kernel VA
        # space") (in v5.11).
        return all_bits - 2 * size
    if number >= (5, 4):
        # Since Linux kernel commit 14c127c957c1 ("arm64: mm: Flip kernel VA space") (in v5.4).
        return all_bits - size - (1 << 21)
    return all_bits - (1 << kernel.va_bits - 1) - size
