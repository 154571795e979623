# SPDX-License-Identifier: LGPL-2.1-or-later

"""A command starts fast because it imports only what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import drgn_zonedev
import drgn_zonedev.lab


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_command_line_leaves_out_what_other_commands_need() -> None:
    modules = imported_by("import drgn_zonedev.shell.cli, drgn_zonedev.verification.pool.scanner")
    others = {
        *(
            "drgn_zonedev.export.write",
            "drgn_zonedev.pfn_walkers",
            "drgn_zonedev.explanation.explain",
        ),
        *("drgn_zonedev.render.as_junit", "xml.etree.ElementTree"),
        *("drgn_zonedev.lab.machine.boot", "drgn_zonedev.lab.scenarios", "asyncio"),
        # Processes that share the work start before this one has imported it.
        "numpy",
    }
    others.add("drgn_zonedev.commands.check")
    assert "drgn_zonedev.commands.base" in modules
    assert modules & others == set()


def test_numpy_waits_until_drgn_indexes() -> None:
    code = (
        "from drgn_zonedev.shell import cli\n"
        "cli.index_symbols = lambda *args: sys.exit(int('numpy' in sys.modules))\n"
        "cli.main(['-c', 'vmcores/6.1-empty', 'check'])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], cwd=root, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("package", [drgn_zonedev, drgn_zonedev.lab])
def test_packages_have_what_they_promise(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense  # type: ignore[attr-defined]
