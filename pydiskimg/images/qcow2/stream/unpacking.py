# SPDX-License-Identifier: MIT
"""A compressed cluster whose data must end where its place in the stream does.

What follows the data is its checksum, where the stream has them, and zeros; a cluster that no table names would lie
there otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pydiskimg.images.qcow2.compressed import RAW_DEFLATE, decompressor_into, deflate_library
from pydiskimg.images.qcow2.stream.checksums import CLUSTER_CHECKSUM_SIZE, checksum_of_cluster

# ISA-L reads ahead, and up to version 1.8 it does not give back the last 8 bytes in unused_data.
_READ_AHEAD = bytes(16)

Inflate: TypeAlias = Callable[[memoryview, memoryview], memoryview]
"""Called with (data, cluster): fills cluster, and returns what follows the compressed data. Raises ValueError."""


class Unpacker:
    """Decompresses the clusters of one stream, on any thread."""

    def __init__(self, compression_type: str, *, name: str) -> None:
        """Raises UnsupportedImageError as decompressor_into() does; name is the stream's, for its text."""
        self._inflate = _deflate() if compression_type == "zlib" else _zstd(name)

    def unpack(self, data: memoryview, guest_offset: int, cluster: memoryview, *, has_checksum: bool) -> None:
        """Fill cluster, which is at guest_offset (bytes), from data, which fills its place in the stream.

        Raises ValueError, its text being what the data does, when it is corrupt or something else lies there.
        """
        rest = self._inflate(data, cluster)
        if has_checksum:
            expected = checksum_of_cluster(guest_offset, cluster)
            if rest[:CLUSTER_CHECKSUM_SIZE] != expected:
                found = bytes(rest[:CLUSTER_CHECKSUM_SIZE]).hex()
                raise ValueError(f"has the checksum 0x{found}, expected 0x{expected.hex()}")
            rest = rest[CLUSTER_CHECKSUM_SIZE:]
        if bytes(rest).strip(b"\0"):
            raise ValueError(f"ends {len(rest)} bytes before what the tables name next, and these are not zero")


def _deflate() -> Inflate:
    new, corrupt = deflate_library()

    def inflate(data: memoryview, cluster: memoryview) -> memoryview:
        decompressor = new(RAW_DEFLATE)
        try:
            # One more byte than a cluster has: otherwise the mark of the end may not have been read.
            found = decompressor.decompress(b"".join((data, _READ_AHEAD)), len(cluster) + 1)
        except corrupt as error:
            raise ValueError(f"does not decompress ({error})") from error
        if len(found) != len(cluster):
            more = "at least " if len(found) > len(cluster) else ""
            raise ValueError(f"decompresses to {more}{len(found)} bytes, expected {len(cluster)}")
        unused = len(decompressor.unused_data) - len(_READ_AHEAD)  # nothing is unused where no end was found
        if unused < 0:
            raise ValueError("does not decompress (its end is missing)")
        cluster[:] = found
        return data[len(data) - unused :]

    return inflate


def _zstd(name: str) -> Inflate:
    into = decompressor_into("zstd", name=name)

    def inflate(data: memoryview, cluster: memoryview) -> memoryview:
        try:
            length = into(data, cluster)
            end = frame_length(data)
        except ValueError as error:
            raise ValueError(f"does not decompress ({error})") from error
        if length != len(cluster):
            raise ValueError(f"decompresses to {length} bytes, expected {len(cluster)}")
        return data[end:]

    return inflate


_MAGIC = b"\x28\xb5\x2f\xfd"
# Bytes of the dictionary's number and of the content's size, by their flags in the frame header's descriptor.
_DICTIONARY_SIZE = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)
_SINGLE_SEGMENT, _CHECKSUM = 1 << 5, 1 << 2
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3
_BLOCK_HEADER_SIZE, _CHECKSUM_SIZE = 3, 4


def frame_length(data: memoryview) -> int:
    """Return the bytes of the frame that data begins with. Raises ValueError when it does not, or ends before."""
    if data[:4] != _MAGIC or len(data) < len(_MAGIC) + 1:
        raise ValueError("it does not begin with a zstd frame")
    descriptor = data[4]
    at = 5 + _DICTIONARY_SIZE[descriptor & 3] + _CONTENT_SIZE[descriptor >> 6]
    if not descriptor & _SINGLE_SEGMENT:
        at += 1  # the window's descriptor
    elif not descriptor >> 6:
        at += 1  # a content's size of one byte
    is_last = False
    while not is_last:
        header = int.from_bytes(data[at : at + _BLOCK_HEADER_SIZE], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if at + _BLOCK_HEADER_SIZE > len(data) or kind == _RESERVED_BLOCK:
            raise ValueError("its last block is missing")
        at += _BLOCK_HEADER_SIZE + (1 if kind == _RLE_BLOCK else size)
    if descriptor & _CHECKSUM:
        at += _CHECKSUM_SIZE
    if at > len(data):
        raise ValueError("its end is missing")
    return at
