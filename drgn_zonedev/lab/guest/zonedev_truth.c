// SPDX-License-Identifier: GPL-2.0
/*
 * What this kernel answers for every PFN of every present section and of every pgmap, run-length
 * encoded, in /proc/zonedev_truth. Each line is a half-open range of PFNs:
 *
 *   START END VALID ONLINE PGMAP PGMAP_VALID ZONE NID ORDER PAGE_PGMAP ZONE_DEVICE CLAIMED RESERVED
 *
 * PFNs, PGMAP, ZONE, NID, ORDER and PAGE_PGMAP are in hex, the others 0 or 1.
 * VALID        pfn_valid()
 * ONLINE       pfn_to_online_page() != NULL
 * PGMAP        get_dev_pagemap(), 0 if NULL
 * PGMAP_VALID  pgmap_pfn_valid(PGMAP), 0 without one
 * ZONE, NID    of the struct page, "-" where it is not touched
 * ORDER        the head of each PFN is PFN rounded down to 1 << ORDER, or "x" if it is not. "-" for
 *              all but pages with PGMAP_VALID: folios in RAM come and go.
 * PAGE_PGMAP   the pgmap in the head page; "-" as with ORDER
 * ZONE_DEVICE  pfn_zone_device(), "-" if this kernel has no such function
 * CLAIMED      pfn_zone_device_claimed(), and
 * RESERVED     pfn_zone_device_reserved(), "-" likewise
 *
 * A struct page is touched if it is online or PGMAP_VALID. With touch_valid=1, it is also touched
 * for ZONE and NID if there is nothing but pfn_valid(), which maps it, but does not promise that
 * anybody initialised it.
 *
 * Every answer is the kernel's own: exported functions, the headers' inline functions, and, where a
 * symbol is not exported, the kernel's symbol table.
 *
 * A write to /proc/zonedev_freeze stops the machine for good. In that instant, what the kernel says
 * of every initialised struct page, and the counters of its nodes and zones, are written to memory
 * that was allocated before (struct frozen); then "== frozen ADDRESS" goes to the second serial port.
 * The host reads these answers out of the same memory as the struct pages.
 */
#include <linux/hugetlb.h>
#include <linux/io.h>
#include <linux/kernel-page-flags.h>
#include <linux/kprobes.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/page-flags.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/shmem_fs.h>
#include <linux/stop_machine.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "live_pgmap.h"

static bool touch_valid;
module_param(touch_valid, bool, 0444);
MODULE_PARM_DESC(touch_valid, "read zone and node of every page with pfn_valid()");

#define NOT_TOUCHED (-1)
#define IRREGULAR (-2)
#define ENDBR64 0xfa1e0ff3u
#define ADDIS_R2_R12 0x3c4cu
#define RESCHED_PAGES 4096

static bool (*kernel_pgmap_pfn_valid)(struct dev_pagemap *pgmap, unsigned long pfn);
static struct xarray *kernel_pgmap_array;
static u64 (*kernel_stable_page_flags)(const struct page *page);
static struct address_space *(*kernel_folio_mapping)(struct page *head);
static long (*kernel_copy_nofault)(void *to, const void *from, size_t size);
static const void *kernel_shmem_aops;
static const unsigned long *kernel_huge_zero_pfn;

struct answer {
	struct dev_pagemap *pgmap;
	struct dev_pagemap *page_pgmap;
	int zone;
	int nid;
	int order;
	int zone_device;
	int claimed;
	int reserved;
	bool valid;
	bool online;
	bool pgmap_valid;
};

struct run {
	unsigned long start;
	unsigned long end;
	struct answer answer;
};

/* --- what differs between kernels: see Kbuild --- */

static struct dev_pagemap *pgmap_in(struct page *page)
{
#ifdef HAVE_PAGE_PGMAP
	return page_pgmap(page);
#else
	return compound_head(page)->pgmap;
#endif
}

