# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev ranges``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    Status,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_of_kernel_code, write_code
from drgn_zonedev.commands.map import (
    MAP,
    PICTURES,
    MapSubject,
    check_map_arguments,
    is_map,
    map_code,
    map_text,
)
from drgn_zonedev.commands.pgmaps import write_pgmaps
from drgn_zonedev.model import lacks_memmap
from drgn_zonedev.render.screen import Screen
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("RANGES",)


_ARGUMENTS = (
    *output_arguments(*PICTURES),
    MAP,
    Argument("-v", "--verbose", action="store_true", help="show the evidence"),
    Argument(
        "--access",
        action="store_true",
        help="read all struct pages, and also show pages whose memory must not be read",
    ),
)


def _ranges(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.classification.classify import classify_snapshot
    from drgn_zonedev.classification.facts import kernel_facts
    from drgn_zonedev.classification.reading import (
        take_snapshot,
        with_devices,
        with_names_if_known,
    )
    from drgn_zonedev.render import as_json, as_text
    from drgn_zonedev.verification.page_access import with_page_access

    prog = session.prog
    check_map_arguments(args)
    snapshot = take_snapshot(prog)
    kernel, ranges = kernel_facts(prog), classify_snapshot(prog, snapshot)
    if args.access:
        ranges = with_page_access(prog, ranges)

    def picture(screen: Screen | None = None) -> str:
        from drgn_zonedev.opening.provenance import provenance_of
        from drgn_zonedev.render.picture.scene import make_scene

        pgmaps = with_devices(prog, snapshot.pgmaps)
        scene = make_scene(kernel, ranges, pgmaps, provenance=provenance_of(prog, session.source))
        return map_text(args, screen, MapSubject(prog, snapshot, scene))

    def text(screen: Screen | None) -> str:
        if args.map:
            return picture(screen)
        pgmaps = with_names_if_known(prog, snapshot.pgmaps) if args.verbose else ()
        return as_text.ranges_text(
            kernel, ranges, verbose=args.verbose, screen=screen, pgmaps=pgmaps
        )

    print_result(
        args,
        text,
        lambda: as_json.ranges_document(kernel, ranges),
        **dict.fromkeys(PICTURES, picture),
    )
    return Outcome(ranges, Status.NOT_JUDGED if lacks_memmap(ranges) else Status.OK)


def _ranges_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    write_code(builder, "ranges = classify()\n", "drgn_zonedev:classify")
    if args.access:
        write_code(
            builder,
            "ranges = with_page_access(get_default_prog(), ranges)\n",
            "drgn:get_default_prog",
            "drgn_zonedev.verification.page_access:with_page_access",
        )
    if not is_map(args):
        _text_code(builder, args)
        return
    write_pgmaps(builder)
    builder.add_from_import("drgn_zonedev.classification.facts", "kernel_facts")
    builder.add_from_import("drgn_zonedev.opening.provenance", "provenance_of")
    builder.add_from_import("drgn", "get_default_prog")
    contents = "kernel_facts(), ranges, pgmaps, provenance=provenance_of(get_default_prog())"
    map_code(builder, args, contents)


def _text_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    if args.verbose:
        write_pgmaps(builder, "with_names_if_known")
    options = ", verbose=True, pgmaps=pgmaps" if args.verbose else ""
    print_of_kernel_code(builder, args, "ranges", options)


RANGES = Command(
    "ranges",
    "show the case of each range of physical memory, without reading struct pages",
    _ARGUMENTS,
    _ranges,
    DrgnCode(_ranges_code, frozenset({"access", "verbose", "map"}), ("text", "json", *PICTURES)),
)
