# SPDX-License-Identifier: LGPL-2.1-or-later

"""What becomes of a log on its way: prefixes, quoting, line breaks, and the encodings of mails."""

from __future__ import annotations

import base64
import html
import quopri
import textwrap
from collections.abc import Callable, Sequence

__all__ = ("MANGLERS", "Mangler")

Mangler = Callable[[Sequence[str]], bytes]


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _stamped(lines: Sequence[str]) -> list[str]:
    return [f"[{2917.5 + i / 1000:12.6f}] {line}" for i, line in enumerate(lines)]


def _with_caller(lines: Sequence[str]) -> list[str]:
    return [f"[{88.25 + i / 1000:12.6f}][ T4711] {line}" for i, line in enumerate(lines)]


def _syslog(lines: Sequence[str]) -> list[str]:
    return [
        f"Nov  3 07:15:{i % 60:02} node7 kernel: {line}" for i, line in enumerate(_stamped(lines))
    ]


def _journal(lines: Sequence[str]) -> list[str]:
    return [
        f"2026-11-03T07:15:{i % 60:02}.125000+0100 node7 kernel: {x}" for i, x in enumerate(lines)
    ]


def _dmesg_t(lines: Sequence[str]) -> list[str]:
    return [f"[Tue Nov  3 07:15:{i % 60:02} 2026] {line}" for i, line in enumerate(lines)]


def _dmesg_x(lines: Sequence[str]) -> list[str]:
    return [f"kern  :alert : {line}" for line in _stamped(lines)]


def _levels(lines: Sequence[str]) -> list[str]:
    return [f"<1>{line}" for line in _stamped(lines)]


def _quoted(lines: Sequence[str]) -> list[str]:
    return ["On Tuesday, somebody wrote:", *(f"> > {line}" for line in lines)]


def _wrapped(lines: Sequence[str], width: int = 72) -> list[str]:
    wrapped = []
    for line in lines:
        wrapped += textwrap.wrap(
            line, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
        ) or [""]
    return wrapped


def _coloured(lines: Sequence[str]) -> list[str]:
    stamp = "\x1b[32m[ 1234.567890] \x1b[0m\x1b[31m"
    return [f"{stamp}{line}\x1b[0m" for line in lines]


def _header(encoding: str, kind: str = "plain") -> bytes:
    return (
        "From: A Tester <tester@example.org>\nSubject: an oops\nMIME-Version: 1.0\n"
        f"Content-Type: text/{kind}; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n"
    ).encode()


def _quoted_printable(lines: Sequence[str]) -> bytes:
    return _header("quoted-printable") + quopri.encodestring(_text(lines))


def _base64_mail(lines: Sequence[str]) -> bytes:
    return _header("base64") + base64.encodebytes(_text(lines)) + b"\n"


def _web_page(lines: Sequence[str]) -> bytes:
    body = "".join(f"{html.escape(line)}<br>\n" for line in lines)
    return f'<div class="log"><pre>\n{body}</pre></div>\n'.encode()


MANGLERS: dict[str, Mangler] = {
    "plain": _text,
    "stamped": lambda lines: _text(_stamped(lines)),
    "caller": lambda lines: _text(_with_caller(lines)),
    "syslog": lambda lines: _text(_syslog(lines)),
    "journal": lambda lines: _text(_journal(lines)),
    "dmesg-t": lambda lines: _text(_dmesg_t(lines)),
    "dmesg-x": lambda lines: _text(_dmesg_x(lines)),
    "levels": lambda lines: _text(_levels(lines)),
    "coloured": lambda lines: _text(_coloured(lines)),
    "dos": lambda lines: _text(lines).replace(b"\n", b"\r\n"),
    "quoted": lambda lines: _text(_quoted(lines)),
    "wrapped": lambda lines: _text(_wrapped(lines)),
    "stamped-wrapped": lambda lines: _text(_wrapped(_stamped(lines), 76)),
    "quoted-wrapped": lambda lines: _text(_quoted(_wrapped(lines, 68))),
    "wrapped-quoted": lambda lines: _text(_wrapped(_quoted(_stamped(lines)), 78)),
    "quoted-printable": _quoted_printable,
    "base64": _base64_mail,
    "web-page": _web_page,
}
