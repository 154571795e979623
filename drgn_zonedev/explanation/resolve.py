# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Resolving PFNs
--------------

Find the page that a user means: by its PFN, a physical address, a pointer to its struct
page or folio, or the name of the resource in ``/proc/iomem`` that contains it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from drgn import FaultError, Object, Program, TypeKind
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mmzone import valid_section

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.memremap import find_dev_pagemap
from drgn_zonedev.kernel.mmzone import require_section, sparsemem_geometry
from drgn_zonedev.kernel.resource import Resource, Resources, iomem_resources, with_names
from drgn_zonedev.model import Finding, Pgmap, Range
from drgn_zonedev.util.strings import printable

__all__ = (
    "Subject",
    "UnknownNameError",
    "listed",
    "resolve",
    "resolve_pfn",
    "resolve_range",
    "warn_of_others",
)

_logger = logging.getLogger("drgn_zonedev")

_KINDS = {"pfn": "PFN", "phys": "physical address", "page": "struct page pointer"}
_KINDS_OF_WORDS = {words: kind for kind, words in _KINDS.items()}

# An address as printk() prints it: sixteen digits that cannot be decimal.
_BARE_ADDRESS = r"(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{16}"

_RESOURCE = "resource"

# The most names that an error lists.
_FEW = 12


class UnknownNameError(ValueError):
    """There is neither a page nor a resource of this name."""


@dataclass(frozen=True)
class Subject:
    """
    The page that was meant.

    ``kind`` says how it was given: ``PFN``, ``physical address``, ``struct page
    pointer`` or ``resource``. ``note`` says how *what* was understood. ``is_one_of_many`` is true
    if there are further resources of that name.
    """

    pfn: int
    kind: str
    note: str = ""
    is_one_of_many: bool = False


@takes_program_or_default
def resolve(
    prog: Program,
    what: int | str | Object | Range | Finding | Pgmap,
    kind: str | None = None,
    resources: Resources | None = None,
) -> Subject:
    """
    Find the page that is meant.

    :param what: A PFN; an address in vmemmap; an object (``struct page *``, ``struct
        folio *``, what they point to, or an integer); a range, finding or pgmap, for its first
        page; or text: a number, for which :func:`resolve_pfn` guesses the kind, or the name
        of a resource in ``/proc/iomem``.
    :param kind: ``pfn``, ``phys`` or ``page``: the kind of the number, instead of a guess.
    :param resources: The resources of ``/proc/iomem``, if they were already read.
    :raises ValueError: if there is no such page; the message says what to give instead
    :raises TypeError: if *what* is anything else
    """
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"unknown kind of number {kind!r}: give one of {', '.join(_KINDS)}")
    if isinstance(what, Object):
        return _resolve_object(prog, what, kind)
    if isinstance(what, (Range, Finding)):
        return Subject(what.start_pfn, _KINDS["pfn"])
    if isinstance(what, Pgmap):
        return _resolve_pgmap(what)
    if isinstance(what, str):
        if not what.strip():
            raise ValueError("expected a PFN, an address or a name, got an empty text")
        try:
            number = int(what, 0)
        except ValueError:
            number = None
        if number is None:
            if re.fullmatch(_BARE_ADDRESS, what):
                return _subject(prog, int(what, 16), kind)
            _refuse_number(what)
            named = with_names(prog, resources) if resources else iomem_resources(prog)
            return _resolve_resource(prog, what, named)
        return _subject(prog, number, kind)
    if not isinstance(what, int):
        raise TypeError(
            f"expected a PFN, a drgn object, a range, a finding or a name, "
            f"got {type(what).__name__}"
        )
    return _resolve_number(prog, what, kind)


def _refuse_number(text: str) -> None:
    """Refuse text that looks like a number, but is not in Python's notation."""
    digits = text.strip().lstrip("0")
    if re.fullmatch(r"\d[0-9a-fA-F]*", text.strip()) and digits:
        others = f"0x{digits} or {digits}" if digits.isdecimal() else f"0x{digits}"
        raise ValueError(f"{text!r} is not a number in Python's notation: give {others}")


def _resolve_number(prog: Program, value: int, kind: str | None) -> Subject:
    # In Python, a number is a PFN unless it can only be a pointer; the caller can give the kind.
    if kind is None:
        kind = "page" if value >= page_layout(prog).vmemmap else "pfn"
    return _subject(prog, value, kind)


