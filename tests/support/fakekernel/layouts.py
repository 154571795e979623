# SPDX-License-Identifier: LGPL-2.1-or-later
"""
C layouts of the kernels that the fake kernel can pretend to be.

The tables are x86_64 facts read from DWARF of distribution kernels. Members
that the plugin never looks at are left out. The offsets in struct zone,
pglist_data, memory_block and percpu_rw_semaphore, and the bits of page flags
other than PG_reserved and PG_head, are plausible rather than verified: only
their names matter, because the plugin finds them by name.

A line of a structure is its offset and its C declaration. Members of anonymous
unions are listed in the enclosing structure: drgn resolves both the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

LAYOUTS = ("5.10", "6.1", "6.12", "7.2")
# Besides these, "6.12-proposal" is 6.12 as lab/patches/pfn_zone_device.edit changes it.

_COMMON = """
typedef _Bool bool
typedef unsigned char u8
typedef unsigned int u32
typedef unsigned long u64
typedef u64 phys_addr_t
typedef unsigned long pgoff_t
typedef unsigned int gfp_t
typedef unsigned int spinlock_t

anon atomic_t 4
  0 int counter
anon atomic_long_t 8
  0 long counter
struct static_key 16
  0 atomic_t enabled
  8 unsigned long type
struct static_key_true 16
  0 struct static_key key
anon nodemask_t 128
  0 unsigned long bits[16]

struct list_head 16
  0 struct list_head *next
  8 struct list_head *prev
struct callback_head 16
  0 struct callback_head *next
  8 void *func
struct cpumask 1024
  0 unsigned long bits[128]

struct xarray 16
  0 spinlock_t xa_lock
  4 gfp_t xa_flags
  8 void *xa_head
struct xa_node 576
  0 unsigned char shift
  1 unsigned char offset
  2 unsigned char count
  3 unsigned char nr_values
  8 struct xa_node *parent
  16 struct xarray *array
  24 struct list_head private_list
  24 struct callback_head callback_head
  40 void *slots[64]
  552 unsigned long tags[3][1]
  552 unsigned long marks[3][1]

struct mem_section 16
  0 unsigned long section_mem_map
  8 struct mem_section_usage *usage
struct mem_section_usage 56
  0 struct callback_head rcu
  16 unsigned long subsection_map[1]
  24 unsigned long pageblock_flags[0]

struct range 16
  0 u64 start
  8 u64 end
struct vmem_altmap 48
  0 unsigned long base_pfn
  8 unsigned long end_pfn
  16 unsigned long reserve
  24 unsigned long free
  32 unsigned long align
  40 unsigned long alloc
struct completion 32
  0 unsigned int done

struct percpu_ref 16
  0 unsigned long percpu_count_ptr
  8 struct percpu_ref_data *data
struct percpu_ref_data 56
  0 atomic_long_t count
  8 void *release
  16 void *confirm_switch
  32 struct callback_head rcu
  48 struct percpu_ref *ref
struct percpu_rw_semaphore 96
  88 atomic_t block

struct resource 64
  0 unsigned long start
  8 unsigned long end
  16 const char *name
  24 unsigned long flags
  32 unsigned long desc
  40 struct resource *parent
  48 struct resource *sibling
  56 struct resource *child
struct zone 256
  0 struct pglist_data *zone_pgdat
  8 unsigned long zone_start_pfn
  16 atomic_long_t managed_pages
  24 unsigned long spanned_pages
  32 unsigned long present_pages
  40 const char *name
  48 int node
  200 void *per_cpu_pageset
struct pglist_data 1600
  0 struct zone node_zones[5]
  1280 int nr_zones
  1288 unsigned long node_start_pfn
  1296 unsigned long node_present_pages
  1304 unsigned long node_spanned_pages
  1312 int node_id
  1320 unsigned long first_deferred_pfn

enum zone_type
  ZONE_DMA 0
  ZONE_DMA32 1
  ZONE_NORMAL 2
  ZONE_MOVABLE 3
  ZONE_DEVICE 4
  __MAX_NR_ZONES 5
enum node_states
  N_POSSIBLE 0
  N_ONLINE 1
  N_NORMAL_MEMORY 2
  N_HIGH_MEMORY 2
  N_MEMORY 3
  N_CPU 4
  NR_NODE_STATES 5
