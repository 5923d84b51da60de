# SPDX-License-Identifier: MIT
"""The entries of a tar archive, one after the other, as libarchive reads them and the bytes confirm."""

from __future__ import annotations

import ctypes
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from pydiskimg.errors import ArchiveError
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.files.tar import layout, libarchive
from pydiskimg.files.tar.inflate import Inflated
from pydiskimg.files.tar.pax import acls, nanoseconds, xattrs
from pydiskimg.files.tar.second_reading import Member, read_member
from pydiskimg.text import printable

# Headers and sparse map of one member. libarchive keeps a map in memory, several times as large as it was.
_HEADERS_LIMIT = 8 << 20
_CONTENTS_KEPT = 64 << 10  # bytes before a member's headers, of which libarchive may have some still
_HIGHEST_ID = 0xFFFFFFFE  # the one above is (uid_t)-1, which chown(2) takes for "leave it"
_KINDS = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO}

# Said of a name in a pax header that is not ASCII, in the C locale: libarchive then leaves the bytes as they are.
_CONVERSION = re.compile(rb"\w+ can't be converted from ")


class Blocks(Protocol):
    """Where the bytes of an archive come from."""

    def next_block(self) -> Inflated | None:
        """Return the next block, None at the end, again and again."""


class _Feed:
    """Hands inflated blocks to libarchive, and keeps the last of them to be looked at again."""

    def __init__(self, blocks: Blocks, consumed: Callable[[int], None]) -> None:
        self._blocks = blocks
        self._consumed = consumed
        self._recent: deque[tuple[int, bytes]] = deque()
        self._end = 0
        self._budget: int | None = None
        self.error: BaseException | None = None
        self.callback = libarchive.Callback(self._read)

    def limit(self, length: int | None) -> None:
        """Fail once more than length bytes, and a block, were asked for from now on; None: no limit."""
        self._budget = length

    def _read(self, _archive: int, _data: int, buffer: ctypes._Pointer[ctypes.c_void_p]) -> int:
        try:
            data = self._next()
        except BaseException as error:  # noqa: BLE001 - nothing may pass through C; raised again after it
            self.error = error
            return libarchive.FATAL
        buffer[0] = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        return len(data)

    def _next(self) -> bytes:
        if self._budget is not None and self._budget < 0:
            raise ValueError(f"its headers are larger than {_HEADERS_LIMIT} bytes")
        block = self._blocks.next_block()
        if block is None:
            return b""
        self._consumed(block.consumed)
        self._recent.append((self._end, block.data))
        self._end += len(block.data)
        if self._budget is not None:
            self._budget -= len(block.data)
        # Contents are not looked at again, and blocks that are freed soon are still in the processor's cache when their
        # memory holds the next ones. Of headers two limits are kept: the budget is noticed a block late.
        kept = _CONTENTS_KEPT if self._budget is None else 2 * _HEADERS_LIMIT
        while len(self._recent) > 2 and self._recent[0][0] + len(self._recent[0][1]) < self._end - kept:
            self._recent.popleft()
        return block.data

    def peek(self, position: int, length: int) -> bytes:
        """Return bytes that libarchive was given a moment ago. Raises ValueError when they are not there (any more)."""
        if self._recent:
            start, data = self._recent[-1]
            if start <= position and position + length <= self._end:  # most of them
                return data[position - start : position - start + length]
        parts: list[bytes] = []
        end = position + length
        for start, data in reversed(self._recent):
            if start < end:
                parts.append(data[max(position - start, 0) : end - start])
            if start <= position:
                break
        found = b"".join(reversed(parts))
        if len(found) != length:
            raise ValueError(f"its headers do not lie together at byte {position} of the inflated archive")
        return found

    def zeros_to_the_end(self, position: int) -> bool:
        """Read the rest of the stream; True when there are at least 512 bytes from position on, all of them zero."""
        before = (data[max(position - start, 0) :] for start, data in list(self._recent))
        clean = not any(part.strip(b"\0") for part in before)
        while block := self._blocks.next_block():
            self._consumed(block.consumed)
            self._end += len(block.data)
            clean = clean and not block.data.strip(b"\0")
        return clean and self._end - position >= layout.BLOCK


