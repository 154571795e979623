# SPDX-License-Identifier: LGPL-2.1-or-later

"""QMP servers that lie, or say too much, or nothing."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ("GREETING", "LIES", "Liar")

GREETING = b'{"QMP": {"version": {"qemu": {}, "package": ""}, "capabilities": []}}\r\n'
_EVENT = b'{"event": "X", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'
_MIB = 1 << 20


def _endless(part: bytes) -> Iterator[bytes]:
    return itertools.repeat(part)


LIES: dict[str, Callable[[], Iterator[bytes]]] = {
    "silence": lambda: iter([GREETING]),
    "half a greeting": lambda: iter([GREETING[:20]]),
    "events": lambda: itertools.chain([GREETING], _endless(_EVENT)),
    "events before the greeting": lambda: _endless(_EVENT),
    "a line without end": lambda: itertools.chain([GREETING], _endless(b"x" * 65536)),
    "a greeting without end": lambda: itertools.chain([b'{"QMP": "'], _endless(b"x" * 65536)),
    "an answer without end": lambda: itertools.chain(
        [GREETING, b'{"return": "'], _endless(b"y" * 65536)
    ),
    "an answer of a GiB": lambda: itertools.chain(
        [GREETING, b'{"return": "'], itertools.repeat(b"z" * _MIB, 1024), [b'"}\r\n']
    ),
    "an array": lambda: itertools.chain([GREETING], itertools.repeat(b"[]\r\n", 100)),
    "an error that is a string": lambda: iter([GREETING, b'{"error": "no"}\r\n']),
    "nothing returned": lambda: itertools.chain(
        [GREETING], itertools.repeat(b'{"return": null}\r\n', 100)
    ),
    "brackets": lambda: iter([GREETING, b"[" * 60_000 + b"\r\n"]),
    "missing keys": lambda: itertools.chain([GREETING], itertools.repeat(b"{}\r\n", 100)),
    "empty objects": lambda: itertools.chain(
        [GREETING], itertools.repeat(b'{"return": {}}\r\n', 100)
    ),
    "not UTF-8": lambda: iter([GREETING, b'{"return": "\xff\xfe"}\r\n']),
    "a NUL": lambda: iter([GREETING, b"\0\r\n"]),
    "no greeting": lambda: iter([b'{"return": {}}\r\n']),
    "hang-up": lambda: iter([]),
    "hang-up after the greeting": lambda: iter([GREETING]),
}  # fmt: skip


class Liar:
    """Serves one client, who is told what a lie says; then there is silence, or the end."""

    def __init__(self, path: Path, lie: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._lie = lie
        self._client: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._client, _ = self._listener.accept()
            for part in LIES[self._lie]():
                self._client.sendall(part)
            if self._lie.startswith("hang-up"):
                self._client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        for open_socket in (self._client, self._listener):
            if open_socket:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)
                open_socket.close()
