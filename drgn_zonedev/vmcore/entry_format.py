# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Formats of Page Tables
----------------------

The ``drgn_zonedev.vmcore.entry_format`` module says how the kernel's page tables look on each
architecture whose tables are walked in bulk: how many levels there are, which entries lead to a
table or map something, and where the address is in them. VMCOREINFO decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from drgn import Architecture, FaultError, Program

from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.vmcore.raw import read_raw

__all__ = (
    "EntryFormat",
    "EntryKind",
    "NoAccess",
    "SwapFormat",
    "entry_format",
    "has_entry_format",
)

_ENTRY_BITS = 3


@dataclass(frozen=True)
class EntryKind:
    """Entries of one kind: those that have ``value`` in the bits of ``mask``."""

    mask: int
    value: int

    def among(self, entries: np.ndarray) -> np.ndarray:
        """Whether each entry is of this kind."""
        return (entries & np.uint64(self.mask)) == np.uint64(self.value)


@dataclass(frozen=True)
class SwapFormat:
    """
    Swap entries of one kind: those that map nothing and are not empty. Shifted left and then
    right, the bits of an entry are its offset; in x86-64, all of them are inverted.
    """

    kind: EntryKind
    left: int
    right: int
    inverted: bool = False

    def among(self, entries: np.ndarray) -> np.ndarray:
        """Whether each entry is one of these."""
        return self.kind.among(entries) & (entries != 0)

    def offsets(self, entries: np.ndarray) -> np.ndarray:
        """
        Get the offset in each entry, like ``swp_offset()``: of a page of device-private memory, its
        PFN.
        """
        bits = ~entries if self.inverted else entries
        return (bits << np.uint64(self.left) >> np.uint64(self.right)).astype(np.int64)


@dataclass(frozen=True)
class NoAccess:
    """
    Entries that map a page or a block to which its process has no access (``PROT_NONE``). The
    processor takes them for empty, the kernel does not. In x86-64, the address is inverted.
    """

    page: EntryKind
    block: EntryKind
    inverted: bool = False


@dataclass(frozen=True)
class EntryFormat:
    """
    The format of page tables.

    ``page``, ``block`` and ``table`` are the entries of the lowest level that map a page, those
    above it that map a large page, and those above it that lead to a table. An entry of a block
    maps at most ``1 << largest_bits`` pages. The address consists of the bits in ``low``, and of
    those in ``high``, which are ``high_shift`` further up. The processor sets bits in ``used`` by
    itself, in each table that leads to the same. No entry is of two kinds in ``swap``, which is
    empty where they are not known. Only tables of processes have entries of ``no_access``.
    """

    page_shift: int
    virtual_bits: int
    page: EntryKind
    block: EntryKind
    table: EntryKind
    largest_bits: int
    low: int
    read_top: Callable[[int], bytes]
    no_access: NoAccess
    high: int = 0
    high_shift: int = 0
    used: int = 0
    swap: tuple[SwapFormat, ...] = ()

    @property
    def table_bits(self) -> int:
        """How many bits of an address one level translates: a table fills a page."""
        return self.page_shift - _ENTRY_BITS

    @property
    def page_number_bits(self) -> int:
        """How many bits of a page number are translated. Those above extend the sign."""
        return self.virtual_bits - self.page_shift

    @property
    def top_bits(self) -> int:
        """How many bits of a page number are translated below the top level."""
        return (self.page_number_bits - 1) // self.table_bits * self.table_bits

    def frames(self, entries: np.ndarray) -> np.ndarray:
        """Get the page frame that is in each entry."""
        address = entries & np.uint64(self.low)
        if self.high:
            address |= (entries & np.uint64(self.high)) << np.uint64(self.high_shift)
        return (address >> np.uint64(self.page_shift)).astype(np.int64)

    def frames_without_access(self, entries: np.ndarray) -> np.ndarray:
        """Get the page frame that is in each entry of ``no_access``."""
        return self.frames(~entries if self.no_access.inverted else entries)

    def top(self) -> bytes:
        """
        Read the table of the top level.

        :raises FaultError: if it cannot be read
        """
        return self.read_top(8 << self.page_number_bits - self.top_bits)


