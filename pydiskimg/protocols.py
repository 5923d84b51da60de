# SPDX-License-Identifier: MIT
"""The contracts between the parts: what a Source and a Disk promise.

Nothing here does I/O by itself. The copy engine, the partition table and the file system makers use only these names,
so each of them works on a block device, a file, a partition or memory in a test.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self, TypeAlias

    from pydiskimg.extents import Extent

Buffer: TypeAlias = "bytes | bytearray | memoryview"
WritableBuffer: TypeAlias = "bytearray | memoryview"

FileRange: TypeAlias = "tuple[int, int, int]"
"""The location of a run of bytes in a file: its descriptor, the offset there and the length (bytes)."""


class Progress(Protocol):
    """A function that gets the progress of an operation: (done, total) in bytes.

    It is called from one thread at a time; done never decreases and reaches total at the end. An exception that it
    raises ends the operation.

    >>> from pydiskimg import MemoryDisk, Progress, copy
    >>> calls = []
    >>> progress: Progress = lambda done, total: calls.append((done, total))
    >>> copied = copy(MemoryDisk(1 << 20), MemoryDisk(1 << 20), progress=progress)
    >>> calls[-1]
    (1048576, 1048576)
    """

    def __call__(self, done: int, total: int, /) -> None:
        """Take note of done of total bytes."""


KindColumn: TypeAlias = "tuple[int, int, int, bytes]"
"""Kinds of bytes in a row: the first byte, the bytes that each kind stands for, the end, and the kinds, D, Z or H."""


class Addressable(Protocol):
    """An object whose bytes can be read at any offset.

    There is no cursor, and every method may be called from several threads at once. Implementations inherit from this
    class or from the ones below, and so get the default methods.
    """

    if TYPE_CHECKING:  # at run time, properties declared here could not be set by subclasses

        @property
        def name(self) -> str:
            """The name that messages use; a path if there is one."""

        @property
        def size(self) -> int:
            """Size in bytes."""

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill the whole buffer with the bytes from offset on.

        Raises ValueError when [offset, offset + len(buffer)) is not inside, StorageError when the system refuses,
        InvalidImageError when the image is corrupt there.
        """


class Source(Addressable, Protocol):
    """Bytes of a fixed size that can be read at any offset: an image, a file, a partition, memory.

    name is what messages call it, a path where there is one; size is its size in bytes. There is no cursor, and every
    method may be called from several threads at once. A class of your own inherits from Source and defines name, size,
    extents() and read_into(); everything else has a default. (pyright wants name and size to be properties there.)

    read_into() raises ValueError for a range that is not inside the source, StorageError where the system refuses to
    read, and InvalidImageError where an image is damaged.

    >>> from pydiskimg import Extent, Kind, MemoryDisk, Source, copy
    >>> class Ones(Source):
    ...     name, size = "ones", 1 << 20
    ...
    ...     def extents(self):
    ...         yield Extent(0, self.size, Kind.DATA)
    ...
    ...     def read_into(self, offset, buffer):
    ...         buffer[:] = bytes([1]) * len(buffer)
    >>> copy(Ones(), MemoryDisk(2 << 20))
    Copied(total=1048576, written=1048576, zeroed=0, skipped=0)
    """

    def extents(self) -> Iterator[Extent]:
        """Yield the extents from 0 to size as Extent describes them; lazily, in bounded memory."""

    @property
    def format(self) -> str:
        """The image format's name as qemu-img spells it; "" for an object that is not an image."""
        return ""

    def coarse_extents(self, unit: int) -> Iterator[Extent]:  # noqa: ARG002 - a default
        """Yield extents for a reader that processes unit bytes (a power of two) at a time.

        As extents(), but a whole unit may be DATA when any of its bytes is: a source that consists of very small
        extents then yields far fewer of them. Neighbours may both be DATA. All other bytes read as zero.
        """
        return self.extents()

    def kind_columns(self) -> Iterator[KindColumn] | None:
        """Return the kinds of extents() as columns, which cover the source in order; None if extents() is as fast."""
        return None

    def read_ranges(self, ranges: Sequence[tuple[int, int]], buffer: memoryview) -> None:
        """Fill buffer with the bytes of ranges (offset, length), one after the other. Errors as for read_into()."""
        at = 0
        for offset, length in ranges:
            self.read_into(offset, buffer[at : at + length])
            at += length

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:  # noqa: ARG002 - a default
        """Return where [offset, offset + length) lies in files, in order, so that it can be moved without being read.

        Return None when a part of it is not stored as such in a file, and when read_into() would raise an error. The
        source keeps the descriptors, which are valid until it is closed.
        """
        return None

    def files(self) -> Iterator[str]:
        """Yield the names of all files that the source reads from."""
        yield self.name

    @property
    def is_compressed(self) -> bool:
        """True when reading takes much processor time, because data is decompressed."""
        return False

    @property
    def leaves_out_zeros(self) -> bool:
        """True for an image whose writer has left out zeros: looking for zeros in its data finds few."""
        return False


