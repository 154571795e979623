# SPDX-License-Identifier: LGPL-2.1-or-later
"""FakeKernel: the data structures of memory hotplug, written as the kernel writes them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from drgn import FaultError, Program

from .layouts import TABLES, with_page_size
from .memory import SIZEOF_PAGE, Memory, Words
from .target import Names, make_program
from .userstructs import WAIT_TABLE, with_users
from .xarray import XArray, offsets

VMEMMAP = 0xFFFFEA0000000000
_STATICS = 0xFFFFFFFF82000000
_HEAP = 0xFFFF888001000000
_USAGES = 0xFFFF888030000000
_RODATA = 0xFFFFFFFF81E00000
# Per-CPU addresses are small offsets; each CPU adds its own base.
PERCPU_FIRST = 0x10000
_PERCPU_BASE, _PERCPU_STRIDE = 0xFFFF88803F000000, 0x400000
_PERCPU_SIZE = 0x4000
_NR_CPUS = 8192

_PERCPU_COUNT_BIAS = 1 << 63
_WORD = 1 << 64
_MAX_PHYSICAL = 1 << 52
# IORESOURCE_MEM, IORESOURCE_SYSRAM and IORESOURCE_BUSY.
_SYSTEM_RAM = 0x81000200

# A first PFN of each zone on x86_64.
_DMA32_START = 0x1000
_NORMAL_START = 0x100000

# Bits of the last CPU and PID, below those of node and zone, with CONFIG_NUMA_BALANCING.
_LAST_CPUPID_WIDTH = 21

_MAPCOUNT_NONE = 0xFFFFFFFF
_TAIL_MAPPING = 0xDEAD000000000400
_COMPOUND_PAGE_DTOR = 1
_ALL_ONES = _WORD - 1

# Words of struct page.
_FLAGS, _LRU_NEXT, _LRU_PREV, _MAPPING, _INDEX, _PRIVATE, _COUNTS, _MEMCG = range(8)

_ZONE_NAMES = {
    "ZONE_DMA": "DMA",
    "ZONE_DMA32": "DMA32",
    "ZONE_NORMAL": "Normal",
    "ZONE_MOVABLE": "Movable",
    "ZONE_DEVICE": "Device",
}
_MAX_ORDERS = 11

_OPS = ("fsdax_pagemap_ops", "dev_dax_pagemap_ops", "p2pdma_pgmap_ops", "dmem_pagemap_ops")

PfnRange = tuple[int, int]


@dataclass(frozen=True)
class Altmap:
    """Values of a struct vmem_altmap, all in PFNs; *end_pfn* is inclusive."""

    base_pfn: int
    end_pfn: int
    reserve: int
    free: int
    align: int = 0
    alloc: int = 0

    @property
    def offset(self) -> int:
        """vmem_altmap_offset()."""
        return self.reserve + self.free


@dataclass(frozen=True)
class _Pgmap:
    """What the pages of a device take from its pgmap."""

    type: str
    vmemmap_shift: int


class FakeKernel:
    """
    Kernel memory under construction.

    Every method that makes a structure returns its address. Nothing is
    checked for sense: tests are free to build what no kernel would.

    :param layout: Version whose structures to use: one of LAYOUTS, or of the names of
        layout files. What a kernel of that layout does not have is left out.
    :param sizeof_page: More than the layout's adds words that nobody writes to struct page; 56
        takes away memcg_data.
    :param page_bits: What initialised struct pages have in their flags besides: a KASAN tag.
    :param cpus: How many are possible.
    :param dedup: Whether the memmap of compound device pages is deduplicated
        where the kernel would do so (version 6.1 and later, no altmap, not an
        early section). The content of struct pages is the same either way;
        with it, a poke to one struct page shows in all its aliases.
    :param users: Whether it has the structures between pages and processes; see Users.
    """

    def __init__(
        self,
        layout: str = "6.1",
        *,
        dedup: bool = True,
        vmemmap: int = VMEMMAP,
        sizeof_page: int | None = None,
        page_bits: int = 0,
        cpus: int = 2,
        users: bool = False,
    ) -> None:
        self.layout = with_users(TABLES[layout]) if users else TABLES[layout]
        if sizeof_page is not None:
            self.layout = with_page_size(self.layout, sizeof_page)
        self.sizeof_page = sizeof_page = self.layout.structs["page"].size
        # Otherwise struct pages lie across pages, and the kernel never shares those.
        self.dedup = dedup and sizeof_page == SIZEOF_PAGE
        self.vmemmap = vmemmap
        self.macros = self.layout.macros
        self.page_size = 1 << self.macros.page_shift
        per_vmemmap_page = self.page_size // sizeof_page
        pages = self.macros.pages_per_section
        self.memory = Memory(vmemmap, sizeof_page, pages, per_vmemmap_page)
        self._place_links()
        self.page_bits = page_bits
        # Called with address and size before drgn reads; may change memory.
        self.on_read: Callable[[int, int], None] | None = None
        self._statics = self.memory.arena(_STATICS)
        self._heap = self.memory.arena(_HEAP)
        self._usages = self.memory.arena(_USAGES)
        self._percpu_bases = [_PERCPU_BASE + _PERCPU_STRIDE * cpu for cpu in range(cpus)]
        self._percpu = [self.memory.arena(base + PERCPU_FIRST) for base in self._percpu_bases]
        self._percpu_next = PERCPU_FIRST
        for arena in self._percpu:
            arena.alloc(_PERCPU_SIZE)
        self.variables: dict[str, tuple[str, int]] = {}
        self.names = Names(frozenset())
        self.symbols = {name: _RODATA + 64 * i for i, name in enumerate(_OPS)}
        self._counts_free = False
        self._pgmaps: dict[int, _Pgmap] = {}
        self._altmap_pgmaps: dict[int, Altmap] = {}
        self._early: dict[int, bool] = {}
        # Page tables of processes, by their page frames.
        self.physical: dict[int, bytearray] = {}
        self._make_variables()
        if users:
            self._make_variables_of_users()
        self.pgmap_array = self._xarray("pgmap_array", exists=self.layout.has_zone_device)
        self.memory_blocks = self._xarray("memory_blocks", exists=self._has_memory_blocks)

    @property
    def stores_block_memmaps(self) -> bool:
        """Whether memory blocks of the layout can store their own memmap."""
        members = ("altmap", "nr_vmemmap_pages")
        return any(self.layout.has_member("memory_block", name) for name in members)

    def _place_links(self) -> None:
        """NODES_SHIFT, ZONES_SHIFT and what is below them in page flags."""
        nodes = (self.layout.max_numnodes - 1).bit_length()
        zones = (self.layout.constant("__MAX_NR_ZONES") - 1).bit_length()
        self.node_shift = 64 - nodes
        self.zone_shift = self.node_shift - zones
        width = _LAST_CPUPID_WIDTH if nodes else 0
        self.last_cpupid = (1 << width) - 1 << self.zone_shift - width

    @property
    def _has_memory_blocks(self) -> bool:
        """CONFIG_MEMORY_HOTPLUG"""
        return "memory_block" in self.layout.structs

    # Variables.

    def _variable(self, name: str, type_name: str, size: int, value: int = 0) -> int:
        """Define a global variable with a fixed address."""
        address = self._statics.alloc(size)
        self.variables[name] = (type_name, address)
        if value:
            self.poke(address, value.to_bytes(min(size, 8), "little"))
        return address

    def add_variable(self, name: str, type_name: str, value: int = 0) -> int:
        """Define one more global variable, of a scalar type."""
        return self._variable(name, type_name, self.layout.sizeof(type_name), value)

    def add_list(self, name: str) -> int:
        """Define a global variable that is an empty list; returns its address."""
        address = self._variable(name, "struct list_head", 16)
        self._set("list_head", address, next=address, prev=address)
        return address

    def set_variable(self, name: str, value: int) -> None:
        """Assign to a scalar global variable."""
        type_name, address = self.variables[name]
        self.poke(address, value.to_bytes(self.layout.sizeof(type_name), "little"))

    def _make_variables(self) -> None:
        self._mem_section = self._heap.alloc(8 * self.nr_section_roots, 4096)
        self._variable("mem_section", "struct mem_section **", 8, self._mem_section)
        self._variable("__highest_present_section_nr", "unsigned long", 8)
        self._variable("max_pfn", "unsigned long", 8)
        self._variable("highest_memmap_pfn", "unsigned long", 8)
        if self._has_memory_blocks:
            self._variable("sections_per_block", "int", 4, 1)
        self._variable("vmemmap_base", "unsigned long", 8, self.vmemmap)
        semaphore = self.layout.structs["percpu_rw_semaphore"].size
        self._variable("mem_hotplug_lock", "struct percpu_rw_semaphore", semaphore)
        # After boot: all struct pages are initialised.
        self._variable("deferred_pages", "struct static_key_true", 16)
        self._variable("pgdat_init_n_undone", "atomic_t", 4)
        self._make_cpus()
        self._make_nodes()
        self._make_resources()

    def _make_variables_of_users(self) -> None:
        sizes = {name: struct.size for name, struct in self.layout.structs.items()}
        self._variable("init_task", "struct task_struct", sizes["task_struct"])
        self._variable("super_blocks", "struct list_head", 16)
        table = f"struct wait_queue_head [{WAIT_TABLE}]"
        self._variable("bit_wait_table", table, WAIT_TABLE * sizes["wait_queue_head"])
        for name in ("pipefifo_fops", "pipeanon_fops", "io_uring_fops"):
            self._variable(name, "struct file_operations", 8)

    def physical_page(self) -> int:
        """A page of physical memory, which nothing else uses; returns its page frame."""
        frame = 0x100 + len(self.physical)
        self.physical[frame] = bytearray(4096)
        return frame

    def _read_physical(self, address: int, count: int) -> bytes:
        frame, offset = divmod(address, 4096)
        if frame not in self.physical or offset + count > 4096:
            raise FaultError("not in the fake kernel", address)
        return bytes(self.physical[frame][offset : offset + count])

    @property
    def sections_per_root(self) -> int:
        """SECTIONS_PER_ROOT"""
        return self.page_size // self.layout.structs["mem_section"].size

    @property
    def nr_section_roots(self) -> int:
        """NR_SECTION_ROOTS"""
        bits = self.macros.max_physmem_bits - self.macros.section_size_bits
        return -(-(1 << bits) // self.sections_per_root)

    def _make_cpus(self) -> None:
        offsets = self._variable("__per_cpu_offset", f"unsigned long [{_NR_CPUS}]", 8 * _NR_CPUS)
        for cpu, base in enumerate(self._percpu_bases):
            self._set_word(offsets + 8 * cpu, base)
        cpus = len(self._percpu_bases)
        self._variable("nr_cpu_ids", "unsigned int", 4, cpus)
        bits = ((1 << cpus) - 1).to_bytes(_NR_CPUS // 8, "little")
        for name in ("possible", "present", "online"):
            mask = self._variable(f"__cpu_{name}_mask", "struct cpumask", _NR_CPUS // 8)
            self.poke(mask, bits)

    def _make_nodes(self) -> None:
        count, numa = self.layout.max_numnodes, self.layout.max_numnodes > 1
        pgdat = self.layout.structs["pglist_data"].size
        if numa:
            table = f"struct pglist_data *[{count}]"
            self._node_data = self._variable("node_data", table, 8 * count)
            self._variable("nr_node_ids", "unsigned int", 4, 1)
        else:
            self._contig_page_data = self._variable("contig_page_data", "struct pglist_data", pgdat)
        self._nodemask = self.layout.structs["nodemask_t"].size
        states = self.layout.constant("NR_NODE_STATES")
        self._node_states = self._variable(
            "node_states", f"nodemask_t [{states}]", states * self._nodemask
        )
        names = [
            _ZONE_NAMES[name] for name in self.layout.enums["zone_type"] if name in _ZONE_NAMES
        ]
        array = self._variable("zone_names", f"char *const [{len(names)}]", 8 * len(names))
        self._zone_names = [self._string(name) for name in names]
        for zone, address in enumerate(self._zone_names):
            self._set_word(array + 8 * zone, address)
        self.nodes: dict[int, int] = {}
        self.node(0)

    def _make_resources(self) -> None:
        # One for all memory there can be, which is no RAM.
        name = self._string("Anything")
        everything = self._new("resource", end=_MAX_PHYSICAL - 1, name=name, flags=0x200)
        size = self.layout.structs["resource"].size
        root = self._variable("iomem_resource", "struct resource", size)
        self._set("resource", root, end=_WORD - 1, child=everything)
        self._set("resource", everything, parent=root)
        self._iomem, self._last_resource = root, everything

    def system_ram(self, start_pfn: int, end_pfn: int, name: str = "System RAM") -> int:
        """
        Add RAM to the resource tree; returns its struct resource. The kernel would put it below
        a resource that contains it: here, all are beside each other.
        """
        resource = self._new(
            "resource",
            start=start_pfn << self.macros.page_shift,
            end=(end_pfn << self.macros.page_shift) - 1,
            name=self._string(name),
            flags=_SYSTEM_RAM,
            parent=self._iomem,
        )
        self._set("resource", self._last_resource, sibling=resource)
        self._last_resource = resource
        return resource

    def node(self, nid: int) -> int:
        """Make a NUMA node, or find it; returns its struct pglist_data."""
        if nid in self.nodes:
            return self.nodes[nid]
        assert nid < self.layout.max_numnodes, "the kernel has fewer nodes"
        numa = self.layout.max_numnodes > 1
        pgdat = self._new("pglist_data") if numa else self._contig_page_data
        self._set("pglist_data", pgdat, node_id=nid, nr_zones=len(self._zone_names))
        if self.layout.has_member("pglist_data", "first_deferred_pfn"):
            # Nothing is left to be initialised.
            self._set("pglist_data", pgdat, first_deferred_pfn=_ALL_ONES)
        self.nodes[nid] = pgdat
        if numa:
            self._set_word(self._node_data + 8 * nid, pgdat)
            self.set_variable("nr_node_ids", max(self.nodes) + 1)
        states = sum(1 << known for known in self.nodes)
        for state in range(4):
            self._set_word(self._node_states + self._nodemask * state, states)
        for zone, name in enumerate(self._zone_names):
            address = self.zone(nid, zone)
            self._set("zone", address, name=name, zone_pgdat=pgdat)
            if numa:
                self._set("zone", address, node=nid)
        return pgdat

    def zone(self, nid: int, zone: int) -> int:
        """Address of a struct zone."""
        return self.nodes[nid] + self.layout.structs["zone"].size * zone

    def _string(self, text: str) -> int:
        data = text.encode() + b"\0"
        address = self._statics.alloc(len(data), 1)
        self.poke(address, data)
        return address

    def _xarray(self, name: str, *, exists: bool) -> XArray:
        size = self.layout.structs["xarray"].size
        address = self._variable(name, "struct xarray", size) if exists else 0
        memory = self.memory
        return XArray(address, offsets(self.layout), memory.read, memory.write, self._heap.alloc)

    @property
    def altmap_reserve(self) -> int:
        """Pages of the info block, 8 KiB, that an altmap reserves."""
        return max(0x2000 >> self.macros.page_shift, 1)

    # Memory.

    def poke(self, address: int, data: bytes) -> None:
        """Overwrite memory, also after program()."""
        self.memory.write(address, data)

    def poke_member(self, struct: str, address: int, member: str, value: int) -> None:
        """Overwrite one member, whose name may be a path: ``ref.percpu_count_ptr``."""
        offset, size = self.layout.locate(struct, member)
        self.poke(address + offset, (value % (1 << 8 * size)).to_bytes(size, "little"))

    def member(self, struct: str, address: int, member: str) -> int:
        """Read one member, unsigned."""
        offset, size = self.layout.locate(struct, member)
        return int.from_bytes(self.memory.read(address + offset, size), "little")

    def hide(self, address: int, size: int) -> None:
        """Make memory unreadable."""
        self.memory.hide(address, size)

    def page(self, pfn: int) -> int:
        """pfn_to_page()."""
        return self.vmemmap + self.sizeof_page * pfn

    def page_word(self, pfn: int, word: int) -> int:
        """One of the eight words of a struct page."""
        return int.from_bytes(self.memory.read(self.page(pfn) + 8 * word, 8), "little")

    def poke_page_word(self, pfn: int, word: int, value: int) -> None:
        """Overwrite one of the eight words of a struct page."""
        self._set_word(self.page(pfn) + 8 * word, value)

    def _set_word(self, address: int, value: int) -> None:
        self.poke(address, (value % _WORD).to_bytes(8, "little"))

    def new(self, struct: str, **members: int) -> int:
        """Make any structure."""
        return self._new(struct, **members)

    def string(self, text: str) -> int:
        """Make a string."""
        return self._string(text)

    def _new(self, struct: str, **members: int) -> int:
        address = self._heap.alloc(self.layout.structs[struct].size)
        self._set(struct, address, **members)
        return address

    def _set(self, struct: str, address: int, **members: int) -> None:
        for member, value in members.items():
            self.poke_member(struct, address, member, value)

    def allocate(self, size: int) -> int:
        """Zeroed memory of the kernel's heap."""
        return self._heap.alloc(size, 4096)

    # Sections and memory blocks.

    def section(
        self,
        nr: int,
        *,
        online: bool = False,
        early: bool = False,
        taint: bool = False,
        preinit: bool = False,
        present: bool = True,
        has_mem_map: bool = True,
        subsections: Iterable[int] | None = (-1,),
        usage: bool = True,
    ) -> int:
        """
        Make a struct mem_section, or change it as a whole.

        Flags that the layout does not have are silently left out, so that the
        same scene can be built for every version.

        :param subsections: Bits to set in subsection_map, by default all; None for none.
        :param usage: False leaves mem_section.usage NULL.
        """
        address = self._section_slot(nr)
        flags = (present, has_mem_map, online, early)
        word = sum(1 << bit for bit, flag in enumerate(flags) if flag)
        word |= 1 << 4 if taint and self.layout.has_taint else 0
        word |= self._section_flag("SECTION_IS_VMEMMAP_PREINIT_BIT", preinit)
        if has_mem_map:
            word |= self.vmemmap
        wanted = set(subsections or ())
        if wanted == {-1}:
            wanted = set(range(self.macros.subsections_per_section))
        bits = sum(1 << bit for bit in wanted)
        made = self._new_usage(bits, early=early) if usage else 0
        self._set("mem_section", address, section_mem_map=word, usage=made)
        self._early[nr] = early
        name = "__highest_present_section_nr"
        self.set_variable(name, max(nr, self._get_variable(name)))
        return address

    def usage_map(self, nr: int, name: str, bits: int) -> None:
        """Set a bitmap in the usage of a section, as a word."""
        offset, _ = self.layout.locate("mem_section", "usage")
        data = self.memory.read(self._section_slot(nr) + offset, 8)
        member = self.layout.structs["mem_section_usage"].members[name]
        self._set_word(int.from_bytes(data, "little") + member.offset, bits)

    def pageblock_flags(self, nr: int, flags: bytes) -> None:
        """Set the flags of a section's pageblocks."""
        offset, _ = self.layout.locate("mem_section", "usage")
        data = self.memory.read(self._section_slot(nr) + offset, 8)
        member = self.layout.structs["mem_section_usage"].members["pageblock_flags"]
        self.poke(int.from_bytes(data, "little") + member.offset, flags)

    def sections(self, start_pfn: int, end_pfn: int, **kwargs: bool) -> None:
        """section() for all sections that overlap a range, with the subsections in it."""
        pages, unit = self.macros.pages_per_section, self.macros.pages_per_subsection
        for nr in range(start_pfn // pages, -(-end_pfn // pages)):
            first = nr * pages
            start, end = max(start_pfn, first) - first, min(end_pfn - first, pages)
            self.section(nr, subsections=range(start // unit, -(-end // unit)), **kwargs)

    def _section_flag(self, name: str, wanted: bool) -> int:
        return 1 << self.layout.constant(name) if wanted and self.layout.has_constant(name) else 0

    def _get_variable(self, name: str) -> int:
        type_name, address = self.variables[name]
        data = self.memory.read(address, self.layout.sizeof(type_name))
        return int.from_bytes(data, "little")

    def _new_usage(self, bits: int, *, early: bool) -> int:
        offset = self.layout.structs["mem_section_usage"].members["subsection_map"].offset
        types = self._movable_pageblocks()
        size = self.layout.structs["mem_section_usage"].size + len(types)
        # sparse_init_nid() has those of all sections one behind the other.
        usage = self._usages.alloc(size, 8) if early else self._heap.alloc(size)
        words = -(-self.macros.subsections_per_section // 64)
        self.poke(usage + offset, bits.to_bytes(8 * words, "little"))
        flags = self.layout.structs["mem_section_usage"].members["pageblock_flags"].offset
        self.poke(usage + flags, types)
        return usage

    def _movable_pageblocks(self) -> bytes:
        """pageblock_flags as memmap_init() and memmap_init_zone_device() leave them."""
        # The last enumerator of the bits of a pageblock says how many there are. It became
        # __NR_PAGEBLOCK_BITS in v6.17, which is rounded up.
        names = ("NR_PAGEBLOCK_BITS", "__NR_PAGEBLOCK_BITS")
        known = [self.layout.constant(name) for name in names if self.layout.has_constant(name)]
        bits = 1 << (known[0] - 1).bit_length() if known else 4
        blocks = self.macros.pages_per_section >> self.macros.pageblock_order
        movable = sum(self.layout.constant("MIGRATE_MOVABLE") << bits * i for i in range(blocks))
        return movable.to_bytes(-(-blocks * bits // 64) * 8, "little")

    def _section_slot(self, nr: int) -> int:
        """Address of a mem_section, its root allocated on first use."""
        root, slot = divmod(nr, self.sections_per_root)
        size = self.layout.structs["mem_section"].size
        pointer = self._mem_section + 8 * root
        array = int.from_bytes(self.memory.read(pointer, 8), "little")
        if not array:
            array = self._heap.alloc(size * self.sections_per_root, 4096)
            self._set_word(pointer, array)
        return array + size * slot

    def memory_block(
        self,
        section_nr: int,
        state: str = "MEM_ONLINE",
        *,
        nid: int = 0,
        zone: str | None = None,
        memmap_pages: int = 0,
    ) -> int:
        """
        Make the memory_block of a section; sections_per_block is 1.

        :param zone: The zone of the node that it names, in layouts that have that.
        :param memmap_pages: How many pages at its head store its memmap; none in layouts that
            cannot have that.
        """
        if not self._has_memory_blocks:
            return 0
        block = self._new(
            "memory_block",
            start_section_nr=section_nr,
            state=self.layout.constant(state),
            nid=nid,
        )
        members = self.layout.structs["memory_block"].members
        if zone and "zone" in members:
            number = self.layout.constant(zone)
            self._set("memory_block", block, zone=self.zone(nid, number))
        if memmap_pages and "altmap" in members:
            first = section_nr * self.macros.pages_per_section
            altmap = self._new("vmem_altmap", base_pfn=first, free=memmap_pages, alloc=memmap_pages)
            self._set("memory_block", block, altmap=altmap)
        elif memmap_pages and "nr_vmemmap_pages" in members:
            self._set("memory_block", block, nr_vmemmap_pages=memmap_pages)
        self.memory_blocks.store(section_nr, block)
        return block

    # Device page maps.

    def pgmap(
        self,
        *ranges: PfnRange,
        type: str = "MEMORY_DEVICE_FS_DAX",
        nr_range: int | None = None,
        in_flight: bool = False,
        altmap: Altmap | None = None,
        ref: str = "live",
        count: int | None = None,
        vmemmap_shift: int = 0,
        owner: int = 0,
        ops: int | str = 0,
        stored: bool = True,
        nid: int = 0,
    ) -> int:
        """
        Make a struct dev_pagemap and store it in pgmap_array.

        :param ranges: Half-open ranges of PFNs.
        :param nr_range: Defaults to all ranges, or with *in_flight* to none.
        :param ref: "live"; "dead" after percpu_ref_kill(); "exited" after
            percpu_ref_exit(). On 5.10 also "null" for the NULL pointer of its
            teardown, and "external" for a live one of the driver (pmem's queue).
        :param count: Total references; defaults to what memremap_pages() takes.
        :param vmemmap_shift: Ignored by layouts without it, as page_shift().
        :param ops: Address, or one of the names in symbols.
        :param stored: False leaves it out of pgmap_array: freed, or not yet there.
        """
        if nr_range is None:
            nr_range = 0 if in_flight else len(ranges)
        shift = vmemmap_shift if self.layout.has_member("dev_pagemap", "vmemmap_shift") else 0
        pgmap = self._alloc_pgmap(ranges)
        if self.layout.has_member("dev_pagemap", "nr_range"):
            self._set("dev_pagemap", pgmap, nr_range=nr_range)
        self._set(
            "dev_pagemap",
            pgmap,
            type=self._memory_type(type),
            owner=owner,
            ops=self.symbols[ops] if isinstance(ops, str) else ops,
        )
        if shift:
            self._set("dev_pagemap", pgmap, vmemmap_shift=shift)
        self._set_altmap(pgmap, altmap)
        if count is None:
            count = self._expected_count(ranges[:nr_range], type, altmap, shift)
        self._set_ref(pgmap, ref, count)
        self._pgmaps[pgmap] = _Pgmap(type, shift)
        if stored:
            self._claim(pgmap, ranges, nid)
        return pgmap

    def _memory_type(self, name: str) -> int:
        # MEMORY_DEVICE_GENERIC was MEMORY_DEVICE_DEVDAX up to v5.9.
        known = self.layout.enums["memory_type"]
        return known[name] if name in known else known[name.replace("GENERIC", "DEVDAX")]

    def _alloc_pgmap(self, ranges: tuple[PfnRange, ...]) -> int:
        layout, shift = self.layout.structs["dev_pagemap"], self.macros.page_shift
        pgmap = self._heap.alloc(layout.size + 16 * (len(ranges) - 1))
        if "range" not in layout.members:
            # One struct resource, up to v5.9.
            assert len(ranges) == 1, "this kernel has one range in a pgmap"
            ((start, end),) = ranges
            at = pgmap + layout.members["res"].offset
            self._set("resource", at, start=start << shift, end=(end << shift) - 1)
            return pgmap
        first = pgmap + layout.members["range"].offset
        for i, (start, end) in enumerate(ranges):
            self._set("range", first + 16 * i, start=start << shift, end=(end << shift) - 1)
        return pgmap

    def _set_altmap(self, pgmap: int, altmap: Altmap | None) -> None:
        if altmap is None:
            return
        self._set("dev_pagemap", pgmap, flags=1)
        for name in ("base_pfn", "end_pfn", "reserve", "free", "align", "alloc"):
            self.poke_member("dev_pagemap", pgmap, f"altmap.{name}", getattr(altmap, name))
        self._altmap_pgmaps[pgmap] = altmap

    def _expected_count(
        self,
        ranges: tuple[PfnRange, ...],
        type: str,
        altmap: Altmap | None,
        shift: int,
    ) -> int:
        """One from percpu_ref_init(), one for each page or compound page."""
        counts_pages = type not in ("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")
        if not counts_pages and self._frees_private_pages:
            return 1
        pages = sum((end - start) >> shift for start, end in ranges)
        if altmap is not None and ranges:
            start, end = ranges[0]
            pages -= ((end - start) >> shift) - ((end - start - altmap.offset) >> shift)
        return 1 + pages

    def _set_ref(self, pgmap: int, state: str, count: int) -> None:
        pointer = self.layout.has_member("dev_pagemap", "internal_ref")
        assert pointer or state not in ("null", "external"), "only up to 5.16, ref is a pointer"
        if state == "null":
            return
        member = "internal_ref" if pointer else "ref"
        ref = pgmap + self.layout.locate("dev_pagemap", member)[0]
        if state == "external":
            ref, state = self._new("percpu_ref"), "live"
        self._fill_ref(ref, state, count)
        if pointer:
            self._set("dev_pagemap", pgmap, ref=ref)

    def _fill_ref(self, ref: int, state: str, count: int) -> None:
        atomic, dead = 1, 2
        if state == "exited":
            self._set("percpu_ref", ref, percpu_count_ptr=count << 2 | atomic | dead)
            return
        # Up to v5.9, the atomic counter is in struct percpu_ref.
        embedded = self.layout.has_member("percpu_ref", "count")
        data = ref if embedded else self._new("percpu_ref_data", ref=ref)
        pointer = self._alloc_percpu()
        if state == "dead":
            pointer |= atomic | dead
            total = count
        else:
            # CPUs take and drop references independently, so one of the
            # counters may be far below zero.
            total = _PERCPU_COUNT_BIAS + 1
            for cpu, part in enumerate((count + 6, -7)):
                self._set_word(self._percpu_bases[cpu] + pointer, part)
        owner = "percpu_ref" if embedded else "percpu_ref_data"
        self.poke_member(owner, data, "count.counter", total)
        self._set("percpu_ref", ref, percpu_count_ptr=pointer)
        if not embedded:
            self._set("percpu_ref", ref, data=data)

    def _alloc_percpu(self, size: int = 8) -> int:
        self._percpu_next += size
        assert self._percpu_next <= PERCPU_FIRST + _PERCPU_SIZE, "per-CPU memory exhausted"
        return self._percpu_next - size

    def per_cpu(self, size: int) -> tuple[int, list[int]]:
        """Zeroed memory of all CPUs: the pointer for per_cpu_ptr(), and what it is on each CPU."""
        pointer = self._alloc_percpu(size)
        return pointer, [base + pointer for base in self._percpu_bases]

    def _claim(self, pgmap: int, ranges: tuple[PfnRange, ...], nid: int) -> None:
        for start, end in ranges:
            self.pgmap_array.store_range(start, end - 1, pgmap)
            self.grow_zone("ZONE_DEVICE", start, end, nid=nid)

    def grow_zone(
        self, name: str, start_pfn: int, end_pfn: int, *, present: int = 0, nid: int = 0
    ) -> None:
        """Widen the span of a zone and of its node; add *present* pages to it, all managed."""
        pgdat = self.node(nid)
        zone = self.zone(nid, self.layout.constant(name))
        members = ("zone_start_pfn", "spanned_pages", "present_pages")
        self._grow("zone", zone, members, (start_pfn, end_pfn, present))
        managed = self.member("zone", zone, "managed_pages")
        self.poke_member("zone", zone, "managed_pages", managed + present)
        members = ("node_start_pfn", "node_spanned_pages", "node_present_pages")
        self._grow("pglist_data", pgdat, members, (start_pfn, end_pfn, present))

    def _grow(
        self, struct: str, address: int, members: tuple[str, str, str], more: tuple[int, int, int]
    ) -> None:
        start, spanned, present = (self.member(struct, address, name) for name in members)
        end = max(start + spanned, more[1])
        start = min(start, more[0]) if spanned else more[0]
        for name, value in zip(members, (start, end - start, present + more[2])):
            self.poke_member(struct, address, name, value)

    # struct pages.

    def map_memmap(self, start_pfn: int, end_pfn: int) -> None:
        """Make struct pages readable, zeros at first."""
        self.memory.map(start_pfn, end_pfn)

    def unmap_memmap(self, start_pfn: int, end_pfn: int) -> None:
        """Make struct pages fault."""
        self.memory.unmap(start_pfn, end_pfn)

    def fill_pages(self, start_pfn: int, end_pfn: int, byte: int) -> None:
        """memset() struct pages: 0xff is poison, anything else a device's old content."""
        self.memory.fill_pages(start_pfn, end_pfn, byte)

    def ram_pages(
        self, start_pfn: int, end_pfn: int, zone: str | None = None, *, nid: int = 0
    ) -> None:
        """
        Initialised RAM, each page in use once, which is in the resource tree; *zone* defaults to
        the PFNs' zones.
        """
        self._put_initialised(start_pfn, end_pfn, zone, 0, nid)
        self.system_ram(start_pfn, end_pfn)
        for name, start, end in self._zones(start_pfn, end_pfn, zone):
            self.grow_zone(name, start, end, present=end - start, nid=nid)

    def free_block(self, pfn: int, order: int) -> None:
        """Free RAM as a block of the buddy allocator, which its zone counts."""
        is_typed = self.layout.has_constant("PGTY_buddy")
        for page in range(pfn, pfn + (1 << order)):
            self.poke_page_word(page, _COUNTS, _MAPCOUNT_NONE)
        # PGTY_buddy, or all bits of page_type but PG_buddy.
        self.poke_page_word(pfn, _COUNTS, 0xF0000000 if is_typed else 0xFFFFFF7F)
        self.poke_page_word(pfn, _PRIVATE, order)
        flags = self.page_word(pfn, _FLAGS)
        nid, zone = flags >> self.node_shift, flags >> self.zone_shift
        zone &= (1 << self.node_shift - self.zone_shift) - 1
        self.set_nr_free(nid, zone, order, self.nr_free(nid, zone, order) + 1)

    def _count_free(self) -> None:
        """Have zones count the free blocks that struct pages say, unless a test does."""
        if self._counts_free or "free_area" not in self.layout.structs:
            return
        found = Counter(itertools.chain.from_iterable(map(self._free, self._buddies())))
        for nid in self.nodes:
            for zone, order in itertools.product(range(len(self._zone_names)), range(_MAX_ORDERS)):
                self._set_word(self._nr_free(nid, zone, order), found[nid, zone, order])

    def _buddies(self) -> Iterator[Words]:
        """Mapped struct pages of each section that say that they are free."""
        is_typed = self.layout.has_constant("PGTY_buddy")
        mask, buddy = (0xFF000000, 0xF0000000) if is_typed else (0xF0000080, 0xF0000000)
        for section in self.memory.sections.values():
            says_so = section.words[:, _COUNTS] & np.uint64(mask) == buddy
            yield section.words[says_so & section.mapped]

    def _free(self, words: Words) -> Iterator[tuple[int, int, int]]:
        is_tail = words[:, _LRU_NEXT] & np.uint64(1) != 0
        for flags, order in words[~is_tail][:, [_FLAGS, _PRIVATE]].tolist():
            zone = flags >> self.zone_shift & (1 << self.node_shift - self.zone_shift) - 1
            yield flags >> self.node_shift, zone, order

    def _nr_free(self, nid: int, zone: int, order: int) -> int:
        area = self.layout.structs["free_area"]
        first = self.layout.structs["zone"].members["free_area"].offset
        offset = first + order * area.size + area.members["nr_free"].offset
        return self.zone(nid, zone) + offset

    def nr_free(self, nid: int, zone: int, order: int) -> int:
        """free_area[order].nr_free of a zone."""
        return int.from_bytes(self.memory.read(self._nr_free(nid, zone, order), 8), "little")

    def set_nr_free(self, nid: int, zone: int, order: int, value: int) -> None:
        """Change free_area[order].nr_free of a zone, which program() leaves alone from then on."""
        self._counts_free = True
        self._set_word(self._nr_free(nid, zone, order), value)

    def hole_pages(
        self, start_pfn: int, end_pfn: int, zone: str | None = None, *, nid: int = 0
    ) -> None:
        """Boot-time holes as init_unavailable_range() leaves them, in a zone of RAM."""
        self._put_initialised(start_pfn, end_pfn, zone, self._flag("PG_reserved"), nid)

    def _zones(self, start_pfn: int, end_pfn: int, zone: str | None) -> list[tuple[str, int, int]]:
        """Cut a range at the zones of RAM, unless a zone is given."""
        if zone is not None and self.layout.has_constant(zone):
            return [(zone, start_pfn, end_pfn)]
        firsts = {"ZONE_DMA": 0, "ZONE_DMA32": _DMA32_START, "ZONE_NORMAL": _NORMAL_START}
        names = [name for name in firsts if self.layout.has_constant(name)]
        cuts = [0, *(firsts[name] for name in names[1:]), 1 << 50]
        clipped = [
            (name, max(a, start_pfn), min(b, end_pfn)) for name, a, b in zip(names, cuts, cuts[1:])
        ]
        return [part for part in clipped if part[1] < part[2]]

    def metadata_pages(self, start_pfn: int, end_pfn: int, *, nid: int = 0) -> None:
        """The pages of an altmap that hold the memmap: ZONE_DEVICE, but no pgmap."""
        reserved = self._flag("PG_reserved")
        self._put_initialised(start_pfn, end_pfn, "ZONE_DEVICE", reserved, nid)

    def _blank(self, count: int) -> Words:
        words: Words = np.zeros((count, self.sizeof_page // 8), np.uint64)
        return words

    def _put_initialised(
        self, start_pfn: int, end_pfn: int, zone: str | None, flags: int, nid: int
    ) -> None:
        """As __init_single_page() does; memmap_init_range() adds *flags*."""
        for name, start, end in self._zones(start_pfn, end_pfn, zone):
            words = self._blank(end - start)
            words[:, _FLAGS] = self.page_links(name, nid) | flags
            lru = np.arange(start, end, dtype=np.uint64) * np.uint64(self.sizeof_page)
            lru += np.uint64(self.vmemmap + 8)
            words[:, _LRU_NEXT] = lru
            words[:, _LRU_PREV] = lru
            words[:, _COUNTS] = 1 << 32 | _MAPCOUNT_NONE
            self.memory.put_pages(start, words)

    def page_links(self, zone: str, nid: int = 0) -> int:
        """The page flags that say zone, node and last CPU."""
        number = self.layout.constant(zone)
        links = nid << self.node_shift | number << self.zone_shift
        return links | self.last_cpupid | self.page_bits

    def _flag(self, name: str) -> int:
        return 1 << self.layout.constant(name)

    def device_pages(self, start_pfn: int, end_pfn: int, pgmap: int, *, nid: int = 0) -> None:
        """
        Device pages as memmap_init_zone_device() leaves them.

        Compound pages start at *start_pfn*; an *end_pfn* inside of one freezes
        the initialisation right there. An address that pgmap() did not return
        counts as a file system DAX map: use it for dangling pointers.
        """
        known = self._pgmaps.get(pgmap, _Pgmap("MEMORY_DEVICE_FS_DAX", 0))
        words = self._blank(end_pfn - start_pfn)
        links = self.page_links("ZONE_DEVICE", nid)
        words[:, _FLAGS] = links | self._flag("PG_reserved")
        words[:, _LRU_NEXT] = pgmap
        words[:, _COUNTS] = self.idle_refcount(known.type) << 32 | _MAPCOUNT_NONE
        if known.vmemmap_shift:
            self._compound(words, start_pfn, known.vmemmap_shift)
        self.memory.put_pages(start_pfn, words)
        if self._deduplicates(start_pfn, pgmap, known.vmemmap_shift):
            self.alias_tails(start_pfn, end_pfn, known.vmemmap_shift)

    def idle_refcount(self, type: str) -> int:
        """Reference count of an idle page of a type of device memory."""
        if type == "MEMORY_DEVICE_GENERIC" or not self._frees_private_pages:
            return 1
        counted = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PCI_P2PDMA")
        return int(type in counted and self.layout.has_member("page", "pgmap"))

    @property
    def _frees_private_pages(self) -> bool:
        """Since v5.18, which nothing shows; a release later, there is coherent memory."""
        return "MEMORY_DEVICE_COHERENT" in self.layout.enums["memory_type"]

    def compound_link(self, head_pfn: int, order: int) -> int:
        """Word 1 of the tails of a compound page: the head, or since 7.1 a mask."""
        power_of_two = self.sizeof_page & self.sizeof_page - 1 == 0
        # compound_info_has_mask(): CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP gives zones the member.
        has_mask = power_of_two and self.layout.has_member("zone", "vmemmap_tails")
        if self.layout.has_member("page", "compound_info") and has_mask:
            return (-(self.sizeof_page << order) | 1) % _WORD
        return self.page(head_pfn) | 1

    def _compound(self, words: Words, start_pfn: int, order: int) -> None:
        """Turn initialised pages into compound ones."""
        pages = 1 << order
        for first in range(0, len(words), pages):
            compound = words[first : first + pages]
            compound[0, _FLAGS] |= self._flag("PG_head")
            compound[1:, _LRU_NEXT] = self.compound_link(start_pfn + first, order)
            compound[1:, _MAPPING] = _TAIL_MAPPING
            compound[1:, _COUNTS] = _MAPCOUNT_NONE
            # prep_compound_head() runs after tail 2 in 6.1, after tail 1 in
            # 6.12 (so tail 2 loses its list head again), after all in 7.x.
            if len(compound) >= min(self._tails_before_head(pages), pages):
                self._prep_head(compound, start_pfn + first, order)

    def _tails_before_head(self, pages: int) -> int:
        if self.layout.has_member("page", "compound_info"):
            return pages
        return 3 if self.layout.has_member("page", "compound_order") else 2

    def _prep_head(self, compound: Words, head: int, order: int) -> None:
        """prep_compound_head(): the members of the first tails that this kernel has."""
        late = self.layout.has_member("page", "compound_info")
        in_page = self.layout.has_member("page", "compound_order")
        struct, base = ("page", self.sizeof_page) if in_page else ("folio", 0)
        values = {
            "compound_dtor": _COMPOUND_PAGE_DTOR,
            "compound_order": order,
            "compound_mapcount": -1,
            "compound_pincount": 0,
            "compound_nr": 1 << order,
            "_folio_dtor": _COMPOUND_PAGE_DTOR,
            "_folio_order": order,
            "_flags_1": int(compound[1, _FLAGS]) | (0 if self._has_folio_order else order),
            "_large_mapcount": -1,
            "_nr_pages_mapped": 0,
            "_entire_mapcount": -1,
            "_pincount": 0,
            "_mm_id_mapcount": -1,
            "_folio_nr_pages": 1 << order,
            "_nr_pages": 1 << order,
        }
        lists = self.page(head + 2) + 16
        if late and order > 1:
            values["_deferred_list"] = lists << 64 | lists
        raw = compound.view(np.uint8).reshape(-1)
        for name, value in values.items():
            if self.layout.has_member(struct, name):
                at, size = self.layout.locate(struct, name)
                self._put(raw, base + at, size, value)

    @property
    def _has_folio_order(self) -> bool:
        return self.layout.has_member("folio", "_folio_order")

    @staticmethod
    def _put(raw: npt.NDArray[np.uint8], at: int, size: int, value: int) -> None:
        data = (value % (1 << 8 * size)).to_bytes(size, "little")
        raw[at : at + size] = np.frombuffer(data, np.uint8)

    def _deduplicates(self, start_pfn: int, pgmap: int, shift: int) -> bool:
        early = self._early.get(start_pfn // self.macros.pages_per_section, False)
        vmemmap_pages = (self.sizeof_page << shift) // self.page_size
        allowed = self.dedup and vmemmap_pages > 2 and not early
        return allowed and pgmap not in self._altmap_pgmaps

    def alias_tails(self, start_pfn: int, end_pfn: int, order: int) -> None:
        """
        Deduplicate the memmap of compound pages.

        From then on, a poke to a struct page from the second page of a
        compound's vmemmap on shows in all struct pages that share its memory.
        """
        for head in range(start_pfn, end_pfn, 1 << order):
            self.memory.aliases.append((head, min(1 << order, end_pfn - head)))

    # The result.

    def program(self, *, is_live: bool = False, hidden: frozenset[str] = frozenset()) -> Program:
        """
        A new drgn Program; it reads this kernel's memory, later pokes included.

        :param hidden: Types, variables, enumerators and members (``struct page.flags``)
            that its debugging information lacks. What was looked up is in names.found.

        :param is_live: Whether it claims to be a running kernel. To make
            memory change between two reads, set on_read.
        """
        types = self.layout, self.variables, self.symbols
        self.names = Names(hidden)
        self._count_free()
        prog = make_program(
            *types, self._read, self._mem_section, is_live, self.names, self.sizeof_page
        )
        if self.physical:
            prog.add_memory_segment(
                0,
                1 << 48,
                lambda address, count, offset, physical: self._read_physical(address, count),
                True,
            )
        return prog

    def _read(self, address: int, count: int) -> bytes:
        """A read by drgn."""
        if self.on_read is not None:
            self.on_read(address, count)
        return self.memory.read(address, count)