def has_entry_format(prog: Program) -> bool:
    """Return whether the format of this architecture's page tables is known."""
    assert prog.platform is not None
    return prog.platform.arch in _FORMATS


@once_per_program
def entry_format(prog: Program) -> EntryFormat:
    """
    Get the format of this kernel's page tables. Use it where :func:`has_entry_format()`.

    :raises LookupError: if neither VMCOREINFO nor symbols say enough
    :raises ValueError: if VMCOREINFO makes no sense
    """
    # Settled at boot.
    assert prog.platform is not None
    return _FORMATS[prog.platform.arch](prog)


def _x86_64(prog: Program) -> EntryFormat:
    # arch/x86/include/asm/pgtable_types.h. Bits 12 to 51 of an entry are the physical address. 1
    # GiB is the largest page: the bit for huge pages is reserved above it.
    present, huge, protnone = 1 << 0, 1 << 7, 1 << 8
    levels = 5 if _vmcoreinfo(prog, r"NUMBER\(pgtable_l5_enabled\)=(1)") else 4
    return EntryFormat(
        page_shift=12,
        virtual_bits=12 + 9 * levels,
        page=EntryKind(present, present),
        block=EntryKind(present | huge, present | huge),
        table=EntryKind(present | huge, present),
        largest_bits=18,
        low=((1 << 52) - (1 << 12)) & ~_encryption_mask(prog),
        # Only the top of the page tables is in the kernel's image.
        read_top=lambda size: read_raw(prog, _top_address(prog), size),
        # protnone_mask() in arch/x86/include/asm/pgtable-invert.h.
        no_access=NoAccess(
            EntryKind(present | protnone, protnone),
            EntryKind(present | protnone | huge, protnone | huge),
            inverted=True,
        ),
        # _PAGE_ACCESSED and _PAGE_DIRTY.
        used=1 << 5 | 1 << 6,
        # arch/x86/include/asm/pgtable_64.h: __swp_offset(). _PAGE_PROTNONE is a page that is there.
        swap=(SwapFormat(EntryKind(present | protnone, 0), left=5, right=14, inverted=True),),
    )


def _encryption_mask(prog: Program) -> int:
    # The C-bit of AMD's memory encryption is within the address. Older kernels do not put
    # it into VMCOREINFO.
    found = _vmcoreinfo(prog, r"NUMBER\(sme_mask\)=(-?[0-9]{1,20})")
    if found is not None:
        return int(found)
    try:
        return int(prog["sme_me_mask"].value_())
    except LookupError:
        return 0


def _arm64_no_access() -> NoAccess:
    # PAGE_NONE in arch/arm64/include/asm/pgtable-prot.h has PTE_NG, PTE_PXN and PTE_UXN. Before
    # Linux kernel commit 55564814a838 ("arm64/mm: Move PTE_PRESENT_INVALID to overlay PTE_NG")
    # (in v6.10), the offset of a swap entry may have the first of these bits, but is too small for
    # the others, and since then it never has the first.
    bits = 1 << 11 | 1 << 53 | 1 << 54
    return NoAccess(EntryKind(1 | bits, bits), EntryKind(3 | bits, bits))


def _arm64_swap() -> tuple[SwapFormat, ...]:
    # arch/arm64/include/asm/pgtable.h: __swp_offset(). Linux kernel commit 55564814a838 ("arm64/mm:
    # Move PTE_PRESENT_INVALID to overlay PTE_NG") (in v6.10) moved the type from bits 3 to 7 to
    # bits 6 to 10, and the offset from bits 8 to 57 to bits 12 to 61. Nothing else tells which
    # kernel it is, but the entries of device memory do: their types are the last ones but one for
    # markers, 27 to 31, of which each has one of the bits that are 4 and 5 of an entry before that
    # commit. Those are 0 since.
    present, older_present = 3 | 1 << 11, 3 | 1 << 58 | 1 << 59
    unused, high = 1 << 4 | 1 << 5 | 3 << 62, 3 << 9
    older_high = 3 << 6
    return (
        SwapFormat(EntryKind(present | unused | high, high), left=2, right=14),
        # Types 28 to 31, and 27.
        SwapFormat(
            EntryKind(older_present | older_high | 1 << 5, older_high | 1 << 5), left=6, right=14
        ),
        SwapFormat(
            EntryKind(older_present | older_high | 7 << 3, older_high | 3 << 3), left=6, right=14
        ),
    )