static void ask_zone_device(unsigned long pfn, struct answer *answer)
{
#ifdef HAVE_PFN_ZONE_DEVICE
	answer->zone_device = pfn_zone_device(pfn);
	answer->claimed = pfn_zone_device_claimed(pfn);
	answer->reserved = pfn_zone_device_reserved(pfn);
#else
	answer->zone_device = NOT_TOUCHED;
	answer->claimed = NOT_TOUCHED;
	answer->reserved = NOT_TOUCHED;
#endif
}

/* --- one PFN --- */

static int head_order(struct page *page, unsigned long pfn)
{
	struct page *head = compound_head(page);
	int order;

	if (head == page && !PageHead(page))
		return 0;
	order = compound_order(head);
	if (order >= BITS_PER_LONG || page_to_pfn(head) != round_down(pfn, 1UL << order))
		return IRREGULAR;
	return order;
}

static void ask_page(unsigned long pfn, struct answer *answer)
{
	struct page *page = pfn_to_page(pfn);

	if (!answer->online && !answer->pgmap_valid && !(touch_valid && answer->valid))
		return;
	answer->zone = page_zonenum(page);
	answer->nid = page_to_nid(page);
	if (!answer->pgmap_valid)
		return;
	answer->order = head_order(page, pfn);
	answer->page_pgmap = pgmap_in(page);
}

static void ask(unsigned long pfn, struct answer *answer)
{
	/* Runs are compared as memory, with what lies between the members. */
	memset(answer, 0, sizeof(*answer));
	answer->zone = NOT_TOUCHED;
	answer->nid = NOT_TOUCHED;
	answer->order = NOT_TOUCHED;
	answer->valid = pfn_valid(pfn);
	answer->online = pfn_to_online_page(pfn) != NULL;
	answer->pgmap = live_pgmap(pfn);
	answer->pgmap_valid = answer->pgmap && kernel_pgmap_pfn_valid(answer->pgmap, pfn);
	ask_page(pfn, answer);
	ask_zone_device(pfn, answer);
	if (answer->pgmap)
		put_dev_pagemap(answer->pgmap);
}

/* --- which PFNs --- */

/* A machine that is stopped cannot schedule. */
static void rest(void)
{
	if (!irqs_disabled())
		cond_resched();
}

static bool claimed(unsigned long start_nr, unsigned long end_nr)
{
	unsigned long pfn = section_nr_to_pfn(start_nr);

	if (!IS_ENABLED(CONFIG_ZONE_DEVICE))
		return false;
	return xa_find(kernel_pgmap_array, &pfn, section_nr_to_pfn(end_nr) - 1, XA_PRESENT);
}

/* The first section from nr on that is present or claimed by a pgmap. */
static unsigned long next_section(unsigned long nr)
{
	while (nr < NR_MEM_SECTIONS) {
		unsigned long next_root = round_down(nr, SECTIONS_PER_ROOT) + SECTIONS_PER_ROOT;

		if (!__nr_to_section(nr) && !claimed(nr, next_root)) {
			nr = next_root;
			rest();
		} else if (present_section(__nr_to_section(nr)) || claimed(nr, nr + 1)) {
			break;
		} else {
			nr++;
		}
	}
	return nr;
}

/* The run that begins at the first PFN to report from start on. */
static bool find_run(struct run *run, unsigned long start)
{
	unsigned long nr = next_section(pfn_to_section_nr(start));
	struct answer answer;

	if (nr >= NR_MEM_SECTIONS)
		return false;
	run->start = max(start, section_nr_to_pfn(nr));
	ask(run->start, &run->answer);
	for (run->end = run->start + 1;; run->end++) {
		if (run->end % PAGES_PER_SECTION == 0) {
			nr = pfn_to_section_nr(run->end);
			if (next_section(nr) != nr)
				break;
		}
		if (run->end % RESCHED_PAGES == 0)
			rest();
		ask(run->end, &answer);
		if (memcmp(&answer, &run->answer, sizeof(answer)))
			break;
	}
	return true;
}

