# SPDX-License-Identifier: LGPL-2.1-or-later

"""Headers of tar archives: plain ones are read, all others refused."""

from __future__ import annotations

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.archives import header

from drgn_zonedev.export.ustar import (
    BLOCK,
    BadHeaderError,
    Header,
    is_end,
    padding,
    parse_header,
)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
@given(size=st.integers(0, (1 << 33) - 1), name=st.text("abc.-_", min_size=1, max_size=90))
def test_header_of_a_file_is_read(tar_format: int, size: int, name: str) -> None:
    info = tarfile.TarInfo(f"dir/{name}")
    info.size = size
    block = info.tobuf(tar_format)  # type: ignore[arg-type]
    assert parse_header(block) == Header(name, size, is_directory=False)


@pytest.mark.parametrize("path", ["out/", "./"])
@pytest.mark.parametrize("kind", [b"5", b"0", b"\0"])
def test_directory_is_known_by_its_type_or_its_name(path: str, kind: bytes) -> None:
    assert parse_header(header(path, 0, kind)).is_directory


@pytest.mark.parametrize("kind", sorted({bytes([n]) for n in range(256)} - {b"0", b"\0", b"5"}))
def test_anything_else_is_refused(kind: bytes) -> None:
    with pytest.raises(BadHeaderError):
        parse_header(header("vmcore", 0, kind))


@given(at=st.integers(0, BLOCK - 1), bit=st.integers(0, 6))
def test_damage_is_noticed(at: int, bit: int) -> None:
    block = bytearray(header("vmcore", 512))
    block[at] ^= 1 << bit
    # What separates numbers may be a space or a zero.
    if bytes(block[148:156]).split(b"\0")[0].strip() != header("vmcore", 512)[148:154]:
        with pytest.raises(BadHeaderError):
            parse_header(bytes(block))
    elif not 148 <= at < 156:
        with pytest.raises(BadHeaderError, match="checksum"):
            parse_header(bytes(block))


@given(field=st.binary(min_size=12, max_size=12))
def test_size_is_octal_or_refused(field: bytes) -> None:
    try:
        size = parse_header(header("vmcore", field)).size
    except BadHeaderError:
        return
    assert int(field.strip(b" \0"), 8) == size
    assert 0 <= size < 1 << 36


def test_end_is_a_block_of_zeros() -> None:
    assert is_end(bytes(BLOCK))
    assert not is_end(bytes(BLOCK - 1) + b"\1")


@given(st.integers(0, 1 << 40))
def test_padding_fills_a_block(size: int) -> None:
    assert 0 <= padding(size) < BLOCK
    assert (size + padding(size)) % BLOCK == 0
