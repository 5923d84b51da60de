# SPDX-License-Identifier: MIT
"""All dirty bitmaps of a qcow2 image, changed in memory; the caller makes the changes part of the image."""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmap_contents import BitmapContents, read_table
from pydiskimg.images.qcow2.bitmaps import (
    AUTO,
    BITMAP_ENTRY,
    BITMAPS,
    DIRTY_TRACKING,
    IN_USE,
    MAX_BITMAP_DIRECTORY_SIZE,
    MAX_BITMAP_NAME_SIZE,
    MAX_BITMAP_SIZE,
    MAX_BITMAPS,
    MAX_GRANULARITY_BITS,
    MIN_GRANULARITY_BITS,
    Bitmap,
    is_possible_bitmap,
    packed_directory,
    read_bitmaps,
)
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import quoted

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Addressable, Store

_MOST_TABLES = 64 << 20  # bytes of all tables in memory: those of QEMU's own bitmaps for 4,096 TiB
_LARGEST_DEFAULT, _SMALLEST_DEFAULT = 64 << 10, 4 << 10  # QEMU's granularity is the cluster size, limited to these


class BitmapSet:
    """The dirty bitmaps of the image in file, for a disk of disk_size bytes.

    If a program without bitmaps has changed the image, its bitmaps are lost. A bitmap that is in use was not closed by
    its last writer: it may miss changes, and can only be removed. All methods that name a bitmap raise
    UnsupportedImageError if the image has none of that name, or if QEMU refuses the operation; reading raises
    InvalidImageError for violations of the specification.
    """

    def __init__(self, file: Addressable, header: Header) -> None:
        self._file = file
        self._header = header
        self.disk_size = header.size
        self._contents: dict[int, BitmapContents] = {}  # by the id() of a Bitmap in _bitmaps
        self._left: list[tuple[int, int]] = []  # clusters that are no longer referred to
        self._packed = b""  # the directory in the file
        self._table_bytes = 0
        self._bitmaps = read_bitmaps(file, header) if header.has_bitmaps else []
        for bitmap in self._bitmaps:
            if not is_possible_bitmap(header, bitmap.fields):
                raise InvalidImageError(
                    f"{file.name}: bitmap {quoted(bitmap.whole_name)}: its entry in the directory contradicts the "
                    "specification; the image is corrupt, or made by a newer program"
                )
        self._packed = packed_directory(self._bitmaps)
        self._directory = _directory_clusters(header)

    @property
    def is_changed(self) -> bool:
        """True if bits were set since they were read or written."""
        return any(contents.is_changed for contents in self._contents.values())

    @property
    def names(self) -> list[bytes]:
        """The names, in order."""
        return [bitmap.whole_name for bitmap in self._bitmaps]

    @property
    def in_use(self) -> list[bytes]:
        """The names of those that may miss changes."""
        return [bitmap.whole_name for bitmap in self._bitmaps if bitmap.fields["flags"] & IN_USE]

    @property
    def recorded(self) -> list[BitmapContents]:
        """Records writes to the disk: the contents of the bitmaps that are enabled and not in use."""
        return [
            self.contents(each.whole_name) for each in self._bitmaps if each.fields["flags"] & (AUTO | IN_USE) == AUTO
        ]

    def is_enabled(self, name: bytes) -> bool:
        """True if writes to the disk are recorded in the bitmap."""
        return bool(self._found(name).fields["flags"] & AUTO)

    def contents(self, name: bytes) -> BitmapContents:
        """The bits of a bitmap that is not in use."""
        bitmap = self._usable(name)
        contents = self._contents.get(id(bitmap))
        if contents is None:
            self._check_bits(name, bitmap.granularity, self.disk_size)
            table = self._table(bitmap)
            contents = self._contents[id(bitmap)] = self._new_contents(bitmap.granularity, table)
        return contents

    def add(self, name: bytes, granularity: int | None = None, *, is_enabled: bool = True) -> None:
        """Add an empty bitmap; granularity None is QEMU's choice."""
        if granularity is None:
            granularity = max(_SMALLEST_DEFAULT, min(_LARGEST_DEFAULT, self._header.cluster_size))
        self._check_new(name, granularity)
        bits = granularity.bit_length() - 1
        flags = AUTO if is_enabled else 0
        fields = {"flags": flags, "type": DIRTY_TRACKING, "granularity_bits": bits, "name_size": len(name)}
        none = {"bitmap_table_offset": 0, "bitmap_table_size": 0, "extra_data_size": 0}
        bitmap = Bitmap(name, fields | none)
        self._bitmaps.append(bitmap)
        self._check_directory()
        self._contents[id(bitmap)] = self._new_contents(granularity)

    def remove(self, name: bytes) -> None:
        """Remove a bitmap, even one that is in use."""
        bitmap = self._found(name)
        size = self._header.cluster_size
        contents = self._contents.pop(id(bitmap), None)
        if contents is not None:
            contents.clear()
            left = contents.left
        else:
            left = [entry & layout.ENTRY_OFFSET for entry in self._table(bitmap)]
        self._left += [(offset // size, 1) for offset in left if offset]
        self._leave_table(bitmap)
        self._bitmaps = [each for each in self._bitmaps if each is not bitmap]

    def enable(self, name: bytes, *, is_enabled: bool = True) -> None:
        """Enable or disable the recording of writes in a bitmap."""
        fields = self._usable(name).fields
        fields["flags"] = AUTO if is_enabled else 0

    def merge(self, name: bytes, other: BitmapContents) -> None:
        """Set the bits of a bitmap for all bytes for which other has bits."""
        contents = self.contents(name)
        if contents.disk_size != other.disk_size:
            raise UnsupportedImageError(
                f"{self._file.name}: bitmap {quoted(name)} is for a disk of {contents.disk_size} bytes, and the one to "
                f"merge for {other.disk_size}; expected disks of one size"
            )
        contents.merge(other)

    def check_size(self, size: int) -> None:
        """Raise UnsupportedImageError if the bitmaps cannot be for a disk of size bytes."""
        for bitmap in self._bitmaps:
            self._check_bits(bitmap.whole_name, bitmap.granularity, size)
            self._usable(bitmap.whole_name)

    def resize(self, size: int) -> None:
        """Adapt to a disk of size bytes; raises as check_size()."""
        self.check_size(size)
        for bitmap in self._bitmaps:
            self.contents(bitmap.whole_name).resize(size)
        self.disk_size = size

    def mark(self, store: Store, *, in_use: bool) -> None:
        """Mark all bitmaps in the file as possibly incomplete, or only those that were so before."""
        if self._directory is None:
            return
        raw, at = bytearray(self._packed), 0
        while in_use and at < len(raw):
            entry = BITMAP_ENTRY.unpack(raw, at)
            BITMAP_ENTRY.put(raw, {"flags": entry["flags"] | IN_USE}, at)
            at += -(-(BITMAP_ENTRY.size + entry["name_size"]) // 8) * 8
        store.write(self._directory[0] * self._header.cluster_size, raw)

    def write_new(
        self, store: Store, take: Callable[[int], int], leave: Callable[[int, int], None]
    ) -> dict[int, bytes]:
        """Write all changes to new clusters; return the header's new extensions.

        take and leave are as for BitmapContents.write_new().
        """
        size = self._header.cluster_size
        if self._directory is not None:
            leave(*self._directory)
            self._directory = None
        for bitmap in self._bitmaps:
            contents = self._contents.get(id(bitmap))
            if contents is not None and contents.is_changed:
                self._leave_table(bitmap)
                offset, entries = contents.write_new(store, take, leave)
                bitmap.fields |= {"bitmap_table_offset": offset, "bitmap_table_size": entries}
        for first, count in self._left:
            leave(first, count)
        self._left.clear()
        extensions = {kind: data for kind, data in self._header.extensions.items() if kind != layout.EXTENSION_BITMAPS}
        if self._bitmaps:
            self._packed = directory = packed_directory(self._bitmaps)
            count = -(-len(directory) // size)
            self._directory = take(count), count
            offset = self._directory[0] * size
            store.write(offset, directory.ljust(count * size, b"\0"))
            extensions[layout.EXTENSION_BITMAPS] = BITMAPS.pack(
                nb_bitmaps=len(self._bitmaps), bitmap_directory_size=len(directory), bitmap_directory_offset=offset
            )
        return extensions

    def _leave_table(self, bitmap: Bitmap) -> None:
        offset, entries = bitmap.fields["bitmap_table_offset"], bitmap.fields["bitmap_table_size"]
        size = self._header.cluster_size
        if offset:
            self._left.append((offset // size, -(-entries * layout.ENTRY_SIZE // size)))

    def _new_contents(self, granularity: int, table: array[int] | None = None) -> BitmapContents:
        size = self._header.cluster_size
        return BitmapContents(self._file, size, granularity=granularity, disk_size=self.disk_size, table=table)

    def _table(self, bitmap: Bitmap) -> array[int]:
        offset, entries = bitmap.fields["bitmap_table_offset"], bitmap.fields["bitmap_table_size"]
        self._table_bytes += entries * layout.ENTRY_SIZE
        if self._table_bytes > _MOST_TABLES:
            raise UnsupportedImageError(
                f"{self._file.name}: its bitmaps' tables have more than {_MOST_TABLES} bytes together; remove some"
            )
        return read_table(self._file, offset, entries, self._header.cluster_size)

    def _found(self, name: bytes) -> Bitmap:
        for bitmap in self._bitmaps:
            if bitmap.whole_name == name:
                return bitmap
        raise UnsupportedImageError(f"{self._file.name}: has no bitmap {quoted(name)}; `info` lists its bitmaps")

    def _usable(self, name: bytes) -> Bitmap:
        bitmap = self._found(name)
        if bitmap.fields["flags"] & IN_USE:
            raise UnsupportedImageError(
                f"{self._file.name}: bitmap {quoted(name)} was not closed by its last writer, so it may miss changes; "
                "it can only be removed"
            )
        return bitmap

    def _check_new(self, name: bytes, granularity: int) -> None:
        where = f"{self._file.name}: bitmap {quoted(name)}"
        if self._header.version < 3:
            raise UnsupportedImageError(f"{where}: an image of version 2 (0.10) has no bitmaps; use version 3")
        if not 1 <= len(name) <= MAX_BITMAP_NAME_SIZE:
            raise UnsupportedImageError(
                f"{where}: a bitmap's name has 1 to {MAX_BITMAP_NAME_SIZE} bytes; found {len(name)}"
            )
        if b"\0" in name:
            raise UnsupportedImageError(f"{where}: a bitmap's name cannot have a null byte in it")
        if name in self.names:
            raise UnsupportedImageError(f"{where}: already exists; remove it first, or choose another name")
        smallest, largest = 1 << MIN_GRANULARITY_BITS, 1 << MAX_GRANULARITY_BITS
        if not smallest <= granularity <= largest or granularity & (granularity - 1):
            raise UnsupportedImageError(
                f"{where}: a granularity of {granularity} bytes is not possible; expected a power of two from "
                f"{smallest} to {largest}"
            )
        self._check_bits(name, granularity, self.disk_size)

    def _check_bits(self, name: bytes, granularity: int, size: int) -> None:
        bits = -(-size // granularity)
        if not bits:
            raise UnsupportedImageError(
                f"{self._file.name}: bitmap {quoted(name)}: a disk of 0 bytes has no bitmaps; make it larger first"
            )
        if bits > 8 * MAX_BITMAP_SIZE:
            raise UnsupportedImageError(
                f"{self._file.name}: bitmap {quoted(name)}: a disk of {size} bytes needs {bits} bits of {granularity} "
                f"bytes each, at most {8 * MAX_BITMAP_SIZE} are possible; use a larger granularity"
            )

    def _check_directory(self) -> None:
        length = sum(-(-(BITMAP_ENTRY.size + bitmap.name_size) // 8) * 8 for bitmap in self._bitmaps)
        if len(self._bitmaps) > MAX_BITMAPS or length > MAX_BITMAP_DIRECTORY_SIZE:
            raise UnsupportedImageError(
                f"{self._file.name}: an image has at most {MAX_BITMAPS} bitmaps, in a directory of "
                f"{MAX_BITMAP_DIRECTORY_SIZE} bytes at most"
            )


def _directory_clusters(header: Header) -> tuple[int, int] | None:
    """(first, number) of the clusters that the directory takes."""
    if not header.has_bitmaps:
        return None
    extension = BITMAPS.unpack(header.extensions[layout.EXTENSION_BITMAPS])
    offset, length = extension["bitmap_directory_offset"], extension["bitmap_directory_size"]
    return offset // header.cluster_size, -(-length // header.cluster_size)