/* --- /proc/zonedev_truth --- */

static void *truth_start(struct seq_file *file, loff_t *pfn)
{
	return find_run(file->private, *pfn) ? file->private : NULL;
}

static void *truth_next(struct seq_file *file, void *item, loff_t *pfn)
{
	struct run *run = item;

	*pfn = run->end;
	return truth_start(file, pfn);
}

static void truth_stop(struct seq_file *file, void *item)
{
}

static void show_number(struct seq_file *file, int number)
{
	if (number == NOT_TOUCHED)
		seq_puts(file, " -");
	else if (number == IRREGULAR)
		seq_puts(file, " x");
	else
		seq_printf(file, " %x", number);
}

static int truth_show(struct seq_file *file, void *item)
{
	struct run *run = item;
	struct answer *answer = &run->answer;

	seq_printf(file, "%lx %lx %d %d", run->start, run->end, answer->valid, answer->online);
	seq_printf(file, " %lx %d", (unsigned long)answer->pgmap, answer->pgmap_valid);
	show_number(file, answer->zone);
	show_number(file, answer->nid);
	show_number(file, answer->order);
	if (answer->pgmap_valid)
		seq_printf(file, " %lx", (unsigned long)answer->page_pgmap);
	else
		seq_puts(file, " -");
	show_number(file, answer->zone_device);
	show_number(file, answer->claimed);
	show_number(file, answer->reserved);
	seq_putc(file, '\n');
	return 0;
}

static const struct seq_operations truth_operations = {
	.start = truth_start,
	.next = truth_next,
	.stop = truth_stop,
	.show = truth_show,
};

/* --- /proc/zonedev_freeze --- */

/* The same numbers are in drgn_zonedev/lab/truth/frozen.py. */
enum {
	IS_ONLINE = 1 << 0,
	IS_TAIL = 1 << 1,
	IS_RESERVED = 1 << 2,
	IS_HWPOISON = 1 << 3,
	IS_SELF_HOSTED = 1 << 4,
	IS_BUDDY = 1 << 5,
	IS_OFFLINE = 1 << 6,
	IS_TABLE = 1 << 7,
	IS_GUARD = 1 << 8,
	IS_SLAB = 1 << 9,
	IS_HUGETLB = 1 << 10,
	IS_ZSMALLOC = 1 << 11,
	IS_UNACCEPTED = 1 << 12,
	IS_LARGE_KMALLOC = 1 << 13,
	IS_MEMMAP = 1 << 14, /* the page tables of the kernel lead from struct pages to it */
	IS_PCP = 1 << 15,
	IS_FILE = 1 << 16,
	IS_SHMEM = 1 << 17,
	IS_KSM = 1 << 18,
	IS_HUGE_ZERO = 1 << 19,
};

/* Of stable_page_flags(): what no macro says that all kernels have. */
#define BIT_OF(flag) (1U << KPF_##flag)
#define USES \
	(BIT_OF(BUDDY) | BIT_OF(ANON) | BIT_OF(SWAPCACHE) | BIT_OF(THP) | BIT_OF(ZERO_PAGE))

/* Compared as memory: there is nothing between the members. */
struct page_answer {
	s16 zone;
	s16 nid;
	s16 order; /* of the compound page, 0 for others; IRREGULAR */
	s16 buddy_order; /* NOT_TOUCHED for what is not PageBuddy() */
	u32 is;
	u32 uses; /* of stable_page_flags() */
};

struct page_run {
	u64 start;
	u64 end;
	struct page_answer answer;
};

#define FROZEN_ORDERS 16

struct zone_answer {
	u64 nid;
	u64 number;
	u64 start_pfn;
	u64 spanned;
	u64 present;
	u64 managed;
	u64 nr_free[FROZEN_ORDERS];
};