class ImageSource(Source, Protocol):
    """A Source that holds files open: a context manager, whose close() may be called more than once.

    open_image() returns one. It must not be read after close().

    >>> from pydiskimg import ImageSource, open_image
    >>> image: ImageSource = open_image("disk.qcow2")
    >>> image.format, image.size
    ('qcow2', 67108864)
    >>> image.close()
    """

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ImageBytes(ImageSource, Protocol):
    """The storage that an image's own bytes are read from: a regular file, a block device, or a file at an address."""

    if TYPE_CHECKING:

        @property
        def is_block_device(self) -> bool: ...

        @property
        def identity(self) -> tuple[int, int] | str:
            """The identity of the file, equal for all its names: its device and inode, or the address."""

    def stored(self) -> int | None:
        """Return how many bytes the file system has allocated for it; None if that is not known."""


class Disk(Source, Protocol):
    """A Source that can also be written at any offset. Its size does not change.

    sector_size is its logical sector size, 512 or 4096 bytes. reads_as_zero is True when every byte that has not been
    written is known to read as zero, so that a copy need not zero it. Written bytes are durable once flush() has
    returned. write() and zero() raise ValueError for a range that is not inside the disk, and StorageError where the
    system refuses.

    A class of your own inherits from Disk and also defines sector_size, reads_as_zero, write(), zero() and flush().

    >>> from pydiskimg import Disk, new_image
    >>> with new_image("new.qcow2", 1 << 30, format="qcow2") as disk:
    ...     assert isinstance(disk, Disk)
    ...     disk.write(1 << 20, b"any bytes, anywhere")
    ...     disk.zero(1 << 21, 1 << 20)
    ...     disk.size, disk.sector_size, disk.reads_as_zero
    (1073741824, 512, True)
    """

    if TYPE_CHECKING:

        @property
        def sector_size(self) -> int:
            """Logical sector size in bytes: 512 or 4096."""

        @property
        def reads_as_zero(self) -> bool:
            """True when every byte that was not yet written is known to read as zero."""

    @property
    def frees_zeros(self) -> bool:
        """True where zero() takes no longer for a longer range: it makes a hole, or an entry in a table."""
        return True

    @property
    def unit(self) -> int | None:
        """The unit in which writes are cheapest, aligned to it: a cluster (bytes); None if the disk has none."""
        return None

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of data at offset. Raises ValueError outside the disk, StorageError when the system refuses."""

    def write_ranges(self, ranges: Sequence[tuple[int, int, int]], data: memoryview) -> None:
        """Write parts of data: data[start:end] at offset for each of ranges, which ascend. Errors as for write()."""
        for offset, start, end in ranges:
            self.write(offset, data[start:end])

    def share(self, offset: int, ranges: Sequence[FileRange]) -> bool:  # noqa: ARG002 - a default
        """Let the bytes from offset on have the blocks that hold ranges in other files, which stay as they are.

        Return False where the disk or its file system cannot do that: some of the bytes may be shared, and the caller
        writes all of them. offset and ranges are multiples of 4 KiB. Errors as for write().
        """
        return False

    def zero(self, offset: int, length: int) -> None:
        """Make [offset, offset + length) read as zero, by the cheapest way the disk has. Errors as for write()."""

    def flush(self) -> None:
        """Return when all written data is on stable storage; raise StorageError otherwise."""

    def drop_cache(self) -> None:
        """Make the next reads come from the device if the system can do that; call flush() first."""
        return

    def file_location(self, offset: int, length: int) -> tuple[int, int] | None:  # noqa: ARG002 - a default
        """Return the descriptor and its offset that [offset, offset + length) can be written to; None: use write().

        Bytes written there count as written by write(): flush() makes them durable. The caller writes all of them; with
        length 0 it asks only whether the disk has such a descriptor. The disk keeps the descriptor.
        """
        return None

    def stored_extents(self) -> Iterator[Extent]:
        """Yield the extents by the disk's own map of what it stores: all but DATA reads as zero.

        A raw file's extents() are one DATA extent, while this method asks its file system for holes. Data that was
        written and not flushed may be missing. Errors as for extents().
        """
        return self.extents()


class Store(Addressable, Protocol):
    """The storage of an image's own bytes while it is written: a file that grows, or a block device.

    open_qcow2_store() opens one. size is the number of bytes that can be read now: a file's current end, or a device's
    size. Offsets are those in the image's file, not those of the virtual disk. A store that grows has zeros after its
    end until something is written there.

    >>> from pydiskimg import Store, open_qcow2_store, read_bytes
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     assert isinstance(store, Store)
    ...     read_bytes(store, 0, 3)
    b'QFI'
    """

    grows: bool = False

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of data at offset; a file grows as needed. Raises StorageError, also beyond the end of a device."""

    def share(self, offset: int, ranges: Sequence[FileRange]) -> bool:  # noqa: ARG002 - a default
        """Let the bytes from offset on have the blocks of ranges, as Disk.share(); a file grows as needed."""
        return False

    def extend(self, size: int) -> None:
        """Let the store have size bytes at least; new ones are zero. Errors as for write()."""
        if self.size < size:
            self.write(size - 1, b"\0")

    def discard(self, offset: int, length: int) -> None:  # noqa: ARG002 - a default
        """Release [offset, offset + length), which is no longer used, if possible; its bytes are lost."""
        return

    def flush(self) -> None:
        """Return when all written data is on stable storage; raise StorageError otherwise."""

    def drop_cache(self) -> None:
        """Make the next reads come from the device if the system can do that; call flush() first."""
        return


