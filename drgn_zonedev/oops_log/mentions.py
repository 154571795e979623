# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Addresses in Lines
------------------

Finds the addresses in a line of an oops, and the meaning of each: the fault address, a
register, a place in the code, or a struct page.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from drgn_zonedev.oops_log.lines import LogLine

__all__ = ("Mention", "Said", "mentions")


class Said(enum.Enum):
    """What a line says of an address."""

    FAULT = "fault address"
    FAULT_PAGE = "page of the fault address"
    REGISTER = "register"
    CODE = "code"
    PAGE = "struct page"
    LIST = "list"
    RAW = "raw word"


@dataclass(frozen=True)
class Mention:
    """
    An address in a log. ``name`` is that of the register, or what the log calls it.
    """

    line: int
    address: int
    role: Said
    name: str


# Skip lines without an address quickly: most have none.
_DIGITS = re.compile(r"[0-9a-f]{8}")
_HEX = r"([0-9a-f]{16})(?![0-9a-f])"

# Labels that the five architectures give to registers that can hold an address.
_REGISTER = re.compile(
    r"(?<![\w.+])(R(?:[A-D]X|[SD]I|[BS]P|IP|1[0-5]|0?[89])|CR2|[FG]S|x(?:[12]?[0-9]|30|31)"
    r"|sp|pc|lr|epc|ra|gp|tp|fp|t[0-6]|s(?:1[01]|[0-9])|a[0-7]|NIP|LR|CTR|CFAR|DAR|badaddr)"
    r"[ ]{0,2}:[ ]{0,2}(?:[0-9a-f]{4}:)?(?:\[<)?" + _HEX
)
_FAULT = re.compile(
    r"[Uu]nable to handle (?:kernel )?[^:\[]{0,70}?(?:address|at)[ :]{1,2}(?:0x)?"
    r"([0-9a-f]{8,16})\b"
    r"|NULL pointer dereference, address: (?:0x)?([0-9a-f]{8,16})\b"
    r"|non-canonical address (?:0x)?([0-9a-f]{8,16})\b"
    r"|access at addr(?:ess)? (?:0x)?([0-9a-f]{8,16})\b"
    r"|of size \d{1,9} at addr ([0-9a-f]{16})\b"
)
_FAULT_PAGE = re.compile(r"Failing address: ([0-9a-f]{16})")
_WILD = re.compile(r"(?:null-ptr-deref|user-memory-access|wild-memory-access) in range \[0x" + _HEX)
_GPRS = re.compile(
    r"\bGPR(\d\d): ((?:[0-9a-f]{16} ?){1,4})|\bKrnl GPRS: ?((?:[0-9a-f]{16} {0,20}){1,16})"
)
_WORD = re.compile(r"[0-9a-f]{16}")
_PSW = re.compile(r"Krnl PSW : [0-9a-f]{16} " + _HEX)
_TRACE = re.compile(r"\[<?" + _HEX + r">?\]")
_PAGE = re.compile(r"\b(page|head): ?(?:0x)?(f[0-9a-f]{15}|c[0-9a-f]{15}|0000[0-9a-f]{12})\b")
_LIST = re.compile(r"list_(?:add|del) corruption|list corruption", re.IGNORECASE)

_CODE_REGISTERS = frozenset({"RIP", "pc", "lr", "epc", "ra", "NIP", "LR", "CTR", "CFAR"})
_FAULT_REGISTERS = frozenset({"CR2", "DAR", "badaddr"})


def mentions(line: LogLine) -> Iterator[Mention]:
    """Find the addresses that a line mentions, in the order of the line."""
    text = line.text
    if not _DIGITS.search(text):
        return
    if "corruption" in text and _LIST.search(text):
        for word in _WORD.finditer(text):
            yield _mention(line, word.start(), word[0], Said.LIST, "list")
        return
    if "addr" in text or " at 0x" in text or "nable to handle" in text:
        yield from _faults(line)
    for match in _REGISTER.finditer(text):
        yield _mention(line, match.start(2), match[2], _role(match[1]), match[1])
    if "GPR" in text:
        yield from _numbered_registers(line)
    if "PSW" in text and (psw := _PSW.search(text)) is not None:
        yield _mention(line, psw.start(1), psw[1], Said.CODE, "PSW")
    if "in range [0x" in text:
        for match in _WILD.finditer(text):
            yield _mention(line, match.start(1), match[1], Said.FAULT, "KASAN")
    if "[" in text:
        for match in _TRACE.finditer(text):
            yield _mention(line, match.start(1), match[1], Said.CODE, "trace")
    for match in _PAGE.finditer(text) if "page:" in text or "head:" in text else ():
        # One with 32 leading zeros is hashed by %p.
        if not match[2].startswith("00000000"):
            yield _mention(line, match.start(2), match[2], Said.PAGE, match[1])


def _faults(line: LogLine) -> Iterator[Mention]:
    for match in _FAULT.finditer(line.text):
        group = match.lastindex or 1
        yield _mention(line, match.start(group), match[group], Said.FAULT, "fault")
    for match in _FAULT_PAGE.finditer(line.text):
        yield _mention(line, match.start(1), match[1], Said.FAULT_PAGE, "Failing address")


def _role(register: str) -> Said:
    if register in _FAULT_REGISTERS:
        return Said.FAULT
    return Said.CODE if register in _CODE_REGISTERS else Said.REGISTER


def _numbered_registers(line: LogLine) -> Iterator[Mention]:
    for match in _GPRS.finditer(line.text):
        first = int(match[1]) if match[1] else 0
        group = 2 if match[1] else 3
        for i, word in enumerate(_WORD.finditer(line.text, *match.span(group))):
            yield _mention(line, word.start(), word[0], Said.REGISTER, f"GPR{first + i:02}")


def _mention(line: LogLine, offset: int, digits: str, role: Said, name: str) -> Mention:
    return Mention(line.number_at(offset), int(digits, 16), role, name)