class Reader:
    """Reads entries from inflated blocks.

    Every error is an ArchiveError that names the archive and the entry.
    """

    def __init__(self, blocks: Blocks, name: str, consumed: Callable[[int], None]) -> None:
        self._name = name
        self._feed = _Feed(blocks, consumed)
        self._current: bytes | None = None
        self._subject = "entry"
        self._is_read = True
        self._archive = libarchive.read_new()
        # Where libarchive puts what it returns, made once for all calls.
        self._pointer = ctypes.c_void_p()
        self._pointer_at = ctypes.byref(self._pointer)
        self._address, self._size, self._offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int64()
        self._data_at = ctypes.byref(self._address), ctypes.byref(self._size), ctypes.byref(self._offset)

    def close(self) -> None:
        if self._archive:
            libarchive.read_free(self._archive)
        self._archive = None

    def entries(self) -> Iterator[Entry]:
        """Yield each entry; at the end the rest of the file is read too, so that its checksums are checked."""
        count = 0
        self._check(libarchive.read_support_format_tar(self._archive))
        self._check(libarchive.read_open(self._archive, None, None, self._feed.callback, None))
        pointer = self._pointer
        while self._next_header():
            count += 1
            entry, self._member = self._entry(pointer)
            self._mapped = _mapped(pointer) if self._member.real_size is not None else None
            self._is_read = False
            yield entry
            if not self._is_read:
                self._skip()
        self._check_end(count)

    def _next_header(self) -> bool:
        """Have the next entry at self._pointer; False at the end."""
        self._feed.limit(_HEADERS_LIMIT)
        result = libarchive.read_next_header(self._archive, self._pointer_at)
        self._feed.limit(None)
        if result == libarchive.EOF:
            return False
        if result == libarchive.WARN and _CONVERSION.match(libarchive.error_string(self._archive) or b""):
            return True
        if result == libarchive.WARN:
            self._current = libarchive.entry_pathname(self._pointer)
        self._subject = "entry" if result >= libarchive.WARN else "the entry after"
        self._check(result)
        return True

    def _entry(self, pointer: ctypes.c_void_p) -> tuple[Entry, Member]:
        entry = None
        try:
            member = read_member(self._feed.peek, libarchive.read_header_position(self._archive))
            size = libarchive.entry_size(pointer)
            entry = _restored(pointer, member, size, self._contents(size))
            _check_sizes(entry, member)
        except ValueError as error:
            self._current = entry.path if entry else libarchive.entry_pathname(pointer)
            raise self._error(str(error)) from error
        self._current = entry.path
        return entry, member

    def _contents(self, entry_size: int) -> Contents:
        """Yield (offset, bytes) of a file's contents; the bytes are libarchive's own."""
        address, size, offset = self._address, self._size, self._offset
        end = delivered = 0
        while (result := libarchive.read_data_block(self._archive, *self._data_at)) == libarchive.OK:
            start, length = offset.value, size.value
            if start < end or start + length > entry_size:
                where = f"outside of {end} to {entry_size}"
                raise self._error(f"its sparse map places {length} bytes at {start}, {where}")
            end = start + length
            delivered += length
            yield start, libarchive.view(address.value, length)
        self._is_read = True
        self._check(result)
        self._check_delivered(delivered)

    def _skip(self) -> None:
        """Read what the current entry has of data, and drop it."""
        while (result := libarchive.read_data_block(self._archive, *self._data_at)) == libarchive.OK:
            pass
        self._check(result)

    def _check_delivered(self, delivered: int) -> None:
        if self._mapped not in (None, delivered):
            raise self._error(f"its sparse map asks for {self._mapped} bytes of data where {delivered} are stored")
        stored = self._member.stored_size
        if self._member.map_in_body:
            right = stored - delivered >= layout.BLOCK and (stored - delivered) % layout.BLOCK == 0
        else:
            right = stored == delivered
        if not right:
            raise self._error(
                f"libarchive read {delivered} bytes of data where {stored} are stored; "
                f"libarchive {libarchive.version()} cannot unpack this archive"
            )

    def _check(self, result: int) -> None:
        if result in (libarchive.OK, libarchive.EOF):
            return
        error = self._feed.error
        if isinstance(error, ValueError):
            raise self._error(str(error)) from error
        if error is not None:
            raise error
        message = printable(libarchive.error_string(self._archive) or b"libarchive gives no reason")
        raise self._error(f"{message.rstrip('.')}; the archive is truncated, corrupt or no tar archive")

    def _check_end(self, count: int) -> None:
        self._current = None
        position = libarchive.read_header_position(self._archive)
        if not self._feed.zeros_to_the_end(position):
            raise self._error(
                f"no end-of-archive marker and nothing but zeros at byte {position} of the inflated archive; it is "
                "truncated, or something was appended to it"
            )
        if not count:
            raise self._error("the archive has no entries")

    def _error(self, message: str) -> ArchiveError:
        if self._current is None:
            return ArchiveError(f"{self._name}: {message}")
        path = printable(self._current)
        return ArchiveError(f"{self._name}: {self._subject} {path}: {message}", entry=path)