class ShownDisk(Disk, Protocol):
    """A Disk that can be mounted: the kernel sees its bytes through fd, except a beginning that may be held back."""

    if TYPE_CHECKING:

        @property
        def fd(self) -> int:
            """The descriptor of the block device or file."""


_PLAUSIBLE = 1 << 20


def read_bytes(source: Addressable, offset: int, length: int) -> bytes:
    """Return length bytes of source from offset on, as new bytes.

    Raises ValueError when the range is not inside the source, StorageError and InvalidImageError as Source.read_into().

    >>> from pydiskimg import open_image, read_bytes
    >>> with open_image("disk.qcow2") as image:
    ...     read_bytes(image, 510, 2).hex()
    '55aa'
    """
    if not 0 <= length <= _PLAUSIBLE:  # before that much memory is allocated
        check_range(source, offset, length)
    buffer = bytearray(length)
    source.read_into(offset, buffer)
    return bytes(buffer)


def check_buffer(source: Addressable, offset: int, buffer: Buffer) -> None:
    """Raise ValueError unless buffer is a row of bytes and lies inside the source when it begins at offset."""
    length = len(buffer)
    if memoryview(buffer).nbytes != length:
        raise ValueError(f"{source.name}: the buffer is not a row of bytes; memoryview(buffer).cast('B') is one")
    check_range(source, offset, length)


def check_range(source: Addressable, offset: int, length: int) -> None:
    """Raise ValueError unless [offset, offset + length) lies inside the source."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise ValueError(f"{source.name}: bytes {offset} to {offset + length} are outside of 0 to {source.size}")
