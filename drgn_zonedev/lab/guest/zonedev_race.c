// SPDX-License-Identifier: GPL-2.0
/*
 * What walkers meet while a device comes and goes, in a kernel that fills struct pages with ones when
 * their memory is added and removed (lab/patches/poison.edit, or CONFIG_DEBUG_VM).
 *
 * A walker asks a lookup about a PFN, and touches the struct page if the answer is yes, within what the
 * lookup guarantees: an RCU read-side critical section, or a reference. A touch is bad if the struct
 * page is poisoned or not mapped.
 *
 * Commands, written to /proc/zonedev_race (PFNs in hex):
 *
 *   probe START END           have the functions below call all walkers for the PFNs whenever the
 *                             kernel gets there: that holds open each window between two of them
 *   walk START END USECS CPU  have threads on a processor walk the PFNs all the time, and wait that
 *                             long between the answer and the touch
 *   stop                      no more of either
 *   poke COUNT                change the kernel's code so often, while another processor executes it
 *
 * Reading gives lines of JSON: where, with which lookup, how many touches, and of them, how many were
 * of poisoned and of unmapped struct pages, and an example.
 */
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
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

/* Walkers in a probe do not ask for every PFN: this is how far they go. */
#define STRIDE 61
#define NAP 500
/* A struct page is initialised at a time: walk for one of so many. */
#define EACH_INIT 4096

struct counts {
	unsigned long touched;
	unsigned long poisoned;
	unsigned long unmapped;
	unsigned long example;
};

/* --- lookups, each as long as its answer lasts --- */

static bool (*kernel_pgmap_pfn_valid)(struct dev_pagemap *pgmap, unsigned long pfn);
static long (*kernel_nofault)(void *to, const void *from, size_t size);

static void touch(struct counts *counts, unsigned long pfn)
{
	unsigned long flags;

	counts->touched++;
	if (kernel_nofault(&flags, pfn_to_page(pfn), sizeof(flags)))
		counts->unmapped++;
	else if (flags == (unsigned long)PAGE_POISON_PATTERN)
		counts->poisoned++;
	else
		return;
	counts->example = pfn;
}

/* A reader in an RCU read-side critical section keeps the processor: that is for others to run on. */
static void spin(unsigned int usecs)
{
	if (usecs && num_online_cpus() > 1)
		udelay(usecs);
}

/* One that may sleep does so for long enough that the device can be gone afterwards. */
static void nap(unsigned int usecs)
{
	if (usecs)
		usleep_range(NAP * usecs, 2 * NAP * usecs);
}

static void by_pfn_valid(struct counts *counts, unsigned long pfn, unsigned int usecs)
{
	rcu_read_lock_sched();
	if (pfn_valid(pfn)) {
		spin(usecs);
		touch(counts, pfn);
	}
	rcu_read_unlock_sched();
}

static void by_online_page(struct counts *counts, unsigned long pfn, unsigned int usecs)
{
	rcu_read_lock_sched();
	if (pfn_to_online_page(pfn)) {
		spin(usecs);
		touch(counts, pfn);
	}
	rcu_read_unlock_sched();
}

static void by_reference(struct counts *counts, unsigned long pfn, unsigned int usecs)
{
	struct dev_pagemap *pgmap = live_pgmap(pfn);

	if (!pgmap)
		return;
	if (kernel_pgmap_pfn_valid(pgmap, pfn)) {
		nap(usecs);
		touch(counts, pfn);
	}
	put_dev_pagemap(pgmap);
}

#ifdef HAVE_PFN_ZONE_DEVICE
static void by_zone_device(struct counts *counts, unsigned long pfn, unsigned int usecs)
{
	rcu_read_lock();
	if (pfn_zone_device(pfn)) {
		spin(usecs);
		touch(counts, pfn);
	}
	rcu_read_unlock();
}

static void by_claimed(struct counts *counts, unsigned long pfn, unsigned int usecs)
{
	rcu_read_lock();
	if (pfn_zone_device_claimed(pfn)) {
		spin(usecs);
		touch(counts, pfn);
	}
	rcu_read_unlock();
}

