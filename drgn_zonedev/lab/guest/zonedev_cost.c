// SPDX-License-Identifier: GPL-2.0
/*
 * What a lookup of a PFN executes, in a guest whose virtual clock counts instructions: QEMU's
 * "-icount shift=0" advances the time stamp counter by one with each of them.
 *
 * Writing "NAME START END" (PFNs in hex) to /proc/zonedev_cost calls each lookup for every PFN of
 * [START, END), with interrupts off. Reading it gives a line of JSON for each lookup and range:
 *
 *   lookup, range  their names
 *   pfns, yes      how many PFNs were looked up, and for how many of them the answer was yes
 *   least, most    instructions between two readings of the counter, around one call
 *   total          the sum of all of them
 *
 * What the call itself takes is that of the lookup "nothing", which only returns.
 *
 * The two no-ops around each call mean something to lab/machine/count_accesses.c, which counts loads and
 * stores between them, in the order of these calls.
 */
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "live_pgmap.h"

/* nopl MARK(%rax) */
#define MARK(number) ".byte 0x0f, 0x1f, 0x80; .long 0x7a6f6e" #number
#define BEGIN_MARK MARK(01)
#define END_MARK MARK(02)

#define MAX_ROWS 1024
#define NAME_BYTES 32

typedef bool (*lookup_t)(unsigned long pfn);

/* --- controls, of which it is known what they execute besides their return --- */

bool nothing(unsigned long pfn);
bool nops_1(unsigned long pfn);
bool nops_100(unsigned long pfn);
bool accesses(unsigned long pfn);

/* accesses: four instructions; three loads and a store, of three lines. */
asm(".text\n"
    ".balign 16\n"
    "nothing: ret\n"
    ".balign 16\n"
    "nops_1: nop\n ret\n"
    ".balign 16\n"
    "nops_100: .fill 100, 1, 0x90\n ret\n"
    ".balign 16\n"
    "accesses:\n"
    " movq zonedev_lines(%rip), %rax\n"
    " movq zonedev_lines+8(%rip), %rax\n"
    " movq zonedev_lines+64(%rip), %rax\n"
    " movq %rax, zonedev_lines+128(%rip)\n"
    " ret\n");

u64 zonedev_lines[24] __aligned(64);

/* --- lookups --- */

static struct dev_pagemap *held;
static unsigned long left;

/* As get_dev_pagemap(pfn, pgmap) began, as long as it had that argument. */
static __always_inline bool in_held(unsigned long pfn)
{
	return held && PFN_PHYS(pfn) >= held->range.start && PFN_PHYS(pfn) <= held->range.end;
}

static noinline bool next_in_range(unsigned long pfn)
{
	return in_held(pfn);
}

static noinline bool next_by_taint(unsigned long pfn)
{
	return pfn_valid(pfn) && !pfn_to_online_page(pfn) && in_held(pfn);
}

#ifdef HAVE_PFN_ZONE_DEVICE
static noinline bool next_claimed(unsigned long pfn)
{
	return pfn_zone_device_claimed(pfn) && in_held(pfn);
}

/* As patch 3/3 of November 2019: how many follow was counted with the first of them. */
static noinline bool next_counted(unsigned long pfn)
{
	if (!pfn_zone_device(pfn) || !left)
		return false;
	left--;
	return true;
}
#endif

static const struct {
	const char *name;
	lookup_t lookup;
} lookups[] = {
	{ "nothing", nothing },
	{ "nops_1", nops_1 },
	{ "nops_100", nops_100 },
	{ "accesses", accesses },
	{ "next_in_range", next_in_range },
	{ "next_by_taint", next_by_taint },
#ifdef HAVE_PFN_ZONE_DEVICE
	{ "pfn_zone_device", pfn_zone_device },
	{ "pfn_zone_device_claimed", pfn_zone_device_claimed },
	{ "next_claimed", next_claimed },
	{ "next_counted", next_counted },
#endif
};

/* --- counting --- */

struct row {
	char range[NAME_BYTES];
	const char *lookup;
	unsigned long pfns;
	unsigned long yes;
	u64 least;
	u64 most;
	u64 total;
};

static struct row rows[MAX_ROWS];
static int nr_rows;

static __always_inline u64 instructions(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

static noinline u64 measure(lookup_t lookup, unsigned long pfn, bool *yes)
{
	unsigned long flags;
	u64 before, after;

	local_irq_save(flags);
	asm volatile(BEGIN_MARK : : : "memory");
	before = instructions();
	*yes = lookup(pfn);
	after = instructions();
	asm volatile(END_MARK : : : "memory");
	local_irq_restore(flags);
	return after - before;
}

static void count(struct row *row, lookup_t lookup, unsigned long start, unsigned long end)
{
	unsigned long pfn;
	bool yes;
	u64 took;

	row->least = U64_MAX;
	left = end - start;
	for (pfn = start; pfn < end; pfn++) {
		took = measure(lookup, pfn, &yes);
		row->pfns++;
		/* Of the controls, this is any value. */
		if (yes)
			row->yes++;
		row->least = min(row->least, took);
		row->most = max(row->most, took);
		row->total += took;
		cond_resched();
	}
}

static ssize_t cost_write(struct file *file, const char __user *from, size_t size, loff_t *offset)
{
	unsigned long start, end;
	char line[80], name[NAME_BYTES];
	int i;

	if (size >= sizeof(line) || copy_from_user(line, from, size))
		return -EINVAL;
	line[size] = 0;
	if (sscanf(line, "%31s %lx %lx", name, &start, &end) != 3 || start >= end)
		return -EINVAL;
	if (nr_rows + ARRAY_SIZE(lookups) > MAX_ROWS)
		return -ENOSPC;
	held = live_pgmap(start);
	for (i = 0; i < ARRAY_SIZE(lookups); i++) {
		struct row *row = &rows[nr_rows++];

		strscpy(row->range, name, sizeof(row->range));
		row->lookup = lookups[i].name;
		count(row, lookups[i].lookup, start, end);
	}
	if (held)
		put_dev_pagemap(held);
	held = NULL;
	return size;
}

static int cost_show(struct seq_file *file, void *item)
{
	int i;

	for (i = 0; i < nr_rows; i++)
		seq_printf(file,
			   "{\"lookup\": \"%s\", \"range\": \"%s\", \"pfns\": %lu, \"yes\": %lu, "
			   "\"least\": %llu, \"most\": %llu, \"total\": %llu}\n",
			   rows[i].lookup, rows[i].range, rows[i].pfns, rows[i].yes, rows[i].least,
			   rows[i].most, rows[i].total);
	return 0;
}

static int cost_open(struct inode *inode, struct file *file)
{
	return single_open(file, cost_show, NULL);
}

static const struct proc_ops cost_operations = {
	.proc_open = cost_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = cost_write,
};

static int __init cost_init(void)
{
	return proc_create("zonedev_cost", 0600, NULL, &cost_operations) ? 0 : -ENOMEM;
}
module_init(cost_init);

static void __exit cost_exit(void)
{
	remove_proc_entry("zonedev_cost", NULL);
}
module_exit(cost_exit);

MODULE_DESCRIPTION("count what a lookup of a PFN executes");
MODULE_LICENSE("GPL");
