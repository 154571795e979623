# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Talk to QEMU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError

__all__ = ("execute", "require_qmp")


def require_qmp() -> None:
    """Raise LabError if the QMP library is not installed."""
    try:
        import qemu.qmp  # noqa: F401
    except ImportError as e:
        raise LabError(
            "qemu.qmp is not installed: run ./scripts/setup in a clone, "
            "or pip install 'qemu.qmp>=0.0.3'"
        ) from e


def execute(
    socket: Path, command: str, arguments: Mapping[str, object], timeout: float = 20
) -> object:
    """Run one QMP command over a connection of its own and return the answer."""
    require_qmp()
    # Slow to import, and needed by few users of the package.
    import asyncio

    from qemu.qmp import QMPClient, QMPError

    async def run() -> object:
        client = QMPClient("lab")
        await asyncio.wait_for(client.connect(str(socket)), timeout)
        try:
            return await asyncio.wait_for(client.execute(command, dict(arguments)), timeout)
        finally:
            # After "quit", QEMU disconnects, which the client reports as an error.
            with suppress(EOFError, QMPError, OSError):
                await asyncio.wait_for(client.disconnect(), timeout)

    try:
        return asyncio.run(run())
    except asyncio.TimeoutError as e:
        raise LabError(f"QEMU did not answer {command} within {timeout:.0f} s") from e
    except (QMPError, EOFError, OSError, AssertionError) as e:
        # The client asserts that it is still connected, which fails if QEMU ends at that moment.
        raise LabError(f"QEMU refused {command}: {e}") from e
