# SPDX-License-Identifier: MIT
"""The directory of dirty bitmaps in a qcow2 file (QEMU docs/interop/qcow2, "Bitmaps"): listed, within bounds."""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.extensions import extensions_of
from pydiskimg.images.qcow2.header import Header
from pydiskimg.protocols import Source, read_bytes

IN_USE, AUTO = 1 << 0, 1 << 1


class Bitmap:
    """One entry of the directory: its name (bytes), flags (a number) and granularity (bytes that one bit is about)."""

    __slots__ = ("_flags", "_name", "granularity")

    def __init__(self, name: bytes, flags: int, granularity: int) -> None:
        self._name = name
        self._flags = flags
        self.granularity = granularity

    @property
    def name(self) -> str:
        """The name as text, of 1023 bytes at most; what is not UTF-8 is kept as surrogates."""
        return self._name.decode("utf-8", "surrogateescape")

    @property
    def flags(self) -> list[str]:
        """Those that are set, of "in-use" and "auto"."""
        return [word for bit, word in ((IN_USE, "in-use"), (AUTO, "auto")) if self._flags & bit]


def read_bitmaps(file: Source, header: Header) -> list[Bitmap]:
    """Return the bitmaps that the image lists. The header says that there are some (has_bitmaps).

    Raises InvalidImageError when the directory contradicts the specification or lies outside of the file.
    """
    head = read_bytes(file, 0, min(header.cluster_size, file.size))
    _, found = extensions_of(head, header.header_length, name=file.name)
    extension = found.get(layout.EXTENSION_BITMAPS, b"")
    if len(extension) != layout.BITMAPS.size:
        raise _invalid(file, f"the header extension has {len(extension)} bytes, expected {layout.BITMAPS.size}")
    count, size, offset = layout.BITMAPS.unpack(extension)
    if count > layout.MAX_BITMAPS or size > layout.MAX_BITMAP_DIRECTORY_SIZE:
        raise _invalid(
            file,
            f"{count} entries in {size} bytes, at most {layout.MAX_BITMAPS} in "
            f"{layout.MAX_BITMAP_DIRECTORY_SIZE} are allowed",
        )
    if offset + size > file.size:
        raise _invalid(file, f"it ends at 0x{offset + size:x}, beyond the end of the file (0x{file.size:x})")
    return _entries(file, read_bytes(file, offset, size), count)


def _entries(file: Source, directory: bytes, count: int) -> list[Bitmap]:
    bitmaps: list[Bitmap] = []
    at = 0
    for number in range(count):
        if at + layout.BITMAP_ENTRY.size > len(directory):
            raise _invalid(file, f"it ends inside entry {number} of {count}")
        _, _, flags, _, granularity_bits, name_size, extra_size = layout.BITMAP_ENTRY.unpack_from(directory, at)
        name_at = at + layout.BITMAP_ENTRY.size + extra_size
        at = name_at + name_size
        if name_size > layout.MAX_BITMAP_NAME_SIZE or granularity_bits > 63 or at > len(directory):
            raise _invalid(
                file,
                f"entry {number} has {extra_size} bytes of extra data, a name of {name_size} bytes and the granularity "
                f"2^{granularity_bits}, which is impossible",
            )
        bitmaps.append(Bitmap(directory[name_at:at], flags, 1 << granularity_bits))
        at += -at % 8
    return bitmaps


def _invalid(file: Source, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: bitmap directory: {text}; the image is truncated or corrupt")
