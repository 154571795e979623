# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The names whose debugging information an export keeps. Names that a kernel does not have are
skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drgn import FindObjectFlags, Program, Symbol, TypeKind, TypeKindSet

from drgn_zonedev.pfn_walkers.table import WALKERS

__all__ = ("CONSTANTS", "FUNCTIONS", "SYMBOLS", "TYPES", "VARIABLES", "MissingNames")

TYPES = (
    # What drgn needs of C, whatever is debugged.
    *("char", "signed char", "unsigned char", "short", "unsigned short", "int", "unsigned int"),
    *("long", "unsigned long", "long long", "unsigned long long", "_Bool"),
    *("size_t", "ptrdiff_t", "phys_addr_t", "pfn_t", "gfp_t", "atomic_t", "atomic_long_t"),
    # The memory map.
    *("struct page", "struct folio", "struct ptdesc", "struct slab"),
    *("struct mem_section", "struct mem_section_usage", "struct page_ext"),
    *("struct pglist_data", "struct zone", "struct zonelist", "struct free_area"),
    *("struct memory_block", "struct memory_group", "struct resource", "struct range"),
    *("struct per_cpu_pages", "struct address_space"),
    # Device memory.
    *("struct dev_pagemap", "struct dev_pagemap_ops", "struct vmem_altmap"),
    *("struct percpu_ref", "struct percpu_ref_data", "struct percpu_rw_semaphore"),
    # Containers.
    *("struct xarray", "struct xa_node", "struct list_head", "struct hlist_node"),
    *("struct hlist_head", "struct rb_node", "struct rb_root", "struct klist"),
    *("struct klist_node", "struct llist_node", "struct llist_head", "struct callback_head"),
    *("struct latch_tree_node", "struct latch_tree_root", "struct cpumask", "nodemask_t"),
    # Devices and what they manage.
    *("struct device", "struct device_private", "struct kobject", "struct kset"),
    *("struct bus_type", "struct class", "struct subsys_private", "struct device_driver"),
    *("struct devres", "struct devres_node", "struct devres_action", "struct action_devres"),
    # Modules and their symbols.
    *("struct module", "struct module_memory", "struct module_layout", "struct mod_tree_node"),
    *("struct mod_tree_root", "struct mod_kallsyms", "struct elf64_sym", "Elf64_Sym"),
    *("struct module_kobject", "struct module_sect_attrs", "struct module_sect_attr"),
    *("struct module_notes_attrs", "struct attribute_group", "struct bin_attribute"),
    *("struct attribute",),
    # Slab objects.
    *("struct kmem_cache", "struct kmem_cache_cpu", "struct kmem_cache_node"),
    *("struct slub_percpu_sheaves", "struct slab_sheaf", "struct node_barn"),
    *("freelist_aba_t", "struct mm_struct", "enum memory_block_state"),
    # With CONFIG_SLAB, up to v6.7, drgn also looks for free objects in the arrays of nodes.
    *("freelist_idx_t", "struct array_cache", "struct alien_cache"),
)

# Any enumerator brings its whole enumeration.
CONSTANTS = (
    "SECTION_MARKED_PRESENT_BIT",
    "PG_locked",
    "PGTY_slab",
    "ZONE_DEVICE",
    "N_ONLINE",
    "MIGRATE_UNMOVABLE",
    "NR_FREE_PAGES",
    "WMARK_MIN",
    "MEMORY_DEVICE_FS_DAX",
    "MEM_ONLINE",
    "COMPOUND_PAGE_DTOR",
    "__PERCPU_REF_DEAD",
    "MOD_TEXT",
    "MODULE_STATE_LIVE",
    "MHP_DEFAULT",
    "NR_PAGEBLOCK_BITS",
    "__NR_PAGEBLOCK_BITS",
    "MF_COUNT_INCREASED",
    "KPAGE_FLAGS",
)

VARIABLES = (
    *("mem_section", "__highest_present_section_nr", "mem_map", "max_mapnr", "vmemmap"),
    *("pgmap_array", "memory_blocks", "sections_per_block", "mem_hotplug_lock"),
    *("node_data", "contig_page_data", "node_states", "nr_node_ids", "nr_online_nodes"),
    *("nr_cpu_ids", "__cpu_possible_mask", "__cpu_online_mask", "__cpu_present_mask"),
    *("__per_cpu_offset", "devices_kset", "bus_kset", "memory_subsys", "iomem_resource"),
    *("modules", "mod_tree", "init_mm", "slab_caches", "slab_state"),
    *("page_offset_base", "vmalloc_base", "vmemmap_base", "phys_base", "physical_mask"),
    *("max_low_pfn", "min_low_pfn", "max_pfn", "__pgtable_l5_enabled", "memstart_addr"),
    *("sme_me_mask", "zero_pfn", "huge_zero_pfn", "page_init_poisoning"),
    *("empty_zero_page", "shmem_aops", "init_uts_ns"),
)

# Some kernels differ only in having one of these functions.
FUNCTIONS = (
    "vmemmap_populate",
    "pfn_to_online_page",
    "pgmap_pfn_valid",
    "memremap_pages",
    "memunmap_pages",
    "memmap_init_zone_device",
    "get_dev_pagemap",
    "move_pfn_range_to_zone",
    "memory_failure",
    # Every kernel has these. An export that has one of them also has those of the walkers.
    *sorted({walker.beside for walker in WALKERS}),
    *sorted({name for walker in WALKERS for name in (*walker.functions, *walker.needs)}),
    *sorted({g.function for walker in WALKERS for g in walker.guards if g.function}),
)

SYMBOLS = (
    "devm_action_release",
    "devm_kmalloc_release",
    "devm_memremap_pages_release",
    # If the symbol is global, the function is the architecture's own; copies of the generic one are
    # local.
    "pfn_valid",
)


_KEYWORDS = {
    TypeKind.STRUCT: "struct ",
    TypeKind.UNION: "union ",
    TypeKind.CLASS: "class ",
    TypeKind.ENUM: "enum ",
}


@dataclass(frozen=True)
class MissingNames:
    """Collects the names that a program is asked for, but does not have."""

    types: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    symbols: set[str | int] = field(default_factory=set)

    def watch(self, prog: Program) -> None:
        """Watch a program whose debugging information is loaded."""
        prog.register_type_finder("missing", self._type, enable_index=-1)
        prog.register_object_finder("missing", self._object, enable_index=-1)
        prog.register_symbol_finder("missing", self._symbol, enable_index=-1)

    def _type(self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None) -> None:
        self.types.update(_KEYWORDS.get(kind, "") + name for kind in kinds)

    def _object(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> None:
        self.objects.add(name)

    def _symbol(
        self, prog: Program, name: str | None, address: int | None, one: bool
    ) -> list[Symbol]:
        if name is not None:
            self.symbols.add(name)
        elif address is not None:
            self.symbols.add(address)
        return []

    def present_in(self, prog: Program) -> MissingNames:
        """Return those of the names that another program has."""
        return MissingNames(
            {name for name in self.types if _has(prog.type, name)},
            {name for name in self.objects if _has(prog.object, name)},
            {key for key in self.symbols if _has(prog.symbol, key)},
        )

    def __or__(self, other: MissingNames) -> MissingNames:
        return MissingNames(
            self.types | other.types, self.objects | other.objects, self.symbols | other.symbols
        )

    def __bool__(self) -> bool:
        return bool(self.types or self.objects or self.symbols)


def _has(find: Callable[[Any], object], key: str | int) -> bool:
    try:
        find(key)
    except (LookupError, SyntaxError, ValueError):
        return False
    return True
