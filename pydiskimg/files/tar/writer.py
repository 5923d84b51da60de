# SPDX-License-Identifier: MIT
"""Entries packed into a tar archive by libarchive: pax headers, with nanoseconds, attributes, ACLs and holes."""

from __future__ import annotations

import ctypes
import mmap
import stat
from collections.abc import Iterable
from contextlib import closing

from pydiskimg.errors import ArchiveError, StorageError, storage_error
from pydiskimg.files.entry import Entry
from pydiskimg.files.tar import libarchive
from pydiskimg.linux.charset import utf8_locale
from pydiskimg.text import printable

_BLOCK = 1 << 20  # written at once
_ZEROS = 1 << 26  # of a hole, of which nothing is read
_NANOSECONDS = 1_000_000_000
_NOT_UTF8 = b"to UTF-8"  # the name is written as it is, and its header says so


def write_archive(entries: Iterable[Entry], fd: int, name: str) -> int:
    """Write entries to fd as a tar archive in pax format and return how many sockets, which no tar holds, are missing.

    name is what messages call it; fd stays open. Raises ArchiveError for an entry that tar has no form for,
    StorageError when the system refuses, and what the entries' contents raise.
    """
    left_out = 0
    with utf8_locale(), closing(_Writer(fd, name)) as writer:
        for entry in entries:
            if stat.S_ISSOCK(entry.kind):
                left_out += 1
            else:
                writer.write(entry)
        writer.finish()
    return left_out


class _Writer:
    def __init__(self, fd: int, name: str) -> None:
        self._name = name
        self._archive = libarchive.write_new()
        self._entry = libarchive.entry_new()
        # An anonymous mapping takes no memory where it is not touched.
        self._zeros = mmap.mmap(-1, _ZEROS)
        self._zeros_at = ctypes.addressof(ctypes.c_char.from_buffer(self._zeros))
        self._done(libarchive.write_set_format_pax(self._archive))
        # As star and GNU tar spell attributes; libarchive's own spelling besides would be a warning of GNU tar each.
        self._done(libarchive.write_set_options(self._archive, b"pax:xattrheader=SCHILY"))
        self._done(libarchive.write_add_filter_none(self._archive))
        self._done(libarchive.write_set_bytes_per_block(self._archive, _BLOCK))
        self._done(libarchive.write_set_bytes_in_last_block(self._archive, 1))
        self._done(libarchive.write_open_fd(self._archive, fd))

    def close(self) -> None:
        libarchive.entry_free(self._entry)
        libarchive.write_free(self._archive)

    def finish(self) -> None:
        self._done(libarchive.write_close(self._archive))

    def write(self, entry: Entry) -> None:
        self._describe(entry)
        is_file = stat.S_ISREG(entry.kind)
        if is_file:
            self._mark_holes(entry)
        status = libarchive.write_header(self._archive, self._entry)
        if status != libarchive.OK and not (status == libarchive.WARN and _NOT_UTF8 in self._error()):
            raise self._failed(entry)
        if is_file:
            self._write_contents(entry)

    def _describe(self, entry: Entry) -> None:
        at = libarchive.entry_clear(self._entry)
        libarchive.entry_set_pathname(at, entry.path + (b"/" if entry.is_directory else b""))
        libarchive.entry_set_perm(at, entry.mode)
        for set_id, number in ((libarchive.entry_set_uid, entry.uid), (libarchive.entry_set_gid, entry.gid)):
            set_id(at, number)
        libarchive.entry_set_mtime(at, *divmod(entry.mtime_ns, _NANOSECONDS))
        libarchive.entry_set_atime(at, *divmod(entry.atime_ns, _NANOSECONDS))
        if entry.is_hard_link:
            libarchive.entry_set_filetype(at, stat.S_IFREG)
            libarchive.entry_set_hardlink(at, entry.link)
            return
        libarchive.entry_set_filetype(at, entry.kind)
        if stat.S_ISLNK(entry.kind):
            libarchive.entry_set_symlink(at, entry.link)
        if stat.S_ISREG(entry.kind):
            libarchive.entry_set_size(at, entry.size)
        if stat.S_ISCHR(entry.kind) or stat.S_ISBLK(entry.kind):
            libarchive.entry_set_rdevmajor(at, entry.device[0])
            libarchive.entry_set_rdevminor(at, entry.device[1])
        for name, value in entry.xattrs.items():
            libarchive.entry_xattr_add_entry(at, name, value, len(value))
        for name, entries in entry.acls.items():
            for acl in entries:
                number = acl.qualifier if isinstance(acl.qualifier, int) else -1
                kind, tag = libarchive.ACL_TYPES[name], libarchive.ACL_TAGS[acl.word, acl.qualifier is not None]
                libarchive.entry_acl_add_entry(at, kind, acl.bits, tag, number, None)

    def _mark_holes(self, entry: Entry) -> None:
        """Tell libarchive where a file with holes has data; a file without them says nothing."""
        if entry.data is None or (len(entry.data) == 1 and entry.data[0] == (0, entry.size)):
            return
        for start, length in entry.data:
            libarchive.entry_sparse_add_entry(self._entry, start, length)
        if entry.size and not entry.data:
            libarchive.entry_sparse_add_entry(self._entry, entry.size, 0)

    def _write_contents(self, entry: Entry) -> None:
        end = 0
        for offset, data in entry.contents:
            self._write_zeros(entry, offset - end)
            address = ctypes.addressof(ctypes.c_char.from_buffer(data))
            self._write_data(entry, address, len(data))
            end = offset + len(data)
        self._write_zeros(entry, entry.size - end)

    def _write_zeros(self, entry: Entry, length: int) -> None:
        while length > 0:
            self._write_data(entry, self._zeros_at, min(length, _ZEROS))
            length -= _ZEROS

    def _write_data(self, entry: Entry, address: int, length: int) -> None:
        while length:
            done = libarchive.write_data(self._archive, address, length)
            if done <= 0:
                raise self._failed(entry)
            address, length = address + done, length - done

    def _error(self) -> bytes:
        return libarchive.error_string(self._archive) or b"libarchive does not say why"

    def _done(self, status: int) -> None:
        if status != libarchive.OK:
            raise self._failed(None)

    def _failed(self, entry: Entry | None) -> ArchiveError | StorageError:
        number = libarchive.error_number(self._archive)
        if number > 0:
            return storage_error(OSError(number, ""), self._name, "cannot write the archive")
        where = f"{self._name}: entry {printable(entry.path)}" if entry else self._name
        return ArchiveError(f"{where}: cannot be packed: {printable(self._error())}")
