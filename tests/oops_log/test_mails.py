# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import base64
import quopri

from drgn_zonedev.oops_log.mails import decoded_lines, has_encoded_parts, mail_lines

TEXT = b"page: refcount:1 pfn:0x4711\nflags: 0x0(node=0|zone=1)\nraw: 0000000000000000 end\n"
HEAD = b"From: a@example.org\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n"


def numbered(data: bytes) -> list[tuple[int, bytes]]:
    return list(enumerate(data.split(b"\n"), 1))


def test_base64_is_decoded_and_lines_keep_their_place() -> None:
    data = HEAD + base64.encodebytes(TEXT * 3) + b"\n--end\n"
    assert has_encoded_parts(data)
    lines = [line for _, line in mail_lines(data)]
    assert TEXT.split(b"\n")[0] in lines
    assert lines.count(b"flags: 0x0(node=0|zone=1)") == 3
    first = next(number for number, line in mail_lines(data) if line.startswith(b"page:"))
    assert first == 5
    assert [number for number, _ in mail_lines(data)] == sorted(n for n, _ in mail_lines(data))


def test_a_log_is_not_taken_for_a_mail() -> None:
    assert not has_encoded_parts(b"[    0.000000] Linux version 6.1 (base64)\n")
    assert not has_encoded_parts(b"")
    assert not has_encoded_parts(HEAD.replace(b"base64", b"8bit"))


def test_damaged_base64_is_left_out() -> None:
    data = HEAD + b"////=A\n" + base64.encodebytes(TEXT) + b"\n"
    assert any(line.startswith(b"raw:") for _, line in mail_lines(data))


def test_quoted_printable_is_seen_by_what_it_does() -> None:
    long = b"RAX: ffffea0000000040 RBX: ffffea0000000080 RCX: ffffea00000000c0 (node=0|zone=1)\n"
    encoded = quopri.encodestring(long)
    assert b"=\n" in encoded
    assert next(line for _, line in decoded_lines(numbered(encoded))) == long.decode().rstrip()


def test_an_equals_sign_is_not_quoted_printable() -> None:
    line = "flags: 0x17ffffc0000000(node=0|zone=2|lastcpupid=0x1fffff)"
    assert list(decoded_lines([(1, line.encode())])) == [(1, line)]


def test_entities_and_tags_of_a_web_page_are_undone() -> None:
    lines = [(1, b"<p>&lt;TASK&gt;&nbsp;kpagecount_read+0x1/0x2</p>"), (2, b" <TASK>")]
    assert list(decoded_lines(lines)) == [(1, "<TASK> kpagecount_read+0x1/0x2"), (2, " <TASK>")]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert list(decoded_lines([(1, b"RAX: \xff\xfe")])) == [(1, "RAX: \ufffd\ufffd")]
