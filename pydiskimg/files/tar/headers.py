# SPDX-License-Identifier: MIT
"""Write the headers of a tar member: ustar, and a pax extended header for values that do not fit into it.

    | header "x" | records, padded | header of the member | map of a sparse file, contents, padded |

POSIX.1-2017, pax, "ustar Interchange Format"; the records of attributes and ACLs are star's, those of sparse files GNU
tar's (format 1.0). The same entries give the same bytes.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from zlib import adler32

from pydiskimg.files.acl import acl_text
from pydiskimg.files.attributes import ACL_ACCESS, ACL_DEFAULT
from pydiskimg.files.tar.layout import BLOCK, USTAR
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydiskimg.files.entry import Entry

_TYPEFLAGS = {
    stat.S_IFREG: b"0",
    0: b"1",  # a hard link
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_EXTENDED = b"x"
_EXTENDED_NAME = b"././@PaxHeader"  # the name of the file that a tar makes if it does not know the typeflag
_MAGIC = b"ustar\x0000"
_NAME, _PREFIX = 100, 155  # bytes
_SPARSE_NAME = b"GNUSparseFile.0"
_LARGEST_ID, _LARGEST_SIZE = 0o7777777, 0o77777777777
_SECOND = 1_000_000_000
_HALF = BLOCK // 2
_NO_SUM = b" " * 8  # the bytes that chksum counts for its own field
_CHKSUM = slice(148, 156)
_ACL_KEYWORDS = {ACL_ACCESS: b"SCHILY.acl.access", ACL_DEFAULT: b"SCHILY.acl.default"}
KINDS = _TYPEFLAGS.keys()
"""The entry types that tar supports, as Entry.kind."""


class SparseMap:
    """Where a file has data, as (offset, length), ascending: stored is their sum in bytes, text the form of the map."""

    def __init__(self, ranges: Sequence[tuple[int, int]], size: int) -> None:
        if not ranges or sum(ranges[-1]) < size:
            ranges = [*ranges, (size, 0)]  # the end of the last hole
        self._starts = [start for start, _ in ranges]
        self._stored = [0, *accumulate(length for _, length in ranges)]
        numbers = [len(ranges), *(number for found in ranges for number in found)]
        text = b"".join(b"%d\n" % number for number in numbers)
        self.text = text + bytes(-len(text) % BLOCK)
        self.stored = self._stored[-1]

    def stored_before(self, offset: int) -> int:
        """Return how many of the stored bytes are before an offset in the file."""
        index = bisect_right(self._starts, offset)
        if not index:
            return 0
        return min(self._stored[index], self._stored[index - 1] + offset - self._starts[index - 1])


def member_headers(entry: Entry, sparse: SparseMap | None = None) -> bytes:
    """Return all bytes before a member's contents and map; sparse is the map of a regular file with holes."""
    path = entry.path + b"/" if entry.is_directory else entry.path
    name, prefix, records = _name(b"path", path)
    size = entry.size if entry.kind == stat.S_IFREG else 0
    if sparse is not None:
        name, prefix = b"%s/%s" % (_SPARSE_NAME, path.rpartition(b"/")[2][:64]), b""
        records = _sparse_records(path, size)
        size = len(sparse.text) + sparse.stored
    link = entry.link
    if link:
        link, _, more = _name(b"linkpath", link, longest_prefix=0)
        records += more
    records += _time_records(entry.mtime_ns, entry.atime_ns)
    mode, uid, gid, more = _owner_fields(entry.mode, entry.uid, entry.gid)
    records += more
    if size > _LARGEST_SIZE:
        records += _record(b"size", b"%d" % size)
    if entry.xattrs or entry.acls:
        records += _attribute_records(entry)
    if not records.isascii() and not _is_utf8(path, entry.link):
        records = _record(b"hdrcharset", b"BINARY") + records
    major, minor = entry.device
    times = _mtime_field(entry.mtime_ns)
    numbers = (mode, uid, gid, b"%011o" % min(size, _LARGEST_SIZE), times)
    typeflag = _TYPEFLAGS[entry.kind]
    own = _summed(name, *numbers, _NO_SUM, typeflag, link, _MAGIC, b"", b"", b"%07o" % major, b"%07o" % minor, prefix)
    return b"".join((_extended_header(len(records)), records, bytes(-len(records) % BLOCK), own))


