/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels: see Kbuild. */
#include <linux/memremap.h>

static inline struct dev_pagemap *live_pgmap(unsigned long pfn)
{
#ifdef HAVE_ONE_ARGUMENT
	return get_dev_pagemap(pfn);
#else
	return get_dev_pagemap(pfn, NULL);
#endif
}
