# SPDX-License-Identifier: LGPL-2.1-or-later

"""A progress bar, on terminals only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from drgn_zonedev.verification.context import Progress

__all__ = ("progress_bar",)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show how much of the memmap was scanned, once that takes longer than a second."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from tqdm import tqdm

    with tqdm(
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        delay=1,
        leave=False,
        file=sys.stderr,
        desc="memmap",
    ) as bar:

        def show(done: int, total: int) -> None:
            if bar.n and bar.n + done > total:
                # Ranges that changed meanwhile are scanned again.
                bar.reset()
            bar.total = total
            bar.update(done)

        yield show
