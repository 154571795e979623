# SPDX-License-Identifier: LGPL-2.1-or-later

"""A page in Chromium that a test clicks in, by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.browser import CHROMIUM_OPTIONS, require_chromium

Json = dict[str, Any]
_SECONDS = 60
_SIZE = 1400, 1000
_MOUSE = "Input.dispatchMouseEvent"


class Tab:
    """A page. ``events`` is what the browser said of it by itself."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[Json] = []

    def send(self, method: str, **params: Any) -> Json:
        """Call a method of the protocol, and wait for its result."""
        self._number += 1
        message: Json = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _SECONDS
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: Json = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, end: float) -> Json:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        answer: Json = json.loads(message)
        return answer

    def open(self, path: Path) -> None:
        """Show a file, and wait until it is drawn."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM"):
            self.send(f"{domain}.enable")
        width, height = _SIZE
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("document.readyState === 'complete'")
        self.settle()

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; a promise is waited for."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until JavaScript is true."""
        end = time.monotonic() + _SECONDS
        while not self.ask(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.ask("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def click(self, x: float, y: float) -> None:
        """Click at a place in the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send(_MOUSE, type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def click_on(self, selector: str) -> None:
        """Click on an element."""
        self.click(*self.ask(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView("
            "{block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        ))  # fmt: skip

    def wheel(self, x: float, y: float, delta: float) -> None:
        """Turn the wheel."""
        self.send(_MOUSE, type="mouseWheel", x=x, y=y, deltaX=0, deltaY=delta)

    def press(self, key: str) -> None:
        """Press a key that has a name, such as ``ArrowLeft``, or a character."""
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def type(self, words: str) -> None:
        """Insert text where the focus is."""
        self.send("Input.insertText", text=words)

    def text_of(self, selector: str) -> str:
        """Get the text of an element."""
        words: str = self.ask(f"document.querySelector({selector!r}).textContent")
        return words


@contextlib.contextmanager
def opened_tab(directory: Path, page: Path) -> Iterator[Tab]:
    """Open a page in a browser of its own."""
    chromium = require_chromium()
    theirs, to_browser = os.pipe()
    from_browser, ours = os.pipe()

    def pipes() -> None:
        # The protocol's are these two, whatever they were here.
        a, b = os.dup(theirs), os.dup(ours)
        os.dup2(a, 3)
        os.dup2(b, 4)

    process = subprocess.Popen(
        [
            chromium,
            *CHROMIUM_OPTIONS,
            "--remote-debugging-pipe",
            f"--user-data-dir={directory / 'profile'}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=pipes,
        close_fds=False,
        start_new_session=True,
    )
    os.close(theirs)
    os.close(ours)
    try:
        tab = Tab(to_browser, from_browser)
        tab.open(page)
        yield tab
    finally:
        process.kill()
        process.wait(_SECONDS)
        os.close(to_browser)
        os.close(from_browser)