struct node_answer {
	u64 nid;
	u64 start_pfn;
	u64 spanned;
	u64 present;
};

#define FROZEN_NODES 16
#define FROZEN_ZONES (FROZEN_NODES * MAX_NR_ZONES)

struct frozen {
	u64 nr_nodes;
	u64 nr_zones;
	u64 nr_runs;
	u64 nodes; /* addresses */
	u64 zones;
	u64 runs;
};

static unsigned int max_runs = 1 << 18;
module_param(max_runs, uint, 0444);
MODULE_PARM_DESC(max_runs, "how many runs of struct pages there is room for");

static struct frozen *frozen;
static struct node_answer *frozen_nodes;
static struct zone_answer *frozen_zones;
static struct page_run *frozen_runs;

/* --- what no struct page says of itself: a bit for each of these PFNs --- */

#define MOST_PFNS (1UL << 24)

static unsigned long *memmap_frames;
static unsigned long *pcp_pages;

static void mark(unsigned long *bits, unsigned long pfn, unsigned long pages)
{
	for (; pages && pfn < MOST_PFNS; pages--)
		__set_bit(pfn++, bits);
}

static bool is_marked(const unsigned long *bits, unsigned long pfn)
{
	return pfn < MOST_PFNS && test_bit(pfn, bits);
}

/* The PFN behind an address of the kernel, 0 if nothing is. */
static unsigned long frame_behind(unsigned long address)
{
#ifdef CONFIG_X86
	unsigned int level;
	pte_t *entry = lookup_address(address, &level);

	if (!entry || !pte_present(*entry))
		return 0;
	return slow_virt_to_phys((void *)address) >> PAGE_SHIFT;
#else
	struct page *page = vmalloc_to_page((void *)address);

	return page ? page_to_pfn(page) : 0;
#endif
}

static void mark_memmap(void)
{
	unsigned long nr, address, end, pfn;

	for (nr = next_section(0); nr < NR_MEM_SECTIONS; nr = next_section(nr + 1)) {
		address = (unsigned long)pfn_to_page(section_nr_to_pfn(nr)) & PAGE_MASK;
		end = (unsigned long)pfn_to_page(section_nr_to_pfn(nr + 1));
		for (; address < end; address += PAGE_SIZE) {
			pfn = frame_behind(address);
			if (pfn)
				mark(memmap_frames, pfn, 1);
		}
	}
}

static struct per_cpu_pages *pcp_of(struct zone *zone, int cpu)
{
#ifdef HAVE_PCP_IN_ZONE
	return per_cpu_ptr(zone->per_cpu_pageset, cpu);
#else
	return &per_cpu_ptr(zone->pageset, cpu)->pcp;
#endif
}

/* pindex_to_order() */
static unsigned int order_of_list(unsigned int index)
{
	unsigned int order = index / MIGRATE_PCPTYPES;

	return order > PAGE_ALLOC_COSTLY_ORDER ? PMD_SHIFT - PAGE_SHIFT : order;
}

/* The blocks on the lists of a CPU are as many pages as it counts. */
static bool mark_pcp(struct per_cpu_pages *pcp)
{
	struct page *page;
	int i, pages = 0;

	for (i = 0; i < ARRAY_SIZE(pcp->lists); i++) {
		list_for_each_entry(page, &pcp->lists[i], lru) {
			mark(pcp_pages, page_to_pfn(page), 1UL << order_of_list(i));
			pages += 1 << order_of_list(i);
		}
	}
	return pages == pcp->count;
}

static bool mark_pcps(void)
{
	int nid, number, cpu;

	for_each_online_node(nid) {
		for (number = 0; number < MAX_NR_ZONES; number++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[number];

			if (!populated_zone(zone))
				continue;
			for_each_possible_cpu(cpu)
				if (!mark_pcp(pcp_of(zone, cpu)))
					return false;
		}
	}
	return true;
}

