# SPDX-License-Identifier: MIT
"""Swap areas, version 1 (Linux include/linux/swap.h, union swap_header; written as mkswap does)."""

from __future__ import annotations

from pydiskimg.errors import DoesNotFitError
from pydiskimg.fs.label import encoded_label
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import KIB, format_bytes

if TYPE_CHECKING:
    from typing import Any
    from uuid import UUID

PAGE_SIZE = 4096  # of the areas made here
VERSION = 1
MINIMUM_PAGES = 10
MAXIMUM_PAGES = 1 << 32  # last_page has 32 bits
MAGIC = b"SWAPSPACE2"  # ends the first page, whose size is the machine's page size

_HEADER = """
    000 1024s bootbits      left for a disk label
    400 I     version       1
    404 I     last_page     number of the last usable page
    408 I     nr_badpages
    40c 16s   sws_uuid
    41c 16s   sws_volume    padded with zero bytes
    42c 468s  padding       117 words; after it nr_badpages page numbers
"""
# In the byte order of the machine that made the area; areas made here are little-endian.
HEADER = Record("swap_header", "<", 1536, _HEADER)
HEADER_BIG_ENDIAN = Record("swap_header", ">", 1536, _HEADER)
_PAGE_SIZES = tuple(size * KIB for size in (4, 8, 16, 32, 64))
MAGIC_OFFSETS = tuple(size - len(MAGIC) for size in _PAGE_SIZES)


class SwapInfo:
    """A swap area that make_swap() wrote: uuid, label, the number of usable pages of 4096 bytes, and size in bytes.

    The page of the header is not counted in pages, and is part of size.

    >>> from pydiskimg import MemoryDisk, make_swap
    >>> made = make_swap(MemoryDisk(1 << 20))
    >>> made.pages, made.size
    (255, 1048576)
    """

    def __init__(self, uuid: UUID, label: str, pages: int, size: int) -> None:
        self.uuid = uuid
        self.label = label
        self.pages = pages
        self.size = size


def make_swap(disk: Disk, *, label: str = "", uuid: UUID | None = None) -> SwapInfo:
    """Make the whole disk a swap area of version 1 (Linux, include/linux/swap.h) and return what was made.

    label has at most 16 bytes in UTF-8; uuid is random unless given. Signatures of earlier file systems are removed
    first and the header is written last, so that an interrupted run leaves nothing that looks like swap. Durable on
    return; the disk stays the caller's.

    Raises DoesNotFitError for a disk of less than 10 pages of 4096 bytes and FileSystemError for a label that is too
    long, both before the first write, and StorageError.

    >>> from pydiskimg import make_swap, new_image
    >>> with new_image("swap.img", 512 << 20) as disk:
    ...     made = make_swap(disk, label="swap0")
    >>> made.size
    536870912
    """
    name = encoded_label(label, disk.name)
    check_swap(disk)
    pages = min(disk.size // PAGE_SIZE, MAXIMUM_PAGES)
    from uuid import uuid4  # imported here: a file that is only read is checked for swap, too

    identity = uuid or uuid4()
    wipe_signatures(disk)
    header = HEADER.pack(version=VERSION, last_page=pages - 1, sws_uuid=identity.bytes, sws_volume=name)
    disk.write(0, header.ljust(PAGE_SIZE - len(MAGIC), b"\0") + MAGIC)
    disk.flush()
    return SwapInfo(identity, label, pages - 1, pages * PAGE_SIZE)


def check_swap(disk: Disk) -> None:
    """Raise DoesNotFitError when the disk is too small for a swap area; nothing is written."""
    if disk.size < MINIMUM_PAGES * PAGE_SIZE:
        needed = MINIMUM_PAGES * PAGE_SIZE
        raise DoesNotFitError(
            f"{disk.name}: a swap area needs at least {format_bytes(needed)}, the disk has {format_bytes(disk.size)}; "
            "nothing was written",
            needed=needed,
            available=disk.size,
        )


def swap_used(source: Source) -> list[tuple[int, int]] | str:
    """Return the used ranges of the swap area on source, or a clause that says why it is not believed.

    A range is its first byte and the byte after its last. In use are the page of the header, which also lists the bad
    pages, and the bytes after the last page; the rest is the memory of a system that no longer runs. Only the header
    shows that this is still a swap area, so it must be exactly what mkswap writes. An area with a hibernated system has
    another signature and is not believed. Raises StorageError as reading does.
    """
    page_size = next((size for size in _PAGE_SIZES if _has_magic(source, size)), None)
    if page_size is None:
        return "it has no signature of a swap area in use"
    page = read_bytes(source, 0, page_size)
    header = read_header(page)
    if header is None:
        return f"its header is not of version {VERSION}"
    end = (header["last_page"] + 1) * page_size
    if not 2 * page_size <= end <= source.size:
        return f"its last page ends at byte {end}, its partition at {source.size}"
    if not _is_pristine(page, header):
        return "its header has bytes that mkswap does not write"
    return [(0, page_size), (end, source.size)] if end < source.size else [(0, page_size)]


def _has_magic(source: Source, page_size: int) -> bool:
    return page_size <= source.size and read_bytes(source, page_size - len(MAGIC), len(MAGIC)) == MAGIC


def read_header(page: bytes) -> dict[str, Any] | None:
    """Return the fields of the header, in the byte order in which the version is right; None if it is wrong in both."""
    found = (record.unpack(page) for record in (HEADER, HEADER_BIG_ENDIAN))
    return next((header for header in found if header["version"] == VERSION), None)


def _is_pristine(page: bytes, header: dict[str, Any]) -> bool:
    """True when the bytes that mkswap writes as zeros are zeros."""
    bad_end = HEADER.size + 4 * header["nr_badpages"]
    rest = page[bad_end : len(page) - len(MAGIC)]
    return bad_end <= len(page) - len(MAGIC) and not any(header["bootbits"] + header["padding"] + rest)