enum -percpu_ref
  __PERCPU_REF_ATOMIC 1
  __PERCPU_REF_DEAD 2
  __PERCPU_REF_ATOMIC_DEAD 3
  __PERCPU_REF_FLAG_BITS 2
"""

# The words of struct page that never moved from 5.10 to 7.3.
_PAGE = """
  8 struct list_head lru
  16 void *zone_device_data
  24 struct address_space *mapping
  40 unsigned long private
  48 atomic_t _mapcount
  48 unsigned int page_type
  52 atomic_t _refcount
"""

_MEMORY_TYPES_5_10 = """
enum memory_type
  MEMORY_DEVICE_PRIVATE 1
  MEMORY_DEVICE_FS_DAX 2
  MEMORY_DEVICE_GENERIC 3
  MEMORY_DEVICE_PCI_P2PDMA 4
"""
_MEMORY_TYPES = """
enum memory_type
  MEMORY_DEVICE_PRIVATE 1
  MEMORY_DEVICE_COHERENT 2
  MEMORY_DEVICE_FS_DAX 3
  MEMORY_DEVICE_GENERIC 4
  MEMORY_DEVICE_PCI_P2PDMA 5
"""
_SECTION_BITS = """
enum -section_bits
  SECTION_MARKED_PRESENT_BIT 0
  SECTION_HAS_MEM_MAP_BIT 1
  SECTION_IS_ONLINE_BIT 2
  SECTION_IS_EARLY_BIT 3
  SECTION_TAINT_ZONE_DEVICE_BIT 4
"""
_OPS_6 = """
struct dev_pagemap_ops 24
  0 void *page_free
  8 void *migrate_to_ram
  16 void *memory_failure
"""
_PAGE_TYPES = """
enum pagetype
  PGTY_buddy 240
  PGTY_offline 241
  PGTY_table 242
  PGTY_guard 243
  PGTY_hugetlb 244
  PGTY_slab 245
  PGTY_mapcount_underflow 255
"""
_DESTRUCTORS = """
enum compound_dtor_id
  NULL_COMPOUND_DTOR 0
  COMPOUND_PAGE_DTOR 1
  HUGETLB_PAGE_DTOR 2
"""
_MEMORY_BLOCK_DEVICE = """
struct kobject 64
  0 const char *name
struct device 704
  0 struct kobject kobj
"""


def _pagemap(done: int, ops: int, ref: str) -> str:
    """The members of dev_pagemap, given the offsets of those that others follow."""
    return f"""
  0 struct vmem_altmap altmap
{ref}
  {done} struct completion done
  {done + 32} enum memory_type type
  {done + 36} unsigned int flags
  {ops} const struct dev_pagemap_ops *ops
  {ops + 8} void *owner
  {ops + 16} int nr_range
  {ops + 24} struct range range
  {ops + 24} struct range ranges[0]
"""


def _numbered(names: str) -> str:
    """Enumerators for page flags, in the order of the kernel's header: "a=b" share a bit."""
    bits = [word.split("=") for word in names.split()]
    lines = [f"  PG_{name} {bit}" for bit, names in enumerate(bits) for name in names]
    return "\n".join(["enum pageflags", *lines, f"  __NR_PAGEFLAGS {len(bits)}"]) + "\n"


_XEN = "checked=pinned=foreign=xen_remapped"
_PAGEFLAGS_5_10 = _numbered(
    "locked referenced uptodate=reported dirty=savepinned lru active workingset=double_map waiters"
    f" error slab owner_priv_1=swapcache={_XEN} arch_1 reserved private=slob_free"
    " private_2=fscache writeback head mappedtodisk reclaim=isolated swapbacked unevictable"
    " mlocked uncached hwpoison"
)
_PAGEFLAGS_6_1 = _numbered(
    "locked referenced uptodate=reported dirty=savepinned lru active workingset=double_map waiters"
    f" error=has_hwpoisoned slab owner_priv_1=swapcache={_XEN}=vmemmap_self_hosted arch_1 reserved"
    " private=slob_free private_2=fscache writeback head mappedtodisk=anon_exclusive"
    " reclaim=readahead=isolated swapbacked unevictable mlocked uncached hwpoison"
)
_PAGEFLAGS_6_12 = _numbered(
    "locked writeback referenced uptodate=reported dirty=savepinned lru head waiters"
    " active=has_hwpoisoned workingset=large_rmappable"
    f" owner_priv_1=swapcache={_XEN}=vmemmap_self_hosted owner_2=anon_exclusive=mappedtodisk"
    " arch_1 reserved private private_2=fscache reclaim=readahead=isolated=partially_mapped"
    " swapbacked unevictable mlocked hwpoison young idle arch_2"
)
_PAGEFLAGS_7 = _numbered(
    "locked writeback referenced uptodate=movable_ops=reported dirty=savepinned lru head waiters"
    " active=has_hwpoisoned workingset=large_rmappable"
    f" owner_priv_1=swapcache={_XEN}=vmemmap_self_hosted owner_2=anon_exclusive=mappedtodisk"
    " arch_1 reserved private private_2=fscache"
    " reclaim=readahead=movable_ops_isolated=partially_mapped"
    " swapbacked unevictable dropbehind mlocked hwpoison young idle arch_2"
)