def _summed(*fields: bytes) -> bytes:
    """Return the header of these fields with its checksum set."""
    block = USTAR.pack(*fields, b"")
    # The low half of Adler-32 is the sum of the bytes modulo 65521, which half a header cannot reach.
    total = (adler32(block[:_HALF]) & 0xFFFF) + (adler32(block[_HALF:]) & 0xFFFF) - 2
    return block[: _CHKSUM.start] + b"%06o\0 " % total + block[_CHKSUM.stop :]


@lru_cache(1024)
def _extended_header(size: int) -> bytes:
    zero = b"%07o" % 0
    numbers = (b"%07o" % 0o644, zero, zero, b"%011o" % size, b"%011o" % 0)
    return _summed(_EXTENDED_NAME, *numbers, _NO_SUM, _EXTENDED, b"", _MAGIC, b"", b"", zero, zero, b"")


def _record(keyword: bytes, value: bytes) -> bytes:
    """Return a record of an extended header; the length before it counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


def _name(keyword: bytes, path: bytes, *, longest_prefix: int = _PREFIX) -> tuple[bytes, bytes, bytes]:
    """Return name and prefix of the header, and a record if they cannot express the path."""
    if path.isascii():
        if len(path) <= _NAME:
            return path, b"", b""
        # The part after the slash should be short enough, but not empty.
        slash = path.find(b"/", len(path) - _NAME - 1, len(path) - 1)
        if 0 < slash <= longest_prefix:
            return path[slash + 1 :], path[:slash], b""
    return path[:_NAME], b"", _record(keyword, path)


def _sparse_records(path: bytes, size: int) -> bytes:
    pairs = ((b"major", b"1"), (b"minor", b"0"), (b"name", path), (b"realsize", b"%d" % size))
    return b"".join(_record(b"GNU.sparse." + keyword, value) for keyword, value in pairs)


@lru_cache(1024)
def _time_records(mtime_ns: int, atime_ns: int) -> bytes:
    """Return the records of both times; that of mtime only if the header cannot express it."""
    atime = _record(b"atime", _seconds(atime_ns))
    seconds, rest = divmod(mtime_ns, _SECOND)
    if not rest and 0 <= seconds <= _LARGEST_SIZE:
        return atime
    return _record(b"mtime", _seconds(mtime_ns)) + atime


def _seconds(nanoseconds: int) -> bytes:
    """Return a time in the form of pax: 1700000000.25, -1.5."""
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    text = b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, rest)
    return text.rstrip(b"0").rstrip(b".")


@lru_cache(1024)
def _mtime_field(nanoseconds: int) -> bytes:
    return b"%011o" % min(max(nanoseconds // _SECOND, 0), _LARGEST_SIZE)


@lru_cache(1024)
def _owner_fields(mode: int, uid: int, gid: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Return mode, uid and gid of the header, and records of those that are too large for it."""
    records = b"".join(
        _record(keyword, b"%d" % number) for keyword, number in ((b"uid", uid), (b"gid", gid)) if number > _LARGEST_ID
    )
    return b"%07o" % mode, b"%07o" % min(uid, _LARGEST_ID), b"%07o" % min(gid, _LARGEST_ID), records


def _attribute_records(entry: Entry) -> bytes:
    """Return the records of ACLs and extended attributes; "=" and "%" in their names are written as GNU tar does."""
    records = []
    for name, value in entry.xattrs.items():
        keyword = name.replace(b"%", b"%25").replace(b"=", b"%3D")
        records.append(_record(b"SCHILY.xattr." + keyword, value))
    for name, acl in entry.acls.items():
        records.append(_record(_ACL_KEYWORDS[name], acl_text(acl)))
    return b"".join(records)


def _is_utf8(*names: bytes) -> bool:
    try:
        for name in names:
            name.decode()
    except UnicodeDecodeError:
        return False
    return True
