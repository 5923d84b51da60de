# SPDX-License-Identifier: MIT
"""Swap areas, version 1 (Linux include/linux/swap.h, union swap_header; written as mkswap does)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID, uuid4

from pydiskimg.errors import DoesNotFitError
from pydiskimg.fs.label import encoded_label
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.protocols import Disk
from pydiskimg.units import format_bytes

PAGE_SIZE = 4096
VERSION = 1
MINIMUM_PAGES = 10
MAXIMUM_PAGES = 1 << 32  # last_page has 32 bits
MAGIC = b"SWAPSPACE2"

# union swap_header, info, for pages of 4096 bytes. Byte order of the machine: little-endian, as the pages are ours.
HEADER = struct.Struct(
    "<1024s"  #    0  bootbits      left for a disk label
    "I"       # 1024  version       1
    "I"       # 1028  last_page     number of the last usable page
    "I"       # 1032  nr_badpages
    "16s"     # 1036  sws_uuid
    "16s"     # 1052  sws_volume    padded with zero bytes
    "468s"    # 1068  padding       117 words
    "2550s"   # 1536  badpages      page numbers
    "10s"     # 4086  magic
)  # fmt: skip
assert HEADER.size == PAGE_SIZE


@dataclass(frozen=True, slots=True)
class SwapInfo:
    """A swap area that was made. pages counts the usable ones (the header's page is none); size is in bytes."""

    uuid: UUID
    label: str
    pages: int
    size: int


def make_swap(disk: Disk, *, label: str = "", uuid: UUID | None = None) -> SwapInfo:
    """Make the whole disk a swap area and return what was made.

    label has at most 16 bytes of UTF-8; uuid is random unless given. Signatures of earlier file systems are wiped
    first; the header is written last, so that an interrupted run leaves nothing that looks like swap.
    Raises DoesNotFitError under 10 pages, FileSystemError for a label that does not fit, StorageError.
    """
    name = encoded_label(label, disk.name)
    check_swap(disk)
    pages = min(disk.size // PAGE_SIZE, MAXIMUM_PAGES)
    identity = uuid or uuid4()
    wipe_signatures(disk)
    disk.write(0, HEADER.pack(b"", VERSION, pages - 1, 0, identity.bytes, name, b"", b"", MAGIC))
    disk.flush()
    return SwapInfo(identity, label, pages - 1, pages * PAGE_SIZE)


def check_swap(disk: Disk) -> None:
    """Raise DoesNotFitError when the disk is too small for a swap area; nothing is written."""
    if disk.size < MINIMUM_PAGES * PAGE_SIZE:
        needed = MINIMUM_PAGES * PAGE_SIZE
        raise DoesNotFitError(
            f"{disk.name}: a swap area needs at least {format_bytes(needed)}, there are {format_bytes(disk.size)}; "
            "nothing was written",
            needed=needed,
            available=disk.size,
        )