_TEXT_5_10 = (
    _MEMORY_TYPES_5_10
    + _PAGEFLAGS_5_10
    + _DESTRUCTORS
    + _MEMORY_BLOCK_DEVICE
    + f"""
struct dev_pagemap 152
{_pagemap(72, 112, "  48 struct percpu_ref *ref" + chr(10) + "  56 struct percpu_ref internal_ref")}
struct dev_pagemap_ops 32
  0 void *page_free
  8 void *kill
  16 void *cleanup
  24 void *migrate_to_ram
struct page 64
  0 unsigned long flags
{_PAGE}
  8 struct dev_pagemap *pgmap
  8 unsigned long compound_head
  16 unsigned char compound_dtor
  17 unsigned char compound_order
  20 atomic_t compound_mapcount
  24 unsigned int compound_nr
  32 unsigned long index
struct memory_block 728
  0 unsigned long start_section_nr
  8 unsigned long state
  16 int online_type
  20 int nid
  24 struct device dev
"""
)

_TEXT_6_1 = (
    _MEMORY_TYPES
    + _SECTION_BITS
    + "  SECTION_MAP_LAST_BIT 5\n"
    + _PAGEFLAGS_6_1
    + _DESTRUCTORS
    + _OPS_6
    + _MEMORY_BLOCK_DEVICE
    + f"""
struct dev_pagemap 152
{_pagemap(64, 112, "  48 struct percpu_ref ref")}
  104 unsigned long vmemmap_shift
struct page 64
  0 unsigned long flags
{_PAGE}
  8 struct dev_pagemap *pgmap
  8 unsigned long compound_head
  16 unsigned char compound_dtor
  17 unsigned char compound_order
  20 atomic_t compound_mapcount
  24 atomic_t compound_pincount
  28 unsigned int compound_nr
  32 unsigned long index
  56 unsigned long memcg_data
struct folio 112
  0 unsigned long flags
{_PAGE}
  0 struct page page
  32 pgoff_t index
  56 unsigned long memcg_data
  64 unsigned long _flags_1
  72 unsigned long __head
  80 unsigned char _folio_dtor
  81 unsigned char _folio_order
  84 atomic_t _total_mapcount
  88 atomic_t _pincount
  92 unsigned int _folio_nr_pages
struct memory_block 768
  0 unsigned long start_section_nr
  8 unsigned long state
  16 int online_type
  20 int nid
  24 struct zone *zone
  32 struct device dev
  736 unsigned long nr_vmemmap_pages
"""
)

_TEXT_6_12 = (
    _MEMORY_TYPES
    + _SECTION_BITS
    + "  SECTION_MAP_LAST_BIT 5\n"
    + _PAGEFLAGS_6_12
    + _PAGE_TYPES
    + _OPS_6
    + _MEMORY_BLOCK_DEVICE
    + f"""
struct vmem_altmap 56
  0 unsigned long base_pfn
  8 unsigned long end_pfn
  16 unsigned long reserve
  24 unsigned long free
  32 unsigned long align
  40 unsigned long alloc
  48 bool inaccessible
struct dev_pagemap 160
{_pagemap(72, 120, "  56 struct percpu_ref ref")}
  112 unsigned long vmemmap_shift
struct page 64
  0 unsigned long flags
{_PAGE}
  8 struct dev_pagemap *pgmap
  8 unsigned long compound_head
  32 unsigned long index
  56 unsigned long memcg_data
struct folio 192
  0 unsigned long flags
{_PAGE}
  0 struct page page
  32 pgoff_t index
  56 unsigned long memcg_data
  64 unsigned long _flags_1
  72 unsigned long _head_1
  80 atomic_t _large_mapcount
  84 atomic_t _entire_mapcount
  88 atomic_t _nr_pages_mapped
  92 atomic_t _pincount
  96 unsigned int _folio_nr_pages
  144 struct list_head _deferred_list
struct memory_block 768
  0 unsigned long start_section_nr
  8 unsigned long state
  16 int online_type
  20 int nid
  24 struct zone *zone
  32 struct device dev
  736 struct vmem_altmap *altmap
"""
)

