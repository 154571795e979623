# SPDX-License-Identifier: LGPL-2.1-or-later

"""One xz stream: all of it, or a reason."""

from __future__ import annotations

import io
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drgn_zonedev.export.xz_stream import BadStreamError, CutOffError, XzStream


def _stream(data: bytes, most: int = 1 << 20) -> XzStream:
    return XzStream(io.BytesIO(data), most)


@given(contents=st.binary(max_size=5000), sizes=st.lists(st.integers(1, 2000)))
def test_contents_come_in_pieces_of_any_size(contents: bytes, sizes: list[int]) -> None:
    stream = _stream(lzma.compress(contents))
    left = contents
    for size in sizes:
        piece = stream.read(size)
        assert left.startswith(piece)
        assert bool(piece) == bool(left)
        left = left[len(piece) :]
    assert stream.read_whole(len(left)) == left
    assert stream.read(1) == b""
    stream.finish()


@pytest.mark.parametrize("preset", [0, 6, 9])
def test_all_presets_of_xz_are_read(preset: int) -> None:
    assert _stream(lzma.compress(b"contents", preset=preset)).read_whole(8) == b"contents"


def test_as_many_bytes_as_there_may_be_are_read() -> None:
    _stream(lzma.compress(bytes(1000)), 1000).read_whole(1000)
    with pytest.raises(BadStreamError, match="more than"):
        _stream(lzma.compress(bytes(1001)), 1000).read_whole(1001)


def test_small_stream_of_zeros_does_not_become_large_at_once() -> None:
    stream = _stream(lzma.compress(bytes(64 << 20)), 64 << 20)
    assert len(stream.read(1 << 30)) <= 1 << 20


@given(st.data())
def test_stream_that_is_cut_off_is_noticed(data: st.DataObject) -> None:
    whole = lzma.compress(b"contents")
    stream = _stream(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CutOffError):
        stream.read_whole(9)


def test_end_of_the_stream_is_no_end_of_the_contents() -> None:
    with pytest.raises(CutOffError, match="archive"):
        _stream(lzma.compress(b"contents")).read_whole(9)


@pytest.mark.parametrize("more", [b"x", bytes(4), lzma.compress(b"more")])
def test_what_follows_is_noticed(more: bytes) -> None:
    stream = _stream(lzma.compress(b"contents") + more)
    stream.read_whole(8)
    with pytest.raises(BadStreamError, match="follows"):
        stream.finish()
