# SPDX-License-Identifier: LGPL-2.1-or-later

"""
An empty label area for an NVDIMM: only namespaces that are kept in labels can be resized.

The layout is that of ``struct nd_namespace_index`` (``drivers/nvdimm/label.h``), and of the UEFI
specification's NVDIMM label protocol, version 1.2.
"""

from __future__ import annotations

import struct

__all__ = ("AREA_BYTES", "write_labels_command")

AREA_BYTES = 128 << 10
"""The smallest area that QEMU offers."""

_LABEL_BYTES = 256
_INDEX_BYTES = 256
_SLOTS = (AREA_BYTES - 2 * _INDEX_BYTES) // _LABEL_BYTES
_INDEX = struct.Struct("<16s3sBIQQQQIHH")
_CHECKSUM = struct.Struct("<Q")


def write_labels_command() -> bytes:
    """Return the ``struct nd_cmd_set_config_hdr`` that writes two index blocks without labels."""
    blocks = _index(0, 1) + _index(1, 3)
    status = bytes(4)
    return struct.pack("<II", 0, len(blocks)) + blocks + status


def _index(number: int, sequence: int) -> bytes:
    # Of two blocks, the one with the later sequence number counts, and 3 comes before 1.
    head = _INDEX.pack(
        b"NAMESPACE_INDEX",
        bytes(3),
        _LABEL_BYTES >> 8,
        sequence,
        number * _INDEX_BYTES,
        _INDEX_BYTES,
        (1 - number) * _INDEX_BYTES,
        2 * _INDEX_BYTES,
        _SLOTS,
        1,
        2,
    )
    free = ((1 << _SLOTS) - 1).to_bytes(_INDEX_BYTES - len(head) - _CHECKSUM.size, "little")
    checksum = _fletcher64(head + bytes(_CHECKSUM.size) + free)
    return head + _CHECKSUM.pack(checksum) + free


def _fletcher64(data: bytes) -> int:
    low = high = 0
    for (word,) in struct.iter_unpack("<I", data):
        low = (low + word) % (1 << 32)
        high = (high + low) % (1 << 64)
    return (high << 32 | low) % (1 << 64)
