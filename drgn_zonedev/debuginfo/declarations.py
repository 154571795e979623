# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Declarations
------------

What the kernel's C source says and BTF does not: the types of global variables, and the
dimensions of arrays that have several. BTF knows per-CPU variables only, and none of
Linux 5.10.

Who needs another variable adds it here. A dimension is a number, an enumerator,
``MAX_NUMNODES``, or empty if nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ("DECLARED_TYPES", "LEADING_DIMENSIONS")

_BY_TYPE: Mapping[str, str] = {
    "atomic_long_t": (
        "_totalram_pages nr_memmap_boot_pages nr_memmap_pages nr_swap_pages num_poisoned_pages"
    ),
    "atomic_long_t [NR_VM_NODE_STAT_ITEMS]": "vm_node_stat",
    "atomic_long_t [NR_VM_NUMA_EVENT_ITEMS]": "vm_numa_event",
    "atomic_long_t [NR_VM_NUMA_STAT_ITEMS]": "vm_numa_stat",
    "atomic_long_t [NR_VM_ZONE_STAT_ITEMS]": "vm_zone_stat",
    "atomic_t": "panic_cpu pgdat_init_n_undone",
    "bool": "movable_node_enabled page_init_poisoning",
    "char *": "log_buf saved_command_line",
    "const struct address_space_operations": "shmem_aops",
    "const struct file_operations": "io_uring_fops ns_file_operations pipeanon_fops pipefifo_fops",
    "enum slab_state": "slab_state",
    "gate_desc [256]": "idt_table",
    "int": (
        "crashing_cpu hugetlb_max_hstate ipc_mni_shift nr_threads sections_per_block "
        "sysctl_overcommit_memory sysctl_overcommit_ratio sysctl_panic_on_oom"
    ),
    "long": "total_swap_pages",
    "nodemask_t [NR_NODE_STATES]": "node_states",
    "phys_addr_t": "physical_mask",
    "s64": "memstart_addr",
    "struct blk_major_name *[255]": "major_names",
    "struct bus_type": "memory_subsys pci_bus_type",
    "struct cgroup_root": "cgrp_dfl_root",
    "struct char_device_struct *[255]": "chrdevs",
    "struct class": "block_class",
    "struct cpumask": "__cpu_online_mask __cpu_possible_mask __cpu_present_mask",
    "struct cred": "init_cred",
    "struct css_set": "init_css_set",
    "struct exception_stacks": "exception_stacks",
    "struct fs_struct": "init_fs",
    "struct fs_struct *": "userspace_init_fs",
    "struct hlist_head *": "mount_hashtable",
    "struct hrtimer_cpu_base": "hrtimer_bases",
    "struct idr": "btf_idr link_idr map_idr prog_idr",
    "struct inode *": "iomem_inode",
    "struct ipc_namespace": "init_ipc_ns",
    "struct kernfs_node *": "sysfs_root_kn",
    "struct kimage *": "kexec_crash_image",
    "struct kmem_cache *": "kmem_cache task_struct_cachep",
    "struct kobj_map *": "cdev_map",
    "struct kobj_type": "bus_ktype class_ktype device_ktype driver_ktype module_ktype",
    "struct kset *": "bus_kset class_kset devices_kset module_kset slab_kset",
    "struct list_head": (
        "cgroup_roots clocksource_list modules net_namespace_list pci_root_buses pgd_list "
        "shrinker_list slab_caches super_blocks vmap_area_list workqueues"
    ),
    "struct maple_tree": "sparse_irqs",
    "struct mem_cgroup *": "root_mem_cgroup",
    "struct mem_section **": "mem_section",
    "struct memblock": "memblock",
    "struct mm_struct": "init_mm",
    "struct mod_tree_root": "mod_tree",
    "struct neigh_table": "arp_tbl",
    "struct net": "init_net",
    "struct page *": "mem_map",
    "struct percpu_counter": "vm_committed_as",
    "struct percpu_rw_semaphore": "mem_hotplug_lock",
    "struct pglist_data": "contig_page_data",
    "struct pglist_data *[MAX_NUMNODES]": "node_data",
    "struct pid_namespace": "init_pid_ns",
    "struct printk_ringbuffer *": "prb",
    "struct rb_root": "vmap_area_root",
    "struct resource": "crashk_res iomem_resource ioport_resource",
    "struct rq": "runqueues",
    "struct softirq_action [NR_SOFTIRQS]": "softirq_vec",
    "struct static_key_false": "devmap_managed_key hugetlb_optimize_vmemmap_key",
    "struct static_key_true": "deferred_pages",
    "struct super_block *": "blockdev_superblock",
    "struct swap_info_struct *[]": "swap_info",
    "struct task_group": "root_task_group",
    "struct task_struct": "init_task",
    "struct time_namespace": "init_time_ns",
    "struct timer_list": "poll_spurious_irq_timer",
    "struct user_namespace": "init_user_ns",
    "struct uts_namespace": "init_uts_ns",
    "struct vm_event_state": "vm_event_states",
    "struct vmap_node": "single",
    "struct vmap_node *": "vmap_nodes",
    "struct xarray": "irq_desc_tree memory_blocks pgmap_array",
    "u32": "hwpoison_filter_enable",
    # uevent_seqnum is atomic64_t since Linux kernel commit 2444a80c1cc2 ("kobject: make
    # uevent_seqnum atomic") (in v6.9), which leaves no trace in BTF: the same 8 bytes.
    "u64": "jiffies_64 sme_me_mask uevent_seqnum",
    "u8 *": "numa_distance",
    "u8 [PAGE_SIZE]": "empty_zero_page",
    "unsigned int": (
        "__pgtable_l5_enabled nr_cpu_ids nr_node_ids nr_online_nodes nr_swapfiles nr_vmap_nodes "
        "pgdir_shift ptrs_per_p4d total_nr_irqs vmap_zone_size"
    ),
    "unsigned long": (
        "__highest_present_section_nr huge_zero_pfn jiffies max_low_pfn max_mapnr max_pfn "
        "memory_block_size_probed min_low_pfn page_offset_base "
        "sysctl_overcommit_kbytes tainted_mask vmalloc_base vmemmap_base zero_pfn"
    ),
    "unsigned long []": "__per_cpu_offset",
    "unsigned long [3]": "avenrun",
    "void *": "high_memory",
    "wait_queue_head_t [256]": "bit_wait_table",
}

DECLARED_TYPES: Mapping[str, str] = {
    name: c_type for c_type, names in _BY_TYPE.items() for name in names.split()
}
"""The C type of each variable."""

LEADING_DIMENSIONS: Mapping[tuple[str, str], int] = {
    # XA_MAX_MARKS and RADIX_TREE_MAX_TAGS
    ("xa_node", "marks"): 3,
    ("xa_node", "tags"): 3,
}
"""
The first dimension of an array that has several, by the tag of the struct, or of the
struct around an anonymous one, and the name of the member.
"""
