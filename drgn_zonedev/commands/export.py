# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev export``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    UsageError,
    not_empty,
    number,
    pfns,
    print_text,
)
from drgn_zonedev.commands.drgn_code import write_code
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("EXPORT",)


def _pages(text: str) -> int:
    pages = number(text)
    if pages < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return pages


def _out(text: str) -> str:
    from drgn_zonedev.export.archive import SUFFIXES

    name = Path(not_empty(text)).name
    if name in SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a name before {name}, such as NAME{name}")
    return text


_ARGUMENTS = (
    Argument(
        "out",
        metavar="OUT",
        type=_out,
        help="the directory to write, or, if it ends in .tar.xz, the archive",
    ),
    Argument("--force", action="store_true", help="replace OUT if it is an earlier export"),
    Argument("--all-memmap", action="store_true", help="also include the struct pages of RAM"),
    Argument(
        "--pfns",
        metavar="START..END",
        type=pfns,
        action="append",
        default=[],
        help="also include the struct pages of these PFNs, in RAM or not (may be given more than "
        "once)",
    ),
    Argument(
        "--margin",
        metavar="PAGES",
        type=_pages,
        default=512,
        help="struct pages to include on both sides of a device (default: %(default)s)",
    ),
    Argument(
        "--blank-names", action="store_true", help="leave out the names of devices and resources"
    ),
)


def _export(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.export.archive import ArchiveError
    from drgn_zonedev.export.blank import NameLeftError
    from drgn_zonedev.export.write import ExportOptions, write_export
    from drgn_zonedev.render.export import export_text
    from drgn_zonedev.util.directories import NotEmptyError
    from drgn_zonedev.vmcore.exported import leaves_out_ram

    if args.all_memmap and leaves_out_ram(session.prog):
        raise UsageError(
            "this export left out the struct pages of RAM, which --all-memmap would include: "
            "export the dump that it was made from, or remove --all-memmap"
        )
    options = ExportOptions(args.all_memmap, args.margin, args.blank_names, tuple(args.pfns))
    try:
        with progress_bar() as progress:
            done = write_export(
                session.prog, args.out, options, force=args.force, progress=progress
            )
    except FileExistsError as e:
        hint = _about_force(args) if isinstance(e, NotEmptyError) else ""
        raise UsageError(f"{e}: choose another name{hint}") from e
    except OSError as e:
        raise UsageError(f"cannot write {args.out}: {e.strerror or e}: choose another place") from e
    except NameLeftError as e:
        raise UsageError(f"cannot leave out all names: {e}: nothing was written") from e
    except ArchiveError as e:
        raise UsageError(f"cannot write {args.out}: {e}") from e
    except ValueError as e:
        raise UsageError(f"cannot export this: {e}") from e
    print_text(export_text(done.path, done.meta))
    return Outcome(done)


def _about_force(args: argparse.Namespace) -> str:
    from drgn_zonedev.export.write import is_earlier_export

    if args.force:
        return ": --force replaces an earlier export, and nothing else"
    return ", or replace that export with --force" if is_earlier_export(Path(args.out)) else ""


def _export_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    options = f"{args.all_memmap!r}, {args.margin!r}, {args.blank_names!r}, {tuple(args.pfns)!r}"
    write_code(
        builder,
        f"done = write_export(get_default_prog(), {args.out!r}, ExportOptions({options}), "
        f"force={args.force!r})\nprint(export_text(done.path, done.meta))\n",
        "drgn:get_default_prog",
        "drgn_zonedev.export.write:ExportOptions",
        "drgn_zonedev.export.write:write_export",
        "drgn_zonedev.render.export:export_text",
    )


EXPORT = Command(
    "export",
    "write a small vmcore with only the memory that the other commands read",
    _ARGUMENTS,
    _export,
    DrgnCode(
        _export_code, frozenset({"out", "force", "all_memmap", "margin", "blank_names", "pfns"})
    ),
)