def _mapped(pointer: ctypes.c_void_p) -> int | None:
    """Return the bytes of data in the entry's sparse map, as far as they lie inside of its size; None: no map."""
    offset, length = ctypes.c_int64(), ctypes.c_int64()
    arguments = ctypes.byref(offset), ctypes.byref(length)
    total = 0
    if not libarchive.entry_sparse_reset(pointer):
        return None
    while libarchive.entry_sparse_next(pointer, *arguments) == libarchive.OK:
        total += length.value
    return total


def _restored(pointer: ctypes.c_void_p, member: Member, size: int, contents: Contents) -> Entry:
    """Return what is to be restored; raises ValueError with what cannot be."""
    records = member.records
    mode = libarchive.entry_mode(pointer)
    hard_link = libarchive.entry_hardlink(pointer) if member.names_link else None
    link = hard_link or (libarchive.entry_symlink(pointer) if member.names_link else None) or b""
    kind = 0 if hard_link is not None else stat.S_IFMT(mode)
    attributes = xattrs(records)
    mtime = records.get(b"mtime")
    mtime_ns = nanoseconds(mtime) if mtime else libarchive.entry_mtime(pointer) * 1_000_000_000
    atime = records.get(b"atime")
    path = records.get(b"GNU.sparse.name") or records.get(b"path") or libarchive.entry_pathname(pointer) or b""
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(mode),
        uid=member.owner,
        gid=member.group,
        mtime_ns=mtime_ns,
        atime_ns=nanoseconds(atime) if atime else mtime_ns,
        size=size,
        link=(records.get(b"linkpath") or link) if link else b"",
        device=member.device,
        xattrs=attributes,
        acls=acls(records, attributes, kind=kind),
        contents=contents,
    )


def _check_sizes(entry: Entry, member: Member) -> None:
    if not entry.path or b"\0" in entry.path or b"\0" in entry.link:
        raise ValueError("its name is empty or has a null byte in it")
    if entry.kind not in _KINDS and not entry.is_hard_link:
        raise ValueError("its type is none that can be unpacked")
    for what, number in (("owner", entry.uid), ("group", entry.gid)):
        if not 0 <= number <= _HIGHEST_ID:
            raise ValueError(f"its {what} is {number}; expected a number from 0 to {_HIGHEST_ID}")
    if entry.kind != stat.S_IFREG:
        return
    if entry.size < 0:
        raise ValueError("its size is negative")
    size = member.stored_size if member.real_size is None else member.real_size
    if entry.size != size:
        raise ValueError(
            f"libarchive reads its size as {entry.size} where the header has {size}; "
            f"libarchive {libarchive.version()} cannot unpack this archive"
        )
