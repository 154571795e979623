# SPDX-License-Identifier: LGPL-2.1-or-later

"""``python -m drgn_zonedev`` is ``zonedev``."""

import sys

from drgn_zonedev.cli import main

sys.exit(main())
