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
 */
#include <linux/kprobes.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/xarray.h>

static bool touch_valid;
module_param(touch_valid, bool, 0444);
MODULE_PARM_DESC(touch_valid, "read zone and node of every page with pfn_valid()");

#define NOT_TOUCHED (-1)
#define IRREGULAR (-2)
#define ENDBR64 0xfa1e0ff3u
#define RESCHED_PAGES 4096

static bool (*kernel_pgmap_pfn_valid)(struct dev_pagemap *pgmap, unsigned long pfn);
static struct xarray *kernel_pgmap_array;

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

static struct dev_pagemap *live_pgmap(unsigned long pfn)
{
#ifdef HAVE_ONE_ARGUMENT
	return get_dev_pagemap(pfn);
#else
	return get_dev_pagemap(pfn, NULL);
#endif
}

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

static bool claimed(unsigned long start_nr, unsigned long end_nr)
{
	unsigned long pfn = section_nr_to_pfn(start_nr);

	return xa_find(kernel_pgmap_array, &pfn, section_nr_to_pfn(end_nr) - 1, XA_PRESENT);
}

/* The first section from nr on that is present or claimed by a pgmap. */
static unsigned long next_section(unsigned long nr)
{
	while (nr < NR_MEM_SECTIONS) {
		unsigned long next_root = round_down(nr, SECTIONS_PER_ROOT) + SECTIONS_PER_ROOT;

		if (!__nr_to_section(nr) && !claimed(nr, next_root)) {
			nr = next_root;
			cond_resched();
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
			cond_resched();
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

/* --- symbols that are not exported --- */

typedef unsigned long (*lookup_function)(const char *name);

/* A kprobe may be set on any function by its name, and then has its address. */
static lookup_function find_lookup(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long address;

	if (register_kprobe(&probe))
		return NULL;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
#ifdef CONFIG_X86_KERNEL_IBT
	/* The probe sits behind ENDBR, which has to be the first thing that an indirect call meets. */
	if (*(u32 *)(address - 4) == ENDBR64)
		address -= 4;
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
	if (!kernel_pgmap_pfn_valid || !kernel_pgmap_array)
		return -ENOENT;
	/* Each reader has a run of its own. */
	if (!proc_create_seq_private("zonedev_truth", 0400, NULL, &truth_operations,
				     sizeof(struct run), NULL))
		return -ENOMEM;
	return 0;
}

static void __exit truth_exit(void)
{
	remove_proc_entry("zonedev_truth", NULL);
}

module_init(truth_init);
module_exit(truth_exit);
MODULE_DESCRIPTION("What the kernel says of every PFN");
MODULE_LICENSE("GPL");