def _subject(prog: Program, value: int, kind: str | None) -> Subject:
    pfn, found = resolve_pfn(prog, value, kind)
    guessed = kind is None and found != _KINDS["pfn"]
    return Subject(pfn, found, f"{value:#x} was taken for a {found}" if guessed else "")


@takes_program_or_default
def resolve_pfn(prog: Program, value: int, kind: str | None = None) -> tuple[int, str]:
    """
    Find the PFN that a number means.

    An address inside vmemmap is a ``struct page *`` or ``struct folio *``. Any
    other number is a PFN if there is memory at that PFN. Otherwise, it is a physical
    address if there is memory at that address and the number is far beyond the PFNs of
    all memory.

    :param kind: ``pfn``, ``phys`` or ``page``: the kind of the number, instead of a guess.
    :return: Tuple of (PFN, how the number was understood).
    :raises ValueError: if the number is out of range for *kind*, or ambiguous
    """
    geometry, layout = sparsemem_geometry(prog), page_layout(prog)
    if kind is None:
        if value >= layout.vmemmap:
            kind = "page"
        elif not _is_memory(prog, value) and _is_memory(prog, value >> geometry.page_shift):
            _refuse_either(prog, value)
            kind = "phys"
        else:
            kind = "pfn"
    pfn = {
        "pfn": value,
        "phys": value >> geometry.page_shift,
        "page": (value - layout.vmemmap) // layout.size,
    }[kind]
    if not 0 <= pfn < geometry.max_pfn:
        last = geometry.max_pfn - 1
        lasts = {
            "pfn": last,
            "phys": (last << geometry.page_shift) + (1 << geometry.page_shift) - 1,
            "page": layout.page_address(last),
        }
        first = layout.vmemmap if kind == "page" else 0
        raise ValueError(
            f"{value:#x} is not a {_KINDS[kind]} on this machine: "
            f"give one from {first:#x} to {lasts[kind]:#x}"
        )
    return pfn, _KINDS[kind]


# A number this far beyond all memory cannot be a PFN.
_FAR_BEYOND = 16


def _refuse_either(prog: Program, value: int) -> None:
    try:
        highest = prog["__highest_present_section_nr"].value_()
    except FaultError:
        return
    geometry = sparsemem_geometry(prog)
    if value < _FAR_BEYOND * (highest + 1) * geometry.pages_per_section:
        raise ValueError(
            f"{value:#x} can be PFN {value:#x}, where there is no memory, or a physical address "
            f"of PFN {value >> geometry.page_shift:#x}: choose with --as pfn or --as phys "
            "(in Python, with kind)"
        )


def _is_memory(prog: Program, pfn: int) -> bool:
    # Memory that cannot be read counts as absent: the number may have another meaning.
    if not 0 <= pfn < sparsemem_geometry(prog).max_pfn:
        return False
    for ask in (_is_present, find_dev_pagemap):
        with contextlib.suppress(FaultError):
            if ask(prog, pfn):
                return True
    return False


def _is_present(prog: Program, pfn: int) -> bool:
    nr = pfn // sparsemem_geometry(prog).pages_per_section
    return bool(valid_section(require_section(prog, nr)))


def _resolve_object(prog: Program, what: Object, kind: str | None) -> Subject:
    type_ = what.type_
    if type_.unaliased_kind() == TypeKind.POINTER:
        return _resolve_pointer(prog, what.value_(), type_.type.type_name())
    if type_.unaliased_kind() in (TypeKind.STRUCT, TypeKind.UNION):
        if what.address_ is None:
            raise ValueError(
                f"this {type_.type_name()} is a value without an address: give a pointer, or a "
                "reference object"
            )
        return _resolve_pointer(prog, what.address_, type_.type_name())
    if type_.unaliased_kind() not in (TypeKind.INT, TypeKind.ENUM):
        raise ValueError(
            f"expected a struct page *, a struct folio * or a PFN, got {type_.type_name()}"
        )
    return _resolve_number(prog, what.value_(), kind)


def _resolve_pgmap(pgmap: Pgmap) -> Subject:
    if not pgmap.ranges:
        raise ValueError("this pgmap has no range: give a PFN")
    return Subject(pgmap.ranges[0].start_pfn, _KINDS["pfn"], "the first page of the pgmap")


def _resolve_pointer(prog: Program, address: int, pointee: str) -> Subject:
    if pointee.replace("const ", "") not in ("struct page", "struct folio", "void"):
        raise ValueError(f"expected a struct page *, a struct folio * or a PFN, got {pointee}")
    return Subject(*resolve_pfn(prog, address, "page"))