# Which page tables arm64 has (ARM64_VA_BITS_* in arch/arm64/Kconfig): 36 to 52 bits.
_ARM64_BITS = range(36, 53)


def _arm64(prog: Program) -> EntryFormat:
    # arch/arm64/include/asm/pgtable-hwdef.h: PTE_VALID, and PTE_TYPE_PAGE or PMD_TYPE_TABLE.
    page_shift, bits = prog["PAGE_SHIFT"].value_(), _arm64_virtual_bits(prog)
    if bits not in _ARM64_BITS:
        raise ValueError(f"impossible size of arm64's address space in VMCOREINFO: {bits} bits")
    # PTE_ADDR_HIGH. With pages of 64K, bits 12 to 15 are 48 to 51 of the address, or 0 since Linux
    # kernel commit 75387b92635e ("arm64: handle 52-bit physical addresses in page table
    # entries") (in v4.16).
    low, high, high_shift = (1 << 48) - (1 << page_shift), 0xF000, 36
    if page_shift != 16:
        # FEAT_LPA2 uses bits 8 and 9, but only together with 52 bits of virtual addresses: Linux
        # kernel commit 352b0395b505 ("arm64: Enable 52-bit virtual addressing for 4k and 16k
        # granule configs") (in v6.9).
        low, high, high_shift = (low | 3 << 48, 0x300, 42) if bits == 52 else (low, 0, 0)
    return EntryFormat(
        page_shift=page_shift,
        virtual_bits=bits,
        page=EntryKind(3, 3),
        block=EntryKind(3, 1),
        table=EntryKind(3, 3),
        largest_bits=bits - page_shift,
        low=low,
        high=high,
        high_shift=high_shift,
        read_top=lambda size: _arm64_top(prog, size),
        no_access=_arm64_no_access(),
        swap=_arm64_swap(),
    )


def _arm64_virtual_bits(prog: Program) -> int:
    built = _vmcoreinfo(prog, r"NUMBER\(VA_BITS\)=([0-9]{2})")
    # Since Linux kernel commit bbdbc11804ff ("arm64/crash_core: Export TCR_EL1.T1SZ in
    # vmcoreinfo") (in v5.9): a kernel that was built for 52 bits may run with fewer.
    running = _vmcoreinfo(prog, r"NUMBER\(TCR_EL1_T1SZ\)=0x([0-9a-f]{1,2})")
    if built is None and running is None:
        raise LookupError("VMCOREINFO does not say how large arm64's address space is")
    # With pages of 64K, the top keeps its size, and addresses of 48 bits use the end of it:
    # offset_ttbr1 in arch/arm64/include/asm/assembler.h.
    keeps_top = built is not None and prog["PAGE_SHIFT"].value_() == 16
    if running is None or keeps_top:
        assert built is not None
        return int(built)
    return 64 - int(running, 16)


def _arm64_top(prog: Program, size: int) -> bytes:
    # Since Linux kernel commit 20a166243328 ("arm64: kdump: add VMCOREINFO's for user-space
    # tools") (in v4.12), it says where the kernel's image is.
    top, offset = _top_address(prog), _vmcoreinfo(prog, r"NUMBER\(kimage_voffset\)=0x([0-9a-f]+)")
    if offset is not None:
        try:
            return read_raw(prog, top - int(offset, 16), size, True)
        except FaultError:
            # /proc/kcore has the image by its virtual addresses.
            pass
    return read_raw(prog, top, size)


def _top_address(prog: Program) -> int:
    top = _vmcoreinfo(prog, r"SYMBOL\(swapper_pg_dir\)=([0-9a-f]{1,16})")
    return int(prog["init_mm"].pgd.value_()) if top is None else int(top, 16)


def _vmcoreinfo(prog: Program, pattern: str) -> str | None:
    info = prog["VMCOREINFO"].string_().decode(errors="replace")
    found = re.search(f"^{pattern}$", info, re.MULTILINE)
    return found and found[1]


_FORMATS: dict[Architecture, Callable[[Program], EntryFormat]] = {
    Architecture.X86_64: _x86_64,
    Architecture.AARCH64: _arm64,
}
