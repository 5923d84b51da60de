# SPDX-License-Identifier: MIT
"""What of a swap area must be kept: its header. The rest is the memory of a system that no longer runs.

Nothing but the header tells that it still is a swap area, so the header must be what mkswap writes, to the byte.
"""

from __future__ import annotations

from pydiskimg.fs.swap import MAGIC, VERSION
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.units import KIB

_PAGE_SIZES = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)
_BOOT_BITS = 1024
_NUMBERS = slice(1024, 1036)  # version, last_page, nr_badpages
_PADDING = slice(1068, 1536)
_BAD_PAGES = 1536  # 4 bytes for each, up to the magic


def swap_used(source: Source) -> list[tuple[int, int]] | str:
    """Return the ranges in use of the swap area that source is, or a clause that says why it is not believed.

    A range is its first byte and the byte after its last. There is the page of the header, which lists the bad pages
    too, and what lies behind the last page. An area that holds a hibernated system has another signature and is none
    in this sense. Raises StorageError as reading does.
    """
    page_size = next((size for size in _PAGE_SIZES if _has_magic(source, size)), None)
    if page_size is None:
        return "it has no signature of a swap area in use"
    page = read_bytes(source, 0, page_size)
    numbers = _numbers(page)
    if numbers is None:
        return f"its header is not of version {VERSION}"
    last_page, bad_pages = numbers
    end = (last_page + 1) * page_size
    if not 2 * page_size <= end <= source.size:
        return f"its last page ends at byte {end}, and the place for it at {source.size}"
    if not _is_pristine(page, bad_pages):
        return "its header holds something that mkswap does not write"
    return [(0, page_size), (end, source.size)] if end < source.size else [(0, page_size)]


def _has_magic(source: Source, page_size: int) -> bool:
    return page_size <= source.size and read_bytes(source, page_size - len(MAGIC), len(MAGIC)) == MAGIC


def _numbers(page: bytes) -> tuple[int, int] | None:
    """Return last_page and nr_badpages, in the byte order that makes the version right."""
    version, last_page, bad_pages = (page[_NUMBERS][at : at + 4] for at in (0, 4, 8))
    if int.from_bytes(version, "little") == VERSION:
        return int.from_bytes(last_page, "little"), int.from_bytes(bad_pages, "little")
    if int.from_bytes(version, "big") == VERSION:
        return int.from_bytes(last_page, "big"), int.from_bytes(bad_pages, "big")
    return None


def _is_pristine(page: bytes, bad_pages: int) -> bool:
    """True when there are zeros where mkswap writes zeros."""
    bad_end = _BAD_PAGES + 4 * bad_pages
    rest = page[bad_end : len(page) - len(MAGIC)]
    return bad_end <= len(page) - len(MAGIC) and not any(page[:_BOOT_BITS] + page[_PADDING] + rest)
