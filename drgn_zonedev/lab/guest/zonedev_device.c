// SPDX-License-Identifier: GPL-2.0
/*
 * A driver of device memory such as GPUs have and QEMU does not. Each line written to
 * /proc/zonedev_device is a command; numbers are decimal, or hex with 0x:
 *
 *   map TYPE SHIFT SIZE@START...  memremap_pages() of these ranges, in bytes, with a vmemmap_shift.
 *                                 START is 0 for memory that no CPU can address: the kernel then
 *                                 finds room for it
 *   take INDEX ORDER              hand out 1 << ORDER pages, from that page of the first range on:
 *                                 as one folio, or singly on kernels that have no large ones
 *   put INDEX ORDER               give them back; the driver's list of free pages is threaded
 *                                 through zone_device_data, as drivers do
 *   hold INDEX                    take a reference of the page and of its pgmap, like
 *                                 get_user_pages() does (up to v6.14)
 *   migrate PID INDEX COUNT       have pages of that index and those behind it hold the first COUNT
 *                                 pages of anonymous memory that a process has in one VMA of that size
 *   unmap                         memunmap_pages(), which waits for all that is held or handed out
 *   dying                         succeed only if that has begun
 *
 * What a kernel cannot do fails with EOPNOTSUPP.
 */
#include <linux/dma-mapping.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/proc_fs.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "live_pgmap.h"

#define NAME "zonedev_device"
#define MAX_RANGES 4

static struct platform_device *device;
static struct dev_pagemap *pgmap;
static void *free_pages_list;

/* --- what differs between kernels: see Kbuild --- */

static void free_page_of_device(struct page *page)
{
	page->zone_device_data = free_pages_list;
	free_pages_list = page;
}

static vm_fault_t migrate_to_ram(struct vm_fault *fault)
{
	return VM_FAULT_SIGBUS;
}

#ifdef HAVE_FOLIO_FREE
static void free_folio_of_device(struct folio *folio)
{
	free_page_of_device(&folio->page);
}
#endif

static const struct dev_pagemap_ops operations = {
#ifdef HAVE_FOLIO_FREE
	.folio_free = free_folio_of_device,
#else
	.page_free = free_page_of_device,
#endif
	.migrate_to_ram = migrate_to_ram,
};

static int type_named(const char *name)
{
	if (!strcmp(name, "generic"))
		return MEMORY_DEVICE_GENERIC;
#ifdef CONFIG_DEVICE_PRIVATE
	if (!strcmp(name, "private"))
		return MEMORY_DEVICE_PRIVATE;
#endif
#ifdef HAVE_COHERENT
	if (!strcmp(name, "coherent"))
		return MEMORY_DEVICE_COHERENT;
#endif
	return -EOPNOTSUPP;
}

static struct resource *find_room(unsigned long size)
{
#ifdef CONFIG_DEVICE_PRIVATE
	return devm_request_free_mem_region(&device->dev, &iomem_resource, size);
#else
	return ERR_PTR(-EOPNOTSUPP);
#endif
}

static int set_vmemmap_shift(unsigned int shift)
{
#ifdef HAVE_VMEMMAP_SHIFT
	pgmap->vmemmap_shift = shift;
	return 0;
#else
	return shift ? -EOPNOTSUPP : 0;
#endif
}

#if defined(HAVE_LARGE_FOLIOS)
static int take(struct page *page, unsigned int order)
{
	zone_device_folio_init((struct folio *)page, pgmap, order);
	unlock_page(page);
	return 0;
}

static void put(struct page *page, unsigned int order)
{
	folio_put((struct folio *)page);
}
#elif defined(HAVE_PAGE_INIT)
static int take(struct page *page, unsigned int order)
{
	int i;

	for (i = 0; i < 1 << order; i++) {
		zone_device_page_init(page + i);
		unlock_page(page + i);
	}
	return 0;
}

static void put(struct page *page, unsigned int order)
{
	int i;

	for (i = 0; i < 1 << order; i++)
		put_page(page + i);
}
#else
static int take(struct page *page, unsigned int order)
{
	return -EOPNOTSUPP;
}

static void put(struct page *page, unsigned int order)
{
}
#endif

#if defined(HAVE_LARGE_FOLIOS) && defined(CONFIG_DEVICE_PRIVATE)
#define MAX_MIGRATED 64

/* Nothing is copied: there is no memory. */
static int migrate_first(struct vm_area_struct *vma, struct page *pages, unsigned long count)
{
	unsigned long src[MAX_MIGRATED] = {}, dst[MAX_MIGRATED] = {}, i;
	struct migrate_vma args = {
		.vma = vma,
		.start = vma->vm_start,
		.end = vma->vm_start + count * PAGE_SIZE,
		.src = src,
		.dst = dst,
		.pgmap_owner = pgmap->owner,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};
	int error = migrate_vma_setup(&args);

	if (error)
		return error;
	for (i = 0; i < count; i++) {
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		zone_device_page_init(pages + i, pgmap, 0);
		dst[i] = migrate_pfn(page_to_pfn(pages + i));
	}
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
	for (i = 0; i < count; i++)
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			return -EBUSY;
	return 0;
}