/* Its PFN is all ones until there is one. */
static bool is_in_huge_zero_page(unsigned long pfn)
{
	return kernel_huge_zero_pfn && pfn >= *kernel_huge_zero_pfn &&
	       pfn - *kernel_huge_zero_pfn < 1UL << (PMD_SHIFT - PAGE_SHIFT);
}

/* Of a head that has no type: the words of others may look like a mapping. */
static u32 mapping_of(struct page *head)
{
	struct address_space *mapping;
	void *aops;

	if (((unsigned long)head->mapping & 3) == 3)
		return IS_KSM;
	if (!head->mapping || (unsigned long)head->mapping & 3)
		return 0;
	mapping = kernel_folio_mapping(head);
	if (!mapping || kernel_copy_nofault(&aops, &mapping->a_ops, sizeof(aops)))
		return 0;
	return aops == kernel_shmem_aops ? IS_SHMEM : IS_FILE;
}

/* Page types live in the _mapcount of what is no tail; how to ask for them differs: see Kbuild. */
static u32 type_of(struct page *page)
{
	u32 is = 0;

	if (PageBuddy(page))
		is |= IS_BUDDY;
	if (PageOffline(page))
		is |= IS_OFFLINE;
	if (PageTable(page))
		is |= IS_TABLE;
	if (PageGuard(page))
		is |= IS_GUARD;
	if (PageSlab(page))
		is |= IS_SLAB;
	if (PageHuge(page))
		is |= IS_HUGETLB;
#ifdef HAVE_PAGE_ZSMALLOC
	if (PageZsmalloc(page))
		is |= IS_ZSMALLOC;
#endif
#ifdef HAVE_PAGE_UNACCEPTED
	if (PageUnaccepted(page))
		is |= IS_UNACCEPTED;
#endif
#ifdef HAVE_PAGE_LARGE_KMALLOC
	if (PageLargeKmalloc(page))
		is |= IS_LARGE_KMALLOC;
#endif
	return is;
}

static void ask_struct_page(unsigned long pfn, bool online, struct page_answer *answer)
{
	struct page *page = pfn_to_page(pfn);

	memset(answer, 0, sizeof(*answer));
	answer->zone = page_zonenum(page);
	answer->nid = page_to_nid(page);
	answer->order = head_order(page, pfn);
	answer->buddy_order = NOT_TOUCHED;
	answer->is = type_of(compound_head(page));
	if (!answer->is)
		answer->is |= mapping_of(compound_head(page));
	if (is_marked(memmap_frames, pfn))
		answer->is |= IS_MEMMAP;
	if (is_marked(pcp_pages, pfn))
		answer->is |= IS_PCP;
	if (is_in_huge_zero_page(pfn))
		answer->is |= IS_HUGE_ZERO;
	/*
	 * Up to v6.1, it asks each page of a compound page whether it is mapped: a minute and more
	 * for a page of 1 GiB, which its order and its type say enough of.
	 */
	if (answer->order < PUD_SHIFT - PAGE_SHIFT)
		answer->uses = kernel_stable_page_flags(page) & USES;
	if (online)
		answer->is |= IS_ONLINE;
	if (compound_head(page) != page)
		answer->is |= IS_TAIL;
	else if (PageBuddy(page))
		answer->buddy_order = page_private(page);
	if (PageReserved(page))
		answer->is |= IS_RESERVED;
	if (PageHWPoison(page))
		answer->is |= IS_HWPOISON;
#ifdef HAVE_VMEMMAP_SELF_HOSTED
	if (PageVmemmapSelfHosted(page))
		answer->is |= IS_SELF_HOSTED;
#endif
}

static bool is_device_page(unsigned long pfn)
{
	struct dev_pagemap *pgmap = live_pgmap(pfn);
	bool valid = pgmap && kernel_pgmap_pfn_valid(pgmap, pfn);

	if (pgmap)
		put_dev_pagemap(pgmap);
	return valid;
}

