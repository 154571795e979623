# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Logs in Mails
-------------

Undoes what mailers do to the bytes of a log: quoted-printable, base64, HTML. Each line keeps
the number that it has in the file.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator

from drgn_zonedev.oops_log.regions import Data, NumberedLines

__all__ = ("decoded_lines", "has_encoded_parts", "mail_lines")

_ENCODED = re.compile(rb"^content-transfer-encoding:[ \t]*base64", re.IGNORECASE | re.MULTILINE)
_HEADER = re.compile(rb"^(?:from |[a-z][a-z-]{1,30}:)", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}$")

# Headers begin here, or this is not a mail.
_TOP = 1 << 14


def has_encoded_parts(data: Data) -> bool:
    """Whether the file is a mail with parts in base64, which cannot be searched as they are."""
    top = data[:_TOP]
    return bool(_HEADER.match(top)) and b"base64" in top.lower() and bool(_ENCODED.search(data))


def mail_lines(data: Data) -> NumberedLines:
    """Read all lines of a mail, with its parts in base64 decoded."""
    return list(_without_base64(enumerate(data[:].split(b"\n"), 1)))


def _without_base64(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    in_headers, encoded = False, False
    part: NumberedLines = []
    for number, line in lines:
        line = line.rstrip(b"\r")
        if encoded and not in_headers and _BASE64.match(line):
            part.append((number, line))
            continue
        if part:
            yield from _decoded_base64(part)
            part, encoded = [], False
        if _ENCODED.match(line):
            in_headers = encoded = True
        elif not line:
            in_headers = False
        yield number, line
    yield from _decoded_base64(part)


def _decoded_base64(part: NumberedLines) -> Iterator[tuple[int, bytes]]:
    # A line of text begins in one of the lines that encode it.
    starts: list[tuple[int, int]] = []
    pieces: list[bytes] = []
    size = 0
    for number, line in part:
        try:
            piece = base64.b64decode(line + b"=" * (-len(line) % 4))
        except (binascii.Error, ValueError):
            continue
        starts.append((size, number))
        pieces.append(piece)
        size += len(piece)
    text, at, position = b"".join(pieces), 0, 0
    for line in text.split(b"\n") if starts else ():
        while at + 1 < len(starts) and starts[at + 1][0] <= position:
            at += 1
        yield starts[at][1], line.rstrip(b"\r")
        position += len(line) + 1


# Bits of quoted-printable that no kernel prints: an encoded "=", and a line of which a mailer
# made two.
_QUOTED_PRINTABLE = re.compile(rb"=3D|=20$|^[^\n]{68,76}=$", re.MULTILINE)
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")
_ENTITY = re.compile(r"&(?:lt|gt|amp|nbsp|quot|#\d{1,6}|#x[0-9a-f]{1,6});", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:a|b|br|blockquote|code|div|font|i|li|p|pre|span|td|tr|tt|ul)(?: [^<>]{0,400})?/?>",
    re.IGNORECASE,
)


def decoded_lines(lines: NumberedLines) -> Iterator[tuple[int, str]]:
    """Decode the encodings of mailers and browsers that the lines show signs of."""
    if any(_QUOTED_PRINTABLE.search(line) for _, line in lines):
        lines = list(_from_quoted_printable(lines))
    for number, line in lines:
        yield number, _plain(line.decode("utf-8", "replace"))


def _from_quoted_printable(lines: NumberedLines) -> Iterator[tuple[int, bytes]]:
    first = 0
    parts: list[bytes] = []
    for number, line in lines:
        first = first if parts else number
        soft = line.endswith(b"=")
        parts.append(_ESCAPE.sub(_unescaped, line[:-1] if soft else line))
        if not soft:
            yield first, b"".join(parts)
            parts = []
    if parts:
        yield first, b"".join(parts)


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)])


def _plain(line: str) -> str:
    if "<" in line:
        line = _TAG.sub("", line)
    if "&" in line and _ENTITY.search(line):
        line = html.unescape(line)
    return line.replace("\u00a0", " ")
