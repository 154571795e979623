# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import grimp


def test_room_imports_nothing_else_of_the_package() -> None:
    graph = grimp.build_graph("drgn_zonedev", cache_dir=None)
    room = graph.find_descendants("drgn_zonedev.debuginfo") | {"drgn_zonedev.debuginfo"}
    used = {name for module in room for name in graph.find_modules_directly_imported_by(module)}
    assert len(room) > 5
    assert used <= room
