# SPDX-License-Identifier: LGPL-2.1-or-later

"""
xz
--

One xz stream, read front to back with limits: :mod:`lzma`'s own file object takes as much memory as
a stream asks for, and reads any number of streams.
"""

from __future__ import annotations

import lzma
from typing import BinaryIO

__all__ = ("MAGIC", "BadStreamError", "CutOffError", "XzStream")

MAGIC = b"\xfd7zXZ\0"
"""The first bytes of a file in this format."""

_CHUNK = 1 << 20

# xz -9 has a dictionary of 64 MiB. A header can ask for 4 GiB.
_MAX_MEMORY = 80 << 20


class BadStreamError(Exception):
    """A file is not one xz stream, or unpacks to more than the limit."""


class CutOffError(BadStreamError):
    """The file ends before the stream does."""


class XzStream:
    """
    Reads the contents of an xz stream.

    :param file: The compressed file.
    :param limit: How many bytes it may unpack to.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_MEMORY)
        self._limit = self._left = limit
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        """
        Read at least one byte and at most ``size``, or none at the end of the stream.

        :raises BadStreamError: if the stream is damaged or cut off, or holds too much
        """
        while not self._piece:
            if self._xz.eof:
                return b""
            self._piece = memoryview(self._decompress())
        taken, self._piece = self._piece[:size], self._piece[size:]
        return bytes(taken)

    def _decompress(self) -> bytes:
        data = b""
        if self._xz.needs_input:
            data = self._file.read(_CHUNK)
            if not data:
                raise CutOffError("the file is cut off")
        try:
            # One byte above the limit shows that there are too many.
            piece = self._xz.decompress(data, min(_CHUNK, self._left + 1))
        except lzma.LZMAError as e:
            raise BadStreamError(str(e)) from e
        self._left -= len(piece)
        if self._left < 0:
            raise BadStreamError(f"it unpacks to more than {self._limit >> 20} MiB")
        return piece

    def read_whole(self, size: int) -> bytes:
        """
        Read exactly ``size`` bytes.

        :raises BadStreamError: as :meth:`read()` does, and if there are fewer
        """
        data = b""
        while len(data) < size:
            piece = self.read(size - len(data))
            if not piece:
                raise CutOffError("the archive is cut off")
            data += piece
        return data

    def finish(self) -> None:
        """
        Make sure that the stream and the file end here.

        :raises BadStreamError: if they do not
        """
        if self.read(1) or self._xz.unused_data or self._file.read(1):
            raise BadStreamError("data follows the end of the archive")
