# SPDX-License-Identifier: MIT
"""The directory of dirty bitmaps in a qcow2 file (QEMU docs/interop/qcow2, "Bitmaps"): listed, within bounds."""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import Header
from pydiskimg.protocols import Addressable, read_bytes
from pydiskimg.records import Record

# Section "Bitmaps extension"
BITMAPS = Record(
    "bitmaps extension",
    ">",
    24,
    """
     0  I   nb_bitmaps
     4  I   reserved                 must be zero
     8  Q   bitmap_directory_size    bytes
    10  Q   bitmap_directory_offset
    """,
)
# Section "Bitmap directory": the fixed part of an entry; extra data, name and padding to 8 bytes follow.
BITMAP_ENTRY = Record(
    "bitmap directory entry",
    ">",
    24,
    """
     0  Q   bitmap_table_offset
     8  I   bitmap_table_size        entries
     c  I   flags
    10  B   type
    11  B   granularity_bits
    12  H   name_size
    14  I   extra_data_size
    """,
)
MAX_BITMAPS = 65535
MAX_BITMAP_NAME_SIZE = 1023
MAX_BITMAP_DIRECTORY_SIZE = MAX_BITMAPS * 1024
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
    def name_size(self) -> int:
        """Bytes of the name."""
        return len(self._name)

    @property
    def flags(self) -> list[str]:
        """Those that are set, of "in-use" and "auto"."""
        return [word for bit, word in ((IN_USE, "in-use"), (AUTO, "auto")) if self._flags & bit]


def read_bitmaps(file: Addressable, header: Header) -> list[Bitmap]:
    """Return the bitmaps that the image lists. The header says that there are some (has_bitmaps).

    Raises InvalidImageError when the directory contradicts the specification or lies outside of the file.
    """
    extension = header.extensions.get(layout.EXTENSION_BITMAPS, b"")
    if len(extension) != BITMAPS.size:
        raise _invalid(file, f"the header extension has {len(extension)} bytes, expected {BITMAPS.size}")
    count, _, size, offset = BITMAPS.unpack(extension).values()
    if count > MAX_BITMAPS or size > MAX_BITMAP_DIRECTORY_SIZE:
        raise _invalid(
            file,
            f"{count} entries in {size} bytes, at most {MAX_BITMAPS} in {MAX_BITMAP_DIRECTORY_SIZE} are allowed",
        )
    if offset + size > file.size:
        raise _invalid(file, f"it ends at 0x{offset + size:x}, beyond the end of the file (0x{file.size:x})")
    return _entries(file, read_bytes(file, offset, size), count)


def _entries(file: Addressable, directory: bytes, count: int) -> list[Bitmap]:
    bitmaps: list[Bitmap] = []
    at = 0
    for number in range(count):
        if at + BITMAP_ENTRY.size > len(directory):
            raise _invalid(file, f"it ends inside entry {number} of {count}")
        entry = BITMAP_ENTRY.unpack(directory, at)
        granularity_bits, name_size, extra_size = (
            entry[name] for name in ("granularity_bits", "name_size", "extra_data_size")
        )
        name_at = at + BITMAP_ENTRY.size + extra_size
        at = name_at + name_size
        if name_size > MAX_BITMAP_NAME_SIZE or granularity_bits > 63 or at > len(directory):
            raise _invalid(
                file,
                f"entry {number} has {extra_size} bytes of extra data, a name of {name_size} bytes and the granularity "
                f"2^{granularity_bits}, which is impossible",
            )
        bitmaps.append(Bitmap(directory[name_at:at], entry["flags"], 1 << granularity_bits))
        at += -at % 8
    return bitmaps


def _invalid(file: Addressable, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: bitmap directory: {text}; the image is truncated or corrupt")
