# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A module for corelens, the report generator of drgn-tools: ``%corelens zonedev`` in a
REPL that has both, or ``python -m drgn_zonedev.repl.corelens VMCORE -M zonedev``, because
the ``corelens`` program looks for modules before it loads plugins.

Importing this needs drgn-tools.
"""

from __future__ import annotations

import argparse
import sys

from drgn import Program

try:
    from drgn_tools.corelens import CorelensModule, main
except ImportError as e:
    if __name__ != "__main__":
        raise
    print(f"zonedev: error: {e}: install drgn-tools, which has corelens", file=sys.stderr)
    sys.exit(2)

__all__ = ("ZoneDevice",)


class ZoneDevice(CorelensModule):  # type: ignore[misc]  # drgn-tools is not always there
    """Find the case of every page frame, and whether its struct page is initialised."""

    name = "zonedev"
    # The struct pages of pmem are where the dump is largest.
    run_when = "verbose"

    def add_args(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``zonedev check`` that make sense in a report."""
        parser.add_argument("-v", "--verbose", action="store_true", help="show all evidence")

    def run(self, prog: Program, args: argparse.Namespace) -> None:
        """Print what ``zonedev check`` prints."""
        from drgn_zonedev.render.as_text import report_text
        from drgn_zonedev.report import check

        print(report_text(check(prog), verbose=args.verbose))


if __name__ == "__main__":
    # As __main__, this module defines the class again; corelens accepts only one.
    main()
