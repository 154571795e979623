# SPDX-License-Identifier: LGPL-2.1-or-later

"""``python -m drgn_zonedev`` is ``zonedev``."""

import sys

from drgn_zonedev.util.signals import cleaning_up, nothing_to_clean_up


def run() -> int:
    """Run the command line in a process of its own; returns the exit status."""
    # The rest takes a third of a second to be imported.
    nothing_to_clean_up()
    from drgn_zonedev.shell.cli import main

    try:
        with cleaning_up():
            return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
