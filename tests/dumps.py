# SPDX-License-Identifier: LGPL-2.1-or-later

"""Judging one stored dump, in a process of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from drgn_zonedev.lab.store import differences
from drgn_zonedev.render import as_json
from drgn_zonedev.report import check
from drgn_zonedev.stored import StoredDump


def judge_dump(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Say what is wrong with what the tool says of a dump, and what it says."""
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    dump = StoredDump(path)
    with dump.program() as prog:
        return differences(prog, dump.expected()), as_json.report_document(check(prog))
