# SPDX-License-Identifier: LGPL-2.1-or-later

"""A real browser, for what only a browser knows: where things end up, and what is on top."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""For a browser without a screen, which asks nobody for anything."""

# Measures each picture of a page, and answers in an element of it.
_SCRIPT = """
const out = [];
for (const svg of document.querySelectorAll("svg")) {
  svg.scrollIntoView({block: "start", behavior: "instant"});
  const view = svg.getBoundingClientRect();
  const rect = e => {
    const r = e.getBoundingClientRect();
    return [r.left - view.left, r.top - view.top, r.right - view.left, r.bottom - view.top];
  };
  const texts = [...svg.querySelectorAll("text")].map(e => ({
    words: [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join("").trim(),
    rect: rect(e),
  }));
  const boxes = [...svg.querySelectorAll("rect[data-start-pfn]")].map(e => ({
    title: (e.querySelector("title") || {}).textContent || "",
    rect: rect(e),
  }));
  const titleAt = (x, y) => {
    const e = document.elementFromPoint(view.left + x, view.top + y);
    const title = e && e.querySelector(":scope > title");
    return title ? title.textContent : null;
  };
  const hits = [];
  for (const box of boxes) {
    const [left, top, right, bottom] = box.rect;
    hits.push(titleAt((left + right) / 2, (top + bottom) / 2));
  }
  const points = window.POINTS[out.length].map(([label, x]) => {
    const row = texts.find(text => text.words === label);
    return row ? titleAt(x, (row.rect[1] + row.rect[3]) / 2) : null;
  });
  out.push({view: [view.width, view.height], texts, boxes, hits, points});
}
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify(out);
document.body.append(answer);
"""


def require_chromium() -> str:
    """Find it. Where tests are taken seriously, it has to be there."""
    chromium = shutil.which("chromium")
    if chromium is None:
        message = "there is no chromium: scripts/setup installs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return chromium


def measure(
    directory: Path, pictures: list[str], points: list[list[tuple[str, float]]]
) -> list[dict[str, Any]]:
    """
    Show pictures in a browser.

    :param points: of each picture, where to look for what is on top: beside which words, and
        at which x
    :return: of each picture, the size of its ``view``, its ``texts`` and ``boxes`` with where
        they are in it, the title of what is on top of each box in ``hits`` and at each of the
        points in ``points``
    """
    chromium = require_chromium()
    page = directory / "page.html"
    script = f"window.POINTS = {json.dumps(points)};\n{_SCRIPT}"
    page.write_text(
        "<!DOCTYPE html><meta charset='utf-8'><body style='margin: 0'>"
        + "".join(f"<div>{picture}</div>" for picture in pictures)
        + f"<script>{script}</script></body>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            chromium,
            *CHROMIUM_OPTIONS,
            f"--user-data-dir={directory / 'profile'}",
            "--window-size=1400,4000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer, done.stderr
    measured: list[dict[str, Any]] = json.loads(html.unescape(answer[1]))
    return measured
