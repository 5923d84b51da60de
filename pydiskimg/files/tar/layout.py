# SPDX-License-Identifier: MIT
"""The 512-byte header of a tar member and the records of a pax extended header.

POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar 1.35 manual, appendix "Tar Internals".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

BLOCK = 512

USTAR = struct.Struct(
    "100s"  #   0  name
    "8s"  # 100  mode        octal, as all numbers; or base-256 with the top bit set (GNU, star)
    "8s"  # 108  uid
    "8s"  # 116  gid
    "12s"  # 124  size        bytes of the body, which is padded to whole blocks
    "12s"  # 136  mtime
    "8s"  # 148  chksum      sum of all bytes of the header, this field taken as spaces
    "c"  # 156  typeflag
    "100s"  # 157  linkname
    "8s"  # 257  magic and version: b"ustar\x0000" POSIX, b"ustar  \0" GNU, anything else older
    "32s"  # 265  uname
    "32s"  # 297  gname
    "8s"  # 329  devmajor
    "8s"  # 337  devminor
    "155s"  # 345  prefix; the fields of GNU's typeflag S lie in it: realsize is 483 to 495
    "12s"  # 500  padding
)
assert USTAR.size == BLOCK

SIZE, TYPEFLAG = slice(124, 136), slice(156, 157)
MAGIC_GNU = b"ustar  \0"

# GNU tar's sparse members (typeflag S): pairs of offset and length, in the header and in blocks of their own after it.
GNU_PAIR = 24
GNU_SPARSE, GNU_IS_EXTENDED, GNU_REALSIZE = slice(386, 482), 482, slice(483, 495)
GNU_MORE_SPARSE, GNU_MORE_IS_EXTENDED = slice(0, 504), 504

HEADERS_TOO_LARGE = "its headers, with its sparse map, are larger than 8 MiB"

_CHKSUM = slice(148, 156)
_ADLER = 65521
_SPACES = 8 * 0x20

_OCTAL = re.compile(rb"[ \0]*(-?[0-7]+)")
_NEWLINE = ord("\n")
_RECORD = re.compile(rb"([0-9]{1,19}) ([^=]+)=")


class TarHeader(NamedTuple):
    """The fields of USTAR, as bytes."""

    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    chksum: bytes
    typeflag: bytes
    linkname: bytes
    magic: bytes
    uname: bytes
    gname: bytes
    devmajor: bytes
    devminor: bytes
    prefix: bytes
    padding: bytes


@lru_cache(1 << 10)  # owners, device numbers and small sizes repeat in many members
def number(field: bytes) -> int:
    """Return a numeric field: octal up to the first other character, or base-256; both may be negative."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") - (1 << bits)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = _OCTAL.match(field)
    return int(digits[1], 8) if digits else 0


def checksum_is_right(block: bytes) -> bool:
    """True if chksum is the sum of the header's bytes, modulo 65521; some old writers summed them as signed."""
    field = block[_CHKSUM]
    # Adler-32 from 0 has the sum of bytes in its lower half, and takes a tenth of the time of sum().
    found = adler32(block, 0) & 0xFFFF
    if field == b"%06o\0 " % (found - (adler32(field, 0) & 0xFFFF) + _SPACES):  # the usual form
        return True
    stated = number(field) + sum(field) - _SPACES
    if found == stated % _ADLER:
        return True
    return sum(block) - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) == stated


def records(body: bytes) -> dict[bytes, bytes]:
    """Return the keywords and values of a pax extended header; for a repeated keyword the last value, as in POSIX.

    Raises ValueError if the body is not a sequence of "LENGTH KEYWORD=VALUE\\n".
    """
    return dict(pairs(body))


def pairs(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keywords and values of a pax extended header in order. Raises ValueError as records() does."""
    position = 0
    match, length = _RECORD.match, len(body)
    while position < length:
        record = match(body, position)
        start, end = (record.end(), position + int(record[1])) if record else (0, 0)
        if record is None or not start < end <= length or body[end - 1] != _NEWLINE:
            raise ValueError(f"byte {position} of the extended header does not begin a record")
        yield record[2], body[start : end - 1]
        position = end


def padded(length: int) -> int:
    """Return the bytes that a body of length bytes takes in an archive."""
    return -(-length // BLOCK) * BLOCK
