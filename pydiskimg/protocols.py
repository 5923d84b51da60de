# SPDX-License-Identifier: MIT
"""The contracts between the parts: what a Source and a Disk promise.

Nothing here does I/O by itself. The copy engine, the partition table and the file system makers know these
names only, so each of them works on a block device, a file, a partition or a test's memory alike.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self, TypeAlias

    from pydiskimg.extents import Extent

Buffer: TypeAlias = "bytes | bytearray | memoryview"
WritableBuffer: TypeAlias = "bytearray | memoryview"

FileRange: TypeAlias = "tuple[int, int, int]"
"""Where a run of bytes lies in a file: its descriptor, the offset there and the length (bytes)."""

Progress: TypeAlias = "Callable[[int, int], None]"
"""Called with (done, total) in bytes, from one thread at a time, done never falling."""


class Addressable(Protocol):
    """Something whose bytes can be read at any offset.

    There is no cursor, and every method may be called from several threads at once. Who implements this, or what is
    built on it, inherits it: what has a default here need not be written.
    """

    if TYPE_CHECKING:  # at run time, what declares them as properties would not let them be set

        @property
        def name(self) -> str:
            """What messages call it; a path where there is one."""

        @property
        def size(self) -> int:
            """Size in bytes."""

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill the whole buffer with the bytes from offset on.

        Raises ValueError when [offset, offset + len(buffer)) is not inside, StorageError when the system refuses,
        InvalidImageError when the image is corrupt there.
        """


class Source(Addressable, Protocol):
    """Something of a fixed size whose bytes can be read at any offset."""

    def extents(self) -> Iterator[Extent]:
        """Yield the extents from 0 to size as Extent describes them; lazily, in bounded memory."""

    @property
    def format(self) -> str:
        """The image format's name as qemu-img spells it; "" for what is not an image."""
        return ""

    def coarse_extents(self, unit: int) -> Iterator[Extent]:  # noqa: ARG002 - a default
        """Yield extents for a reader who looks at unit bytes (a power of two) at a time.

        As extents(), but unit bytes, at a multiple of unit, may be DATA as a whole when any of them is: a source that
        consists of very small extents then has far fewer of them. What is not DATA reads as zero.
        """
        return self.extents()

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:  # noqa: ARG002 - a default
        """Return where [offset, offset + length) lies in files, in order, so that it can be moved without being read.

        None when some of it lies in no file as it is, and where read_into() would raise an error. The
        descriptors stay the source's, and are valid until it is closed.
        """
        return None

    def files(self) -> Iterator[str]:
        """Yield the names of all files that it is read from."""
        yield self.name

    @property
    def is_compressed(self) -> bool:
        """True when reading takes processor time, as what is read is decompressed."""
        return False

    @property
    def leaves_out_zeros(self) -> bool:
        """True for an image whose writer has left out what is zero: looking for zeros in its data finds few."""
        return False


class ImageSource(Source, Protocol):
    """A Source that holds files open: a context manager, closed once or more often."""

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ImageBytes(ImageSource, Protocol):
    """What an image's own bytes are read from: a regular file, a block device, or a file at an address."""

    if TYPE_CHECKING:

        @property
        def is_block_device(self) -> bool: ...

        @property
        def identity(self) -> tuple[int, int] | str:
            """What two names of one file have in common: its device and inode, or the address."""

    def stored(self) -> int | None:
        """Return how many bytes the file system has set aside for it; None where that is not told."""


class Disk(Source, Protocol):
    """A Source that can be written at any offset. Its size does not change.

    What was written is durable when flush() has returned.
    """

    if TYPE_CHECKING:

        @property
        def sector_size(self) -> int:
            """Logical sector size in bytes: 512 or 4096."""

        @property
        def reads_as_zero(self) -> bool:
            """True when every byte that was not yet written is known to read as zero."""

    @property
    def unit(self) -> int | None:
        """Bytes that are best written at once, at a multiple of them: a cluster; None where that does not matter."""
        return None

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of data at offset. Raises ValueError outside the disk, StorageError when the system refuses."""

    def zero(self, offset: int, length: int) -> None:
        """Make [offset, offset + length) read as zero, by the cheapest way the disk has. Errors as for write()."""

    def flush(self) -> None:
        """Return once all that was written is on stable storage; raises StorageError otherwise."""

    def drop_cache(self) -> None:
        """Make the next reads come from the device where the system can do that; call flush() first."""
        return

    def file_location(self, offset: int, length: int) -> tuple[int, int] | None:  # noqa: ARG002 - a default
        """Return the descriptor and the offset there that take [offset, offset + length); None where write() does.

        What is written there counts as written by write(): flush() makes it durable. The descriptor stays the disk's.
        """
        return None

    def stored_extents(self) -> Iterator[Extent]:
        """Yield the extents of the disk by its own map of what it stores: what is not DATA reads as zero.

        A file's extents() are one DATA extent, since a disk is read as what it holds; its file system knows more. What
        was written and is not flushed may be missing. Errors as for extents().
        """
        return self.extents()


class Store(Addressable, Protocol):
    """Where an image's own bytes live while it is written: a file that grows as it is written, or a block device.

    size is the bytes that can be read now: of a file, the end of what was written; of a device, its size.
    """

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of data at offset, growing a file. Raises StorageError: also beyond the end of a device."""

    def discard(self, offset: int, length: int) -> None:  # noqa: ARG002 - a default
        """Give [offset, offset + length), which nothing uses any more, back where that is possible; its bytes go."""
        return

    def flush(self) -> None:
        """Return once all that was written is on stable storage; raises StorageError otherwise."""

    def drop_cache(self) -> None:
        """Make the next reads come from the device where the system can do that; call flush() first."""
        return


class ShownDisk(Disk, Protocol):
    """A Disk that can be mounted: the kernel sees its bytes through fd, but for a beginning that may be kept back."""

    if TYPE_CHECKING:

        @property
        def fd(self) -> int:
            """The descriptor of the block device or file."""


def read_bytes(source: Addressable, offset: int, length: int) -> bytes:
    """Return length bytes of source from offset; errors as for Addressable.read_into()."""
    buffer = bytearray(length)
    source.read_into(offset, buffer)
    return bytes(buffer)


def check_range(source: Addressable, offset: int, length: int) -> None:
    """Raise ValueError unless [offset, offset + length) lies inside the source."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise ValueError(f"{source.name}: bytes {offset} to {offset + length} are outside of 0 to {source.size}")
