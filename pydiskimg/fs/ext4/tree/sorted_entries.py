# SPDX-License-Identifier: MIT
"""The entries of a directory in the order of their names, in few bytes each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from pydiskimg.fs.ext4.directory_entries import NamedInode

_AT_ONCE = 1 << 15  # the number of entries that are sorted as a list: 5 MB
_MOST_BYTES = 48 << 20  # of larger directories in memory


def sorted_entries(entries: Iterable[NamedInode]) -> Iterator[NamedInode]:
    """Yield the entries of a directory by name; if its names take more than 48 MiB, in several sorted parts."""
    left = iter(entries)
    first = sorted(islice(left, _AT_ONCE))
    if len(first) < _AT_ONCE:
        return iter(first)
    return _merged(first, left)


def _merged(first: list[NamedInode], left: Iterator[NamedInode]) -> Iterator[NamedInode]:
    from heapq import merge  # imported here: few directories are so large

    while first:
        parts, size = [], 0
        while first and size < _MOST_BYTES:
            parts.append(_packed(first))
            size += len(parts[-1])
            first = sorted(islice(left, _AT_ONCE))
        yield from merge(*(_unpacked(part) for part in parts))


def _packed(entries: Iterable[NamedInode]) -> bytes:
    """Return entries as bytes: the length of the name, the name, the inode, the file type."""
    fields = ((bytes([len(name)]), name, number.to_bytes(4, "little"), bytes([kind])) for name, number, kind in entries)
    return b"".join(chain.from_iterable(fields))


def _unpacked(data: bytes) -> Iterator[NamedInode]:
    at = 0
    while at < len(data):
        start = at + 1
        end = start + data[at]
        yield data[start:end], int.from_bytes(data[end : end + 4], "little"), data[end + 4]
        at = end + 5