/* What must not be done. */
static void by_stale_answer(struct counts *counts, unsigned long pfn, unsigned int usecs)
{
	if (pfn_zone_device(pfn)) {
		nap(usecs);
		touch(counts, pfn);
	}
}
#endif

static const struct {
	const char *name;
	void (*walk)(struct counts *counts, unsigned long pfn, unsigned int usecs);
} lookups[] = {
	{ "pfn_valid", by_pfn_valid },
	{ "pfn_to_online_page", by_online_page },
	{ "reference", by_reference },
#ifdef HAVE_PFN_ZONE_DEVICE
	{ "pfn_zone_device", by_zone_device },
	{ "pfn_zone_device_claimed", by_claimed },
	{ "stale pfn_zone_device", by_stale_answer },
#endif
};

#define LOOKUPS ARRAY_SIZE(lookups)

/* --- windows of whoever adds and removes --- */

static const char *const points[] = {
	"move_pfn_range_to_zone",
	"memmap_init_zone_device",
	"__init_zone_device_page.constprop.0",
	"percpu_ref_kill_and_confirm",
	"remove_pfn_range_from_zone",
	"arch_remove_memory",
	"section_deactivate",
};

#define POINTS ARRAY_SIZE(points)

static struct kprobe probes[POINTS];
static struct counts probed[POINTS][LOOKUPS];
static unsigned long hits[POINTS];
static unsigned long probe_start, probe_end;

static int at_point(struct kprobe *probe, struct pt_regs *regs)
{
	int point = probe - probes;
	unsigned long pfn;
	int i;

	if (hits[point]++ % (point == 2 ? EACH_INIT : 1))
		return 0;
	for (pfn = probe_start; pfn < probe_end; pfn += STRIDE)
		for (i = 0; i < LOOKUPS; i++)
			lookups[i].walk(&probed[point][i], pfn, 0);
	return 0;
}

static int start_probes(void)
{
	int point, error;

	for (point = 0; point < POINTS; point++) {
		probes[point].symbol_name = points[point];
		probes[point].pre_handler = at_point;
		error = register_kprobe(&probes[point]);
		if (error) {
			pr_info("zonedev_race: no probe of %s: %d\n", points[point], error);
			probes[point].symbol_name = NULL;
		}
	}
	return 0;
}

static void stop_probes(void)
{
	int point;

	for (point = 0; point < POINTS; point++) {
		if (probes[point].symbol_name)
			unregister_kprobe(&probes[point]);
		probes[point].symbol_name = NULL;
	}
	probe_end = 0;
}

/* --- windows of whoever reads --- */

static struct task_struct *threads[LOOKUPS];
static struct counts walked[LOOKUPS];
static unsigned long walk_start, walk_end;
static unsigned int walk_usecs;

/* Threads that never sleep hold up the grace periods of kprobes. */
static void rest(unsigned long times)
{
	if (times % 16 == 0)
		usleep_range(100, 200);
}

static int walk_thread(void *data)
{
	long i = (long)data;
	unsigned long pfn = walk_start, times = 0;

	while (!kthread_should_stop()) {
		lookups[i].walk(&walked[i], pfn, walk_usecs);
		pfn += STRIDE;
		if (pfn >= walk_end)
			pfn = walk_start + (pfn - walk_end) % STRIDE;
		rest(times++);
	}
	return 0;
}

static int start_threads(unsigned int cpu)
{
	long i;

	if (!cpu_online(cpu))
		return -ENODEV;
	for (i = 0; i < LOOKUPS; i++) {
		struct task_struct *task = kthread_create(walk_thread, (void *)i, "walker%ld", i);

		if (IS_ERR(task))
			return PTR_ERR(task);
		kthread_bind(task, cpu);
		threads[i] = task;
		wake_up_process(task);
	}
	return 0;
}

static void stop_threads(void)
{
	int i;

	for (i = 0; i < LOOKUPS; i++) {
		if (threads[i])
			kthread_stop(threads[i]);
		threads[i] = NULL;
	}
}

