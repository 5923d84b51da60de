# SPDX-License-Identifier: MIT
"""A compressed cluster whose data must end where its place in the stream does.

What follows the data is its checksum, where the stream has them, and zeros; a cluster that no table names would lie
there otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pydiskimg.formats.qcow2.compressed import RAW_DEFLATE, decompressor_into, deflate_library
from pydiskimg.formats.qcow2.stream.checks import CLUSTER_CHECKSUM_SIZE, checksum_of_cluster
from pydiskimg.formats.qcow2.stream.zstd_frame import frame_length

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