static bool freeze_pfn(unsigned long pfn)
{
	struct page_run *last = frozen->nr_runs ? &frozen_runs[frozen->nr_runs - 1] : NULL;
	bool online = pfn_to_online_page(pfn) != NULL;
	struct page_answer answer;

	if (!online && !is_device_page(pfn))
		return true;
	ask_struct_page(pfn, online, &answer);
	if (last && last->end == pfn && !memcmp(&last->answer, &answer, sizeof(answer))) {
		last->end++;
		return true;
	}
	if (frozen->nr_runs == max_runs)
		return false;
	frozen_runs[frozen->nr_runs++] = (struct page_run){ pfn, pfn + 1, answer };
	return true;
}

static bool freeze_pages(void)
{
	unsigned long nr = next_section(0);
	unsigned long pfn;

	for (; nr < NR_MEM_SECTIONS; nr = next_section(nr + 1)) {
		for (pfn = section_nr_to_pfn(nr); pfn < section_nr_to_pfn(nr + 1); pfn++)
			if (!freeze_pfn(pfn))
				return false;
	}
	return true;
}

static void freeze_zone(struct zone *zone, int nid, int number)
{
	struct zone_answer *answer = &frozen_zones[frozen->nr_zones++];
	int order;

	answer->nid = nid;
	answer->number = number;
	answer->start_pfn = zone->zone_start_pfn;
	answer->spanned = zone->spanned_pages;
	answer->present = zone->present_pages;
	answer->managed = zone_managed_pages(zone);
	for (order = 0; order < ARRAY_SIZE(zone->free_area) && order < FROZEN_ORDERS; order++)
		answer->nr_free[order] = zone->free_area[order].nr_free;
}

static bool freeze_nodes(void)
{
	int nid, number;

	for_each_online_node(nid) {
		pg_data_t *node = NODE_DATA(nid);

		if (frozen->nr_nodes == FROZEN_NODES)
			return false;
		frozen_nodes[frozen->nr_nodes++] = (struct node_answer){
			nid, node->node_start_pfn, node->node_spanned_pages, node->node_present_pages
		};
		for (number = 0; number < MAX_NR_ZONES; number++)
			freeze_zone(&node->node_zones[number], nid, number);
	}
	return true;
}

/* Of the second serial port, which may be on PCI. */
static uint port = 0x2f8;
module_param(port, uint, 0);

/* The driver of the port does not run any more. */
static void say_frozen(void)
{
	enum { LINE_STATUS = 5, CAN_SEND = 0x20 };
	char text[40];
	int length = scnprintf(text, sizeof(text), "== frozen %lx\n", (unsigned long)frozen);
	int i;

	for (i = 0; i < length; i++) {
		while (!(inb(port + LINE_STATUS) & CAN_SEND))
			cpu_relax();
		outb(text[i], port);
	}
}

static int freeze(void *unused)
{
	frozen->nr_nodes = frozen->nr_zones = frozen->nr_runs = 0;
	mark_memmap();
	if (!mark_pcps() || !freeze_nodes() || !freeze_pages())
		return -ENOSPC;
	say_frozen();
	for (;;)
		cpu_relax();
}

static ssize_t freeze_write(struct file *file, const char __user *text, size_t size, loff_t *pos)
{
	int error = stop_machine(freeze, NULL, NULL);

	return error ? error : size;
}

static const struct proc_ops freeze_operations = {
	.proc_write = freeze_write,
};

static void free_frozen(void)
{
	vfree(pcp_pages);
	vfree(memmap_frames);
	vfree(frozen_runs);
	vfree(frozen_zones);
	vfree(frozen_nodes);
	vfree(frozen);
}

