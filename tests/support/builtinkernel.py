# SPDX-License-Identifier: LGPL-2.1-or-later

"""A kernel of a few types and symbols, which it carries within itself."""

from __future__ import annotations

from drgn import Architecture, FindObjectFlags, Object, Platform, Program
from support.rawbtf import BtfWriter
from support.rawkallsyms import TEXT, Image, kallsyms_image

__all__ = ("BTF", "DATA", "SYMBOLS", "builtin_program", "builtin_types", "carried")

DATA, BTF = TEXT + 0x800, TEXT + 0x1000

SYMBOLS = [
    ("D__per_cpu_start", 0),
    ("druns", 0x40),
    ("T_stext", TEXT),
    ("Tmemremap_pages", TEXT + 0x10),
    ("tinlined.part.0", TEXT + 0x20),
    ("tundescribed", TEXT + 0x30),
    ("T_etext", TEXT + 0x400),
    ("Tis_data", DATA - 8),
    ("Dmax_pfn", DATA),
    ("bnode_states", DATA + 8),
    ("bnode_data", DATA + 0x40),
    ("Dunknown_type", DATA + 0x60),
    ("Dtainted_mask", DATA + 0x68),
    ("Rlinux_banner", DATA + 0x70),
    ("Rlinux_proc_banner", DATA + 0x90),
    ("R__start_BTF", BTF),
]


def builtin_types() -> BtfWriter:
    """Write the types."""
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    writer.enum("node_states", 4, N_POSSIBLE=0, N_ONLINE=1, NR_NODE_STATES=6)
    writer.enum("zone_type", 4, ZONE_DEVICE=3, __MAX_NR_ZONES=4)
    mask = writer.struct("", 8, ("bits", writer.array(number, 1), 0))
    writer.add(8, "nodemask_t", mask)
    reference = writer.struct("zoneref", 16, ("zone_idx", number, 0))
    zonelist = ("_zonerefs", writer.array(reference, 4 * 64 + 1), 0)
    writer.struct("zonelist", 16 * (4 * 64 + 1), zonelist)
    writer.struct("pglist_data", 8, ("node_id", number, 0))
    writer.function("memremap_pages", writer.pointer(0), ("nid", number))
    writer.function("inlined", 0)
    writer.function("is_data", 0)
    writer.variable("runs", number)
    return writer


def carried(types: bytes, symbols: list[tuple[str, int]]) -> Image:
    """Make the image of a kernel that carries types and symbols."""
    image = kallsyms_image([*symbols, ("R__stop_BTF", BTF + len(types))])
    data = bytearray(image.data)
    data[BTF - TEXT : BTF - TEXT + len(types)] = types
    data[DATA - TEXT : DATA - TEXT + 8] = (0x280000).to_bytes(8, "little")
    return Image(bytes(data), image.tables)


def builtin_program(image: Image, architecture: Architecture = Architecture.X86_64) -> Program:
    """Make a program that has an image in its memory, and no finders but that of VMCOREINFO."""
    prog = Program(Platform(architecture))
    prog.add_memory_segment(
        TEXT, len(image.data), lambda address, size, *_: image.read(address, size), False
    )
    known = {**image.tables, "_stext": TEXT}
    text = "".join(f"SYMBOL({name})={address:x}\n" for name, address in known.items()).encode()

    def find(prog: Program, name: str, flags: FindObjectFlags, _: str | None) -> Object | None:
        if name != "VMCOREINFO":
            return None
        return Object(prog, prog.array_type(prog.int_type("char", 1, True), len(text)), text)

    prog.register_object_finder("vmcoreinfo", find, enable_index=0)
    return prog
