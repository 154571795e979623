# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Say of every device how much of it a PFN walker may touch.

    drgn -c VMCORE -s VMLINUX who_owns_it.py

drgn runs this with ``prog`` as its default program; nothing else is needed. It is meant
to be copied and changed.
"""

import collections

from drgn_zonedev import (
    classify,
    dev_pagemap_type,
    for_each_dev_pagemap,
    pfn_zone_device,
    sparsemem_geometry,
)

page_size = 1 << sparsemem_geometry().page_shift

# Pages of each pgmap, by what they are.
pages = collections.defaultdict(collections.Counter)
for range_ in classify():
    if range_.pgmap is not None:
        pages[range_.pgmap][range_.case.value] += range_.pages

for pfn, pgmap in for_each_dev_pagemap():
    print(f"{pgmap.value_():#x}: {dev_pagemap_type(pgmap)} at PFN {pfn:#x}")
    for case, count in pages[pgmap.value_()].most_common():
        print(f"    {case:14}{count * page_size >> 10:12} KiB")
    # The first page is the altmap's reserve, if there is one: a trap.
    print(f"    the first page may be touched: {'yes' if pfn_zone_device(pfn) else 'NO'}")