static int migrate_of_mm(struct mm_struct *mm, struct page *pages, unsigned long count)
{
	struct vm_area_struct *vma;
	int error = -ENOENT;

	mmap_read_lock(mm);
	for (vma = find_vma(mm, 0); vma; vma = find_vma(mm, vma->vm_end))
		if (vma_is_anonymous(vma) && vma_pages(vma) == count) {
			error = migrate_first(vma, pages, count);
			break;
		}
	mmap_read_unlock(mm);
	return error;
}

static int migrate(struct page *pages, int number, unsigned long count)
{
	struct pid *pid = find_get_pid(number);
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	struct mm_struct *mm = task ? get_task_mm(task) : NULL;
	int error = -ESRCH;

	if (mm) {
		error = count <= MAX_MIGRATED ? migrate_of_mm(mm, pages, count) : -EINVAL;
		mmput(mm);
	}
	if (task)
		put_task_struct(task);
	put_pid(pid);
	return error;
}
#else
static int migrate(struct page *pages, int number, unsigned long count)
{
	return -EOPNOTSUPP;
}
#endif

/* --- commands --- */

static int migrate_to(char *arguments)
{
	unsigned long index, count;
	int number;

	if (!arguments || sscanf(arguments, "%d %li %li", &number, &index, &count) < 3)
		return -EINVAL;
	return migrate(pfn_to_page(PHYS_PFN(pgmap->ranges[0].start) + index), number, count);
}

static int request_range(char *text)
{
	struct range *range = &pgmap->ranges[pgmap->nr_range];
	char *start = strchr(text, '@');
	struct resource *resource;
	u64 size, at;

	if (!start || pgmap->nr_range == MAX_RANGES)
		return -EINVAL;
	*start++ = 0;
	if (kstrtou64(text, 0, &size) || kstrtou64(start, 0, &at))
		return -EINVAL;
	if (at)
		resource = devm_request_mem_region(&device->dev, at, size, NAME);
	else
		resource = find_room(size);
	if (IS_ERR_OR_NULL(resource))
		return resource ? PTR_ERR(resource) : -EBUSY;
	range->start = resource->start;
	range->end = resource->end;
	pgmap->nr_range++;
	return 0;
}

static int map(char *arguments)
{
	char *type = strsep(&arguments, " ");
	char *shift = strsep(&arguments, " ");
	unsigned int number;
	int error;

	if (pgmap || !arguments || kstrtouint(shift, 0, &number))
		return -EINVAL;
	error = type_named(type);
	if (error < 0)
		return error;
	pgmap = devm_kzalloc(&device->dev, sizeof(*pgmap) + MAX_RANGES * sizeof(struct range),
			     GFP_KERNEL);
	if (!pgmap)
		return -ENOMEM;
	pgmap->type = error;
	pgmap->ops = &operations;
	pgmap->owner = device;
	error = set_vmemmap_shift(number);
	while (!error && arguments)
		error = request_range(strsep(&arguments, " "));
	if (error)
		return error;
	return PTR_ERR_OR_ZERO(devm_memremap_pages(&device->dev, pgmap));
}

static int of_page(const char *name, unsigned long index, unsigned int order)
{
	unsigned long pfn = PHYS_PFN(pgmap->ranges[0].start) + index;
	struct page *page = pfn_to_page(pfn);

	if (!strcmp(name, "take"))
		return take(page, order);
	if (!strcmp(name, "put")) {
		put(page, order);
		return 0;
	}
	if (strcmp(name, "hold") || !live_pgmap(pfn))
		return -EINVAL;
	get_page(page);
	return 0;
}

static bool is_dying(void)
{
	struct dev_pagemap *live = live_pgmap(PHYS_PFN(pgmap->ranges[0].start));

	if (live)
		put_dev_pagemap(live);
	return !live;
}

static int command(char *line)
{
	char *name = strsep(&line, " ");
	unsigned long index;
	unsigned int order = 0;

	if (!strcmp(name, "map"))
		return map(line);
	if (!pgmap)
		return -EINVAL;
	if (!strcmp(name, "unmap")) {
		devm_memunmap_pages(&device->dev, pgmap);
		return 0;
	}
	if (!strcmp(name, "migrate"))
		return migrate_to(line);
	if (!strcmp(name, "dying"))
		return is_dying() ? 0 : -EBUSY;
	if (!line || sscanf(line, "%li %u", &index, &order) < 1)
		return -EINVAL;
	return of_page(name, index, order);
}

static ssize_t device_write(struct file *file, const char __user *text, size_t size, loff_t *pos)
{
	char *line = memdup_user_nul(text, size);
	int error;

	if (IS_ERR(line))
		return PTR_ERR(line);
	error = command(strim(line));
	kfree(line);
	return error ? error : size;
}

static const struct proc_ops device_operations = {
	.proc_write = device_write,
};

static int __init device_init(void)
{
	device = platform_device_register_simple(NAME, PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	if (proc_create(NAME, 0200, NULL, &device_operations))
		return 0;
	platform_device_unregister(device);
	return -ENOMEM;
}

/* Memory stays mapped as long as the guest lives: there is no way to unload this. */
module_init(device_init);
MODULE_DESCRIPTION("Device memory of all kinds");
MODULE_LICENSE("GPL");