static bool allocate_frozen(void)
{
	frozen = vzalloc(sizeof(*frozen));
	frozen_nodes = vzalloc(FROZEN_NODES * sizeof(*frozen_nodes));
	frozen_zones = vzalloc(FROZEN_ZONES * sizeof(*frozen_zones));
	frozen_runs = vzalloc(max_runs * sizeof(*frozen_runs));
	memmap_frames = vzalloc(MOST_PFNS / BITS_PER_BYTE);
	pcp_pages = vzalloc(MOST_PFNS / BITS_PER_BYTE);
	if (!frozen || !frozen_nodes || !frozen_zones || !frozen_runs || !memmap_frames ||
	    !pcp_pages) {
		free_frozen();
		return false;
	}
	frozen->nodes = (unsigned long)frozen_nodes;
	frozen->zones = (unsigned long)frozen_zones;
	frozen->runs = (unsigned long)frozen_runs;
	return true;
}

/* --- symbols that are not exported --- */

typedef unsigned long (*lookup_function)(const char *name);

/* A kprobe may be set on any function by its name, and then has its address. */
static lookup_function find_lookup(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long address;
	int __maybe_unused i;

	if (register_kprobe(&probe))
		return NULL;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
#ifdef CONFIG_X86_KERNEL_IBT
	/* The probe sits behind ENDBR, which has to be the first thing that an indirect call meets. */
	if (*(u32 *)(address - 4) == ENDBR64)
		address -= 4;
#endif
#ifdef CONFIG_PPC64
	/*
	 * The probe sits behind the two instructions that find the table of contents, or behind those
	 * of ftrace. Whoever calls from another module needs them.
	 */
	for (i = 2; i <= 4; i++)
		if (*(u32 *)(address - i * 4) >> 16 == ADDIS_R2_R12)
			return (lookup_function)(address - i * 4);
#endif
	return (lookup_function)address;
}

static int __init truth_init(void)
{
	lookup_function lookup = find_lookup();

	if (!lookup)
		return -ENOENT;
	kernel_pgmap_pfn_valid = (void *)lookup("pgmap_pfn_valid");
	kernel_pgmap_array = (void *)lookup("pgmap_array");
	if (IS_ENABLED(CONFIG_ZONE_DEVICE) && (!kernel_pgmap_pfn_valid || !kernel_pgmap_array))
		return -ENOENT;
	kernel_stable_page_flags = (void *)lookup("stable_page_flags");
	kernel_folio_mapping = (void *)lookup("folio_mapping") ?: (void *)lookup("page_mapping");
	kernel_copy_nofault = (void *)lookup("copy_from_kernel_nofault");
#ifdef CONFIG_KALLSYMS_ALL
	kernel_shmem_aops = (void *)lookup("shmem_aops");
#else
	/* kallsyms has functions only, and this is exported. */
	kernel_shmem_aops = &shmem_aops;
#endif
	kernel_huge_zero_pfn = (void *)lookup("huge_zero_pfn");
	if (!kernel_stable_page_flags || !kernel_folio_mapping || !kernel_copy_nofault ||
	    !kernel_shmem_aops)
		return -ENOENT;
	if (!allocate_frozen())
		return -ENOMEM;
	/* Each reader has a run of its own. */
	if (!proc_create_seq_private("zonedev_truth", 0400, NULL, &truth_operations,
				     sizeof(struct run), NULL))
		goto no_truth;
	if (!proc_create("zonedev_freeze", 0200, NULL, &freeze_operations))
		goto no_freeze;
	return 0;

no_freeze:
	remove_proc_entry("zonedev_truth", NULL);
no_truth:
	free_frozen();
	return -ENOMEM;
}

static void __exit truth_exit(void)
{
	remove_proc_entry("zonedev_freeze", NULL);
	remove_proc_entry("zonedev_truth", NULL);
	free_frozen();
}

module_init(truth_init);
module_exit(truth_exit);
MODULE_DESCRIPTION("What the kernel says of every PFN");
MODULE_LICENSE("GPL");
