# SPDX-License-Identifier: MIT
"""The locations of the data of a sparse member: the maps of GNU tar's four formats.

GNU tar 1.35 manual, "Storing Sparse Files"; the old format's structures are in its appendix "Basic Tar Format".

    old   typeflag S: four pairs in the header, 21 in each block that follows it while isextended is set
    0.0   pax records GNU.sparse.offset and GNU.sparse.numbytes, one of each for each piece
    0.1   pax record GNU.sparse.map: "offset,length,offset,length"
    1.0   decimal lines at the beginning of the body, the number of pairs first, padded to a whole block
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pydiskimg.files.tar import layout
from pydiskimg.files.tar.archive_bytes import ArchiveBytes
from pydiskimg.text import quoted

_NUMBER = re.compile(rb"[0-9]{1,19}")


class StoredMap(NamedTuple):
    """size is the file's with its holes, in bytes, pieces are (offset, length) of its data, ascending.

    in_body is the number of bytes that the map itself takes in the body, including padding.
    """

    size: int
    pieces: list[tuple[int, int]]
    in_body: int


def sparse_map(
    stream: ArchiveBytes, header: bytes, records: Mapping[bytes, bytes], extended: bytes, limit: int
) -> StoredMap | None:
    """Return the map of a member whose header was read from the stream, None if it is not sparse.

    header is its block, records and extended the extended header before it, parsed and raw. The map in the stream ends
    before the position limit. Raises ValueError for a map that contradicts itself.
    """
    if header[layout.TYPEFLAG] == b"S":
        size = layout.number(header[layout.GNU_REALSIZE])
        return _checked(size, _old_pairs(stream, header, limit), 0)
    major, minor = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    if not any(keyword.startswith(b"GNU.sparse.") for keyword in records):
        return None
    size = int(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"-1")
    if (major, minor) == (b"1", b"0"):
        start = stream.position
        found = _checked(size, _pairs(_lines(stream, limit)), 0)
        return found._replace(in_body=stream.position - start)
    if major not in (None, b"0"):
        version = f"{quoted(major[:20])}.{quoted((minor or b'')[:20])}"
        raise ValueError(f"it is sparse in version {version} of GNU tar's format; those known are 0.0, 0.1 and 1.0")
    return _checked(size, _pairs(_in_records(records, extended)), 0)


def _checked(size: int, pairs: Iterable[tuple[int, int]], in_body: int) -> StoredMap:
    end = 0
    pieces = []
    for offset, length in pairs:
        if not length:  # the last pair gives the end of the last hole
            continue
        if length < 0 or offset < end or offset + length > size:
            raise ValueError(f"its sparse map places {length} bytes at {offset}, outside of {end} to {size}")
        end = offset + length
        pieces.append((offset, length))
    return StoredMap(size, pieces, in_body)


def _old_pairs(stream: ArchiveBytes, header: bytes, limit: int) -> Iterator[tuple[int, int]]:
    table, is_extended = header[layout.GNU_SPARSE], header[layout.GNU_IS_EXTENDED]
    while True:
        for at in range(0, len(table), layout.GNU_PAIR):
            offset, length = table[at : at + 12], table[at + 12 : at + layout.GNU_PAIR]
            if not offset[0]:  # the rest of the table is not used
                break
            yield layout.number(offset), layout.number(length)
        if not is_extended:
            return
        block = _taken(stream, limit)
        table, is_extended = block[layout.GNU_MORE_SPARSE], block[layout.GNU_MORE_IS_EXTENDED]


def _pairs(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
    for offset in numbers:
        length = next(numbers, None)
        if length is None:
            raise ValueError("its sparse map has an odd number of values")
        yield offset, length


def _in_records(records: Mapping[bytes, bytes], extended: bytes) -> Iterator[int]:
    text = records.get(b"GNU.sparse.map")
    if text is not None:
        yield from (_number(found[0]) for found in re.finditer(rb"[^,]*(?:,|\Z)", text) if found[0])
        return
    expected, other = b"GNU.sparse.offset", b"GNU.sparse.numbytes"
    for keyword, value in layout.pairs(extended):
        if keyword == expected:
            expected, other = other, expected
            yield _number(value)
        elif keyword == other:
            raise ValueError("its sparse map has an odd number of values")


def _lines(stream: ArchiveBytes, limit: int) -> Iterator[int]:
    """Yield the numbers of format 1.0 after the first one, which is the number of pairs."""
    left: int | None = None
    rest = b""
    while left is None or left:
        *lines, rest = (rest + _taken(stream, limit)).split(b"\n")
        for line in lines:
            if line.startswith(b"#"):  # libarchive takes that for a comment
                continue
            number = _number(line)
            if left is None:
                left = 2 * number
                continue
            if not left:
                return
            left -= 1
            yield number
        if len(rest) > layout.BLOCK:
            raise ValueError("its sparse map is not a list of numbers")


def _number(text: bytes) -> int:
    digits = text.removesuffix(b",")
    if not _NUMBER.fullmatch(digits):
        raise ValueError(f"its sparse map has {quoted(digits[:20])}, expected a number")
    return int(digits)


def _taken(stream: ArchiveBytes, limit: int) -> bytes:
    if stream.position + layout.BLOCK > limit:
        raise ValueError(layout.HEADERS_TOO_LARGE)
    return stream.take(layout.BLOCK)