_TEXT_7_2 = (
    _MEMORY_TYPES
    + _SECTION_BITS
    + "  SECTION_IS_VMEMMAP_PREINIT_BIT 5\n  SECTION_MAP_LAST_BIT 6\n"
    + _PAGEFLAGS_7
    + _PAGE_TYPES
    + _MEMORY_BLOCK_DEVICE
    + f"""
anon memdesc_flags_t 8
  0 unsigned long f
struct mem_section_usage 88
  0 struct callback_head rcu
  16 unsigned long subsection_map[1]
  24 unsigned long pageblock_flags[0]
struct zone 256
  0 struct pglist_data *zone_pgdat
  8 unsigned long zone_start_pfn
  16 atomic_long_t managed_pages
  24 unsigned long spanned_pages
  32 unsigned long present_pages
  40 const char *name
  48 int node
  56 struct page *vmemmap_tails[12]
  200 void *per_cpu_pageset
struct dev_pagemap 152
{_pagemap(64, 112, "  48 struct percpu_ref ref")}
  104 unsigned long vmemmap_shift
struct dev_pagemap_ops 32
  0 void *folio_free
  8 void *migrate_to_ram
  16 void *memory_failure
  24 void *folio_split
struct page 64
  0 memdesc_flags_t flags
{_PAGE}
  8 unsigned long compound_info
  8 void *_unused_pgmap_compound_info
  32 unsigned long __folio_index
  56 unsigned long memcg_data
struct folio 256
  0 memdesc_flags_t flags
{_PAGE}
  0 struct page page
  8 struct dev_pagemap *pgmap
  32 pgoff_t index
  56 unsigned long memcg_data
  64 unsigned long _flags_1
  72 unsigned long _head_1
  80 atomic_t _large_mapcount
  84 atomic_t _nr_pages_mapped
  88 atomic_t _entire_mapcount
  92 atomic_t _pincount
  120 unsigned int _nr_pages
  144 struct list_head _deferred_list
enum kpage_operation
  KPAGE_FLAGS 0
  KPAGE_COUNT 1
  KPAGE_CGROUP 2
enum memory_block_state
  MEM_ONLINE 0
  MEM_GOING_OFFLINE 1
  MEM_OFFLINE 2
  MEM_GOING_ONLINE 3
  MEM_CANCEL_ONLINE 4
  MEM_CANCEL_OFFLINE 5
struct memory_block 768
  0 unsigned long start_section_nr
  8 enum memory_block_state state
  12 int online_type
  16 int nid
  24 struct zone *zone
  32 struct device dev
  736 struct vmem_altmap *altmap
"""
)

_TEXTS = {"5.10": _TEXT_5_10, "6.1": _TEXT_6_1, "6.12": _TEXT_6_12, "7.2": _TEXT_7_2}

# Before 6.19, memory block states are macros, so no debug info has them.
_MEMORY_BLOCK_MACROS = {
    "MEM_ONLINE": 1,
    "MEM_GOING_OFFLINE": 2,
    "MEM_OFFLINE": 4,
    "MEM_GOING_ONLINE": 8,
    "MEM_CANCEL_ONLINE": 16,
    "MEM_CANCEL_OFFLINE": 32,
}

_SCALARS = {
    "_Bool": 1,
    "unsigned char": 1,
    "int": 4,
    "unsigned int": 4,
    "long": 8,
    "unsigned long": 8,
}

_HEADER = re.compile(r"(struct|anon) (\w+) (\d+)$")
_DECLARATION = re.compile(r"(\d+) (.+?)\s*(\**)(\w+)((?:\[\d+\])*)$")


