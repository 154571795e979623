# SPDX-License-Identifier: LGPL-2.1-or-later

"""A progress bar for people; nothing at all for pipes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from drgn_zonedev.scan import Progress

__all__ = ("progress_bar",)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show how many struct pages were read, once it takes longer than a moment."""
    if not sys.stderr.isatty():
        yield lambda pages: None
        return
    from tqdm import tqdm

    with tqdm(
        unit=" pages", unit_scale=True, delay=1, leave=False, file=sys.stderr, desc="memmap"
    ) as bar:
        yield lambda pages: (bar.update(pages), None)[1]
