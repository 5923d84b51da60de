# SPDX-License-Identifier: MIT
"""The entries of a tar archive, one after the other."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator

from pydiskimg.errors import ArchiveError
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.files.tar.archive_bytes import ArchiveBytes, Blocks
from pydiskimg.files.tar.layout import number, padded
from pydiskimg.files.tar.member import Member, Members
from pydiskimg.files.tar.pax import acls, nanoseconds, xattrs
from pydiskimg.text import printable

_IDS = range(0xFFFFFFFF)  # the next number is (uid_t)-1, which chown(2) takes for "unchanged"
_TIMES = range(-(1 << 63) * 1_000_000_000, (1 << 63) * 1_000_000_000)
_SIZES = range(1 << 63)
_KINDS = {
    b"\0": stat.S_IFREG,
    b"0": stat.S_IFREG,
    b"1": 0,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
    b"7": stat.S_IFREG,  # contiguous, on systems that support it
    b"D": stat.S_IFDIR,  # with the names in it as its body, in GNU tar's incremental dumps
    b"S": stat.S_IFREG,
}


class Reader:
    """Reads entries from inflated blocks; consumed is called with the number of bytes of the file read so far.

    Every error is an ArchiveError that names the archive and the entry, or an error of the blocks.
    """

    def __init__(self, blocks: Blocks, name: str, consumed: Callable[[int], None]) -> None:
        self._name = name
        self._stream = ArchiveBytes(blocks, consumed)
        self._members = Members(self._stream)

    def entries(self) -> Iterator[Entry]:
        """Yield each entry; at the end the rest of the file is read too, so that its checksums are verified."""
        stream, members = self._stream, self._members
        path: bytes | None = None
        while True:
            if not stream.peek(1):
                raise ArchiveError(f"{self._name}: {_no_marker(stream.position)}")
            try:
                member = members.next()
                if member is None:
                    break
                end = stream.position + padded(member.stored - (member.sparse.in_body if member.sparse else 0))
                entry = self._entry(member)
            except ValueError as error:
                raise self._error(error, path) from error
            path = member.path
            yield entry
            try:
                stream.skip_to(end)
            except ValueError as error:
                raise self._error(error, path) from error
        self._check_end(path is not None)

    def _entry(self, member: Member) -> Entry:
        """Return the entry to be restored; raises ValueError for one that cannot be."""
        header, records = member.header, member.records
        kind = stat.S_IFDIR if member.is_old_directory else _KINDS[header.typeflag]
        attributes = {} if member.is_plain else xattrs(records)
        mtime, atime = records.get(b"mtime"), records.get(b"atime")
        mtime_ns = nanoseconds(mtime) if mtime else number(header.mtime) * 1_000_000_000
        entry = Entry(
            path=member.path,
            kind=kind,
            mode=number(header.mode) & 0o7777,
            uid=member.owner,
            gid=member.group,
            mtime_ns=mtime_ns,
            atime_ns=nanoseconds(atime) if atime else mtime_ns,
            link=member.link,
            device=member.device,
            xattrs=attributes,
            acls={} if member.is_plain else acls(records, attributes, kind=kind),
        )
        if kind == stat.S_IFREG:
            entry.size = member.size
            # The body of most files is in memory already, and is passed on without generators of its pieces.
            body = self._stream.piece(member.stored) if member.sparse is None else None
            entry.contents = self._contents(member) if body is None else ((0, body),) if body else ()
        _check(entry)
        return entry

    def _contents(self, member: Member) -> Contents:
        """Yield (offset, bytes) of a file's contents."""
        pieces = [(0, member.stored)] if member.sparse is None else member.sparse.pieces
        try:
            for offset, length in pieces:
                yield from self._stream.pieces(offset, length)
        except ValueError as error:
            raise self._error(error, member.path) from error

    def _check_end(self, any_entries: bool) -> None:
        """Check the bytes after the end marker."""
        position = self._stream.position
        if not self._stream.is_zero_to_the_end():
            raise ArchiveError(
                f"{self._name}: data follow the end-of-archive marker before byte {position} of the inflated archive, "
                "expected only zeros; the archive was appended to, or it is corrupt"
            )
        if not any_entries:
            raise ArchiveError(f"{self._name}: the archive has no entries")

    def _error(self, error: ValueError, before: bytes | None) -> ArchiveError:
        """Return the error for the member that is being read, or for the one after before."""
        path = self._members.path
        if path is None and before is None:
            return ArchiveError(f"{self._name}: {error}")
        subject, found = ("the entry after", before or b"") if path is None else ("entry", path)
        shown = printable(found)
        return ArchiveError(f"{self._name}: {subject} {shown}: {error}", entry=shown)


def _no_marker(position: int) -> str:
    if not position:
        return "is empty; an archive was expected"
    return f"no end-of-archive marker at byte {position} of the inflated archive, where it ends; it is truncated"


def _check(entry: Entry) -> None:
    if not entry.path or b"\0" in entry.path or b"\0" in entry.link:
        raise ValueError("its name is empty or has a null byte in it")
    if entry.uid not in _IDS:
        raise ValueError(f"its owner is {entry.uid}; expected a number from 0 to {_IDS[-1]}")
    if entry.gid not in _IDS:
        raise ValueError(f"its group is {entry.gid}; expected a number from 0 to {_IDS[-1]}")
    if entry.size not in _SIZES:
        raise ValueError(f"its size is {entry.size}; expected a number from 0 to {_SIZES[-1]}")
    if entry.mtime_ns not in _TIMES:
        raise ValueError("its time is beyond what 64 bits of seconds hold")