@dataclass(frozen=True)
class Member:
    """One member of a structure; *type* is a C type name that drgn parses."""

    type: str
    offset: int


@dataclass
class Struct:
    """A structure, or with *anonymous* the target of a typedef of that name."""

    size: int
    anonymous: bool
    members: dict[str, Member] = field(default_factory=dict)


@dataclass
class Layout:
    """All types of one kernel version."""

    name: str
    structs: dict[str, Struct] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    typedefs: dict[str, str] = field(default_factory=dict)

    def constant(self, name: str) -> int:
        """Value of an enumerator, or of a macro that debug info lacks."""
        for enumerators in self.enums.values():
            if name in enumerators:
                return enumerators[name]
        return _MEMORY_BLOCK_MACROS[name]

    def enum_of(self, name: str) -> str | None:
        """Key of the enumeration that defines an enumerator."""
        return next((key for key, names in self.enums.items() if name in names), None)

    def has_constant(self, name: str) -> bool:
        """Whether debug info has an enumerator of that name."""
        return self.enum_of(name) is not None

    def has_member(self, struct: str, member: str) -> bool:
        """Whether a structure has a member."""
        return member in self.structs[struct].members

    def sizeof(self, type_name: str) -> int:
        """Size of a C type without arrays."""
        bare = type_name.replace("const ", "")
        if bare.endswith("*"):
            return 8
        if bare.startswith("enum "):
            return 4
        if bare in self.typedefs:
            return self.sizeof(self.typedefs[bare])
        if bare in _SCALARS:
            return _SCALARS[bare]
        return self.structs[bare.replace("struct ", "")].size

    def locate(self, struct: str, path: str) -> tuple[int, int]:
        """Offset and size of a member, given like ``ref.percpu_count_ptr``."""
        offset, type_name = 0, f"struct {struct}"
        for name in path.split("."):
            tag = type_name.replace("struct ", "")
            member = self.structs[tag].members[name]
            offset, type_name = offset + member.offset, member.type
        return offset, self.sizeof(type_name)


def _parse_member(struct: Struct, line: str) -> None:
    match = _DECLARATION.match(line)
    assert match, line
    offset, base, stars, name, dimensions = match.groups()
    declared = f"{base} {stars}{dimensions}" if stars or dimensions else base
    struct.members[name] = Member(declared, int(offset))


def _parse(name: str, lines: list[str]) -> Layout:
    """Later definitions replace earlier ones, so versions override _COMMON."""
    layout = Layout(name)
    struct: Struct | None = None
    enumerators: dict[str, int] = {}
    for line in filter(None, map(str.strip, lines)):
        header = _HEADER.match(line)
        if header:
            struct = Struct(int(header[3]), header[1] == "anon")
            layout.structs[header[2]] = struct
        elif line.startswith("typedef "):
            target, _, alias = line[len("typedef ") :].rpartition(" ")
            layout.typedefs[alias] = target
        elif line.startswith("enum "):
            struct, enumerators = None, {}
            layout.enums[line[len("enum ") :]] = enumerators
        elif struct is not None:
            _parse_member(struct, line)
        else:
            enumerator, value = line.split()
            enumerators[enumerator] = int(value)
    return layout


_TEXTS["6.12-proposal"] = (
    _TEXTS["6.12"]
    + """
struct mem_section_usage 72
  0 struct callback_head rcu
  16 unsigned long subsection_map[1]
  24 unsigned long subsection_dev_map[1]
  32 unsigned long subsection_init_map[1]
  40 unsigned long pageblock_flags[0]
"""
)


def _load() -> Mapping[str, Layout]:
    return {name: _parse(name, (_COMMON + text).splitlines()) for name, text in _TEXTS.items()}


TABLES = _load()


def with_page_size(layout: Layout, size: int) -> Layout:
    """The same kernel with more words at the end of struct page."""
    structs = dict(layout.structs)
    for name in ("page", "folio"):
        if name not in structs:
            continue
        before = structs[name]
        members = {
            key: Member(member.type, member.offset // 64 * size + member.offset % 64)
            for key, member in before.members.items()
        }
        structs[name] = Struct(-(-before.size // 64) * size, before.anonymous, members)
    return Layout(layout.name, structs, layout.enums, layout.typedefs)