/* --- is this machine fit for two processors? --- */

static unsigned long executed;

static noinline void poked(void)
{
	barrier();
	WRITE_ONCE(executed, executed + 1);
}

static int execute_thread(void *data)
{
	while (!kthread_should_stop()) {
		poked();
		if (executed % 4096 == 0)
			usleep_range(50, 100);
	}
	return 0;
}

static int nothing_to_do(struct kprobe *probe, struct pt_regs *regs)
{
	return 0;
}

static int poke(unsigned int count)
{
	struct task_struct *task = kthread_create(execute_thread, NULL, "executor");
	int error = 0;

	if (IS_ERR(task))
		return PTR_ERR(task);
	kthread_bind(task, num_online_cpus() - 1);
	wake_up_process(task);
	while (count-- && !error) {
		struct kprobe probe = { .addr = (void *)poked, .pre_handler = nothing_to_do };

		error = register_kprobe(&probe);
		if (!error)
			unregister_kprobe(&probe);
	}
	kthread_stop(task);
	return error;
}

/* --- /proc/zonedev_race --- */

static int command(const char *line)
{
	unsigned int number, cpu;

	if (sscanf(line, "probe %lx %lx", &probe_start, &probe_end) == 2)
		return start_probes();
	if (sscanf(line, "walk %lx %lx %u %u", &walk_start, &walk_end, &walk_usecs, &cpu) == 4)
		return start_threads(cpu);
	if (sscanf(line, "poke %u", &number) == 1)
		return poke(number);
	if (strncmp(line, "stop", 4))
		return -EINVAL;
	stop_threads();
	stop_probes();
	return 0;
}

static ssize_t race_write(struct file *file, const char __user *from, size_t size, loff_t *offset)
{
	char line[80];
	int error;

	if (size >= sizeof(line) || copy_from_user(line, from, size))
		return -EINVAL;
	line[size] = 0;
	error = command(line);
	return error ? error : size;
}

static void show(struct seq_file *file, const char *where, unsigned long times, int lookup,
		 const struct counts *counts)
{
	seq_printf(file,
		   "{\"where\": \"%s\", \"times\": %lu, \"lookup\": \"%s\", \"touched\": %lu, "
		   "\"poisoned\": %lu, \"unmapped\": %lu, \"example\": %lu}\n",
		   where, times, lookups[lookup].name, counts->touched, counts->poisoned,
		   counts->unmapped, counts->example);
}

static int race_show(struct seq_file *file, void *item)
{
	int point, i;

	for (i = 0; i < LOOKUPS; i++) {
		for (point = 0; point < POINTS; point++)
			show(file, points[point], hits[point], i, &probed[point][i]);
		show(file, "threads", 1, i, &walked[i]);
	}
	return 0;
}

static int race_open(struct inode *inode, struct file *file)
{
	return single_open_size(file, race_show, NULL, 65536);
}

static const struct proc_ops race_operations = {
	.proc_open = race_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = race_write,
};

/* kallsyms_lookup_name() is not exported; a probe that is registered knows its address. */
static void *symbol(const char *name)
{
	struct kprobe probe = { .symbol_name = name };
	void *address;

	if (register_kprobe(&probe))
		return NULL;
	address = probe.addr;
	unregister_kprobe(&probe);
	return address;
}

static int __init race_init(void)
{
	kernel_pgmap_pfn_valid = symbol("pgmap_pfn_valid");
	kernel_nofault = symbol("copy_from_kernel_nofault");
	if (!kernel_pgmap_pfn_valid || !kernel_nofault)
		return -ENOENT;
	return proc_create("zonedev_race", 0600, NULL, &race_operations) ? 0 : -ENOMEM;
}
module_init(race_init);

static void __exit race_exit(void)
{
	stop_threads();
	stop_probes();
	remove_proc_entry("zonedev_race", NULL);
}
module_exit(race_exit);

MODULE_DESCRIPTION("walk device memory while it comes and goes");
MODULE_LICENSE("GPL");