def _resolve_resource(prog: Program, name: str, resources: Resources) -> Subject:
    if resources.unreadable and not resources.found:
        raise ValueError(f"{name!r} is not a number, and iomem_resource cannot be read: give a PFN")
    found = _named(resources.found, name)
    shift = sparsemem_geometry(prog).page_shift
    first = found[0]
    pfn = (first.start + (1 << shift) - 1) >> shift
    end = first.end >> shift
    if pfn >= end:
        raise ValueError(
            f"the resource {name!r} is smaller than a page: give one that holds a whole page"
        )
    return Subject(pfn, _RESOURCE, _resource_note(found, pfn, end), len(found) > 1)


def _named(resources: Sequence[Resource], name: str) -> list[Resource]:
    if exact := [r for r in resources if r.name == name]:
        return exact
    similar = [r for r in resources if name.lower() in r.name.lower()]
    names = list(dict.fromkeys(r.name for r in similar))
    if len(names) == 1:
        return similar
    if names:
        raise ValueError(f"{name!r} is ambiguous: choose one of {listed(names)}")
    known = list(dict.fromkeys(r.name for r in resources if r.name))
    raise UnknownNameError(
        f"there is no resource {name!r}: give a PFN, a physical address, "
        f"a struct page's address, or one of {listed(known)}"
    )


def listed(names: Sequence[str]) -> str:
    """List names for an error, but not more than a reader can use."""
    shown = ", ".join(repr(name) for name in names[:_FEW])
    return shown if len(names) <= _FEW else f"{shown} and {len(names) - _FEW} more"


def _resource_note(found: Sequence[Resource], pfn: int, end: int) -> str:
    first = found[0]
    count = f"the first of {len(found)} resources of that name, " if len(found) > 1 else ""
    others = ""
    if len(found) > 1:
        spans = [f"[{r.start:#x}, {r.end:#x})" for r in found[1 : 1 + _FEW]]
        others = f"; the others: {', '.join(spans)}"
        others += f" and {len(found) - 1 - _FEW} more" if len(found) > 1 + _FEW else ""
    return (
        f"{first.name!r} is {count}[{first.start:#x}, {first.end:#x}), {end - pfn} pages: "
        f"this is the first of them{others}"
    )


def warn_of_others(subject: Subject) -> None:
    """Say where the other resources are if there are some of the name that was given."""
    if subject.is_one_of_many:
        _logger.warning("%s", printable(subject.note))


@takes_program_or_default
def resolve_range(prog: Program, text: str, kind: str | None = None) -> tuple[int, int]:
    """
    Find the pages that are meant by ``START..END``, or by one page or resource.

    :param text: Each part as :func:`resolve` takes it, and *END* of the kind of *START*.
    :param kind: ``pfn``, ``phys`` or ``page``: the kind of the numbers, instead of a guess.
    :return: Half-open range of PFNs. A resource as *END* is included.
    :raises ValueError: if there is no such page, or no page in the range
    """
    first, dots, last = text.partition("..")
    start = resolve(prog, first, kind)
    warn_of_others(start)
    if not dots:
        is_resource = start.kind == _RESOURCE
        return start.pfn, _end_of_resource(prog, first) if is_resource else start.pfn + 1
    end = _end(prog, last, kind or _KINDS_OF_WORDS.get(start.kind))
    if end <= start.pfn:
        raise ValueError(f"no page is in {text!r}: END, which is not included, must be above START")
    return start.pfn, end


def _end(prog: Program, text: str, kind: str | None) -> int:
    if re.fullmatch(_BARE_ADDRESS, text):
        text = f"0x{text}"
    try:
        value = int(text, 0)
    except ValueError:
        found = resolve(prog, text)
        warn_of_others(found)
        return _end_of_resource(prog, text) if found.kind == _RESOURCE else found.pfn
    if value == 0:
        return 0
    try:
        # The page that contains the end address counts, unless that is its first byte. There may be
        # no PFN after the end.
        return resolve_pfn(prog, value - 1, kind)[0] + 1
    except ValueError:
        # It says what is wrong with the number that was given.
        return resolve_pfn(prog, value, kind)[0]


def _end_of_resource(prog: Program, name: str) -> int:
    found = _named(iomem_resources(prog).found, name)[0]
    return found.end >> sparsemem_geometry(prog).page_shift
