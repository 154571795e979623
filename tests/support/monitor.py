# SPDX-License-Identifier: LGPL-2.1-or-later

"""The other end of a QMP connection."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any


class Monitor:
    """The other end of a QMP connection, which says what it is told to."""

    def __init__(self, path: Path) -> None:
        self.running = True
        self.heard: list[str] = []
        # What is sent in front of the answer to a command.
        self.before: dict[str, bytes] = {}
        self.refused: set[str] = set()
        self.ends_after = ""
        self.ended = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        client.sendall(b'{"QMP": {}}\r\n')
        for line in client.makefile("rb"):
            message = json.loads(line.strip(b"\x01\r\n") or b"{}")
            if message:
                client.sendall(self.before.get(message["execute"], b"") + self._answer(message))
                if message["execute"] == self.ends_after:
                    break
        client.shutdown(socket.SHUT_RDWR)
        self.ended.set()

    def _answer(self, message: dict[str, Any]) -> bytes:
        command, tag = message["execute"], message["id"]
        self.heard.append(command)
        if command in self.refused:
            body: dict[str, Any] = {"error": {"class": "GenericError", "desc": "not now"}}
        elif command == "query-status":
            body = {"return": {"running": self.running}}
        else:
            self.running = command == "cont"
            body = {"return": {}}
        return json.dumps({**body, "id": tag}).encode() + b"\r\n"
