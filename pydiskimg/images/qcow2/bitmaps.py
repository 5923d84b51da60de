# SPDX-License-Identifier: MIT
"""The directory of dirty bitmaps in a qcow2 file (QEMU docs/interop/qcow2, "Bitmaps"): read within bounds, packed."""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import Header
from pydiskimg.protocols import Addressable, read_bytes
from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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
KNOWN_FLAGS = IN_USE | AUTO
DIRTY_TRACKING = 1
MIN_GRANULARITY_BITS, MAX_GRANULARITY_BITS = 9, 31
MAX_BITMAP_SIZE = 512 << 20  # bytes of one bitmap, QEMU's limit


class Bitmap:
    """An entry of the directory: its whole name (bytes), flags (a number) and granularity (bytes for each bit).

    fields are those of BITMAP_ENTRY: only the location of the name was checked.
    """

    __slots__ = ("fields", "granularity", "whole_name")

    def __init__(self, whole_name: bytes, fields: dict[str, int]) -> None:
        self.whole_name = whole_name
        self.fields = fields
        self.granularity = 1 << fields["granularity_bits"]

    @property
    def name(self) -> str:
        """The name as text, of at most 1023 bytes; bytes that are not UTF-8 are kept as surrogates."""
        return self.whole_name.decode("utf-8", "surrogateescape")

    @property
    def name_size(self) -> int:
        """Bytes of the name."""
        return len(self.whole_name)

    @property
    def flags(self) -> list[str]:
        """Those of "in-use" and "auto" that are set."""
        return [word for bit, word in ((IN_USE, "in-use"), (AUTO, "auto")) if self.fields["flags"] & bit]


def is_possible_bitmap(header: Header, entry: dict[str, int]) -> bool:
    """True if QEMU accepts the fixed part of a bitmap directory's entry, apart from its location."""
    entries, flags, granularity_bits = (entry[name] for name in ("bitmap_table_size", "flags", "granularity_bits"))
    if entry["extra_data_size"] or entry["type"] != DIRTY_TRACKING:
        return False
    if flags & ~KNOWN_FLAGS or entry["name_size"] > MAX_BITMAP_NAME_SIZE:
        return False
    size = entries * header.cluster_size
    if not MIN_GRANULARITY_BITS <= granularity_bits <= MAX_GRANULARITY_BITS or size > MAX_BITMAP_SIZE:
        return False
    return bool(flags & IN_USE) or entries == table_entries(header.size, granularity_bits, header.cluster_size)


def table_entries(size: int, granularity_bits: int, cluster_size: int) -> int:
    """Return the number of entries in the table of a bitmap of a disk of size bytes: the clusters of its bits."""
    bits = -(-size // (1 << granularity_bits))
    return -(-bits // (8 * cluster_size))


def packed_directory(bitmaps: Iterable[Bitmap]) -> bytes:
    """Return the directory of the bitmaps, including padding."""
    entries = (BITMAP_ENTRY.pack(**{**each.fields, "name_size": each.name_size}) + each.whole_name for each in bitmaps)
    return b"".join(entry + bytes(-len(entry) % 8) for entry in entries)


def read_bitmaps(file: Addressable, header: Header) -> list[Bitmap]:
    """Return the bitmaps that the image lists. The header must say that there are some (has_bitmaps).

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
        bitmaps.append(Bitmap(directory[name_at:at], entry))
        at += -at % 8
    return bitmaps


def _invalid(file: Addressable, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: bitmap directory: {text}; the image is truncated or corrupt")
