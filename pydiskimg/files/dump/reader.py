# SPDX-License-Identifier: MIT
"""A dump read from start to end: its description, its map, and one inode after the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.files.acl import AclEntry, check, is_minimal
from pydiskimg.files.dump import attributes
from pydiskimg.files.dump.blocks import compressed_chunks, plain_chunks
from pydiskimg.files.dump.layout import (
    DR_COMPRESSED,
    DR_EXTATTRIBUTES,
    DR_METAONLY,
    DR_NEWINODEFMT,
    EXT_XATTR,
    FS_UFS2_MAGIC,
    MAGIC_OFFSET,
    NFS_MAGIC,
    OFS_MAGIC,
    SPCL,
    TP_BSIZE,
    TS_ADDR,
    TS_BITS,
    TS_CLRI,
    TS_END,
    TS_INODE,
    TS_TAPE,
    Spcl,
    sum_is_right,
)
from pydiskimg.files.dump.record_runs import Run, attribute_records, runs
from pydiskimg.files.dump.tape import Input, Tape
from pydiskimg.text import printable

_LARGEST_TAPE_BLOCK = 1024  # records; the option -b accepts no more
_LARGEST_MAP = 64 << 20  # bytes: half a thousand million inodes, of 8 TiB with mke2fs's defaults
_LARGEST_ATTRIBUTES = 64  # records: an attribute block is one block of the file system
_ATTRIBUTE_SLOTS = 2  # in the inode, and a block
_EXT4_INLINE_DATA_FL = 0x10000000


class Readable(Protocol):
    """An object with a file's read(): at most size bytes, b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Inode:
    """One file of a dump; header is its TS_INODE record. The other fields are known once its contents were read.

    acls excludes those that add nothing to the mode; inline is the part of an inline file that is in its attributes.
    """

    header: Spcl
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    acls: dict[bytes, list[AclEntry]] = field(default_factory=dict)
    inline: bytes = b""

    @property
    def number(self) -> int:
        return self.header.c_inumber

    @property
    def kind(self) -> int:
        """One of the S_IF constants of stat."""
        return stat.S_IFMT(self.header.di_mode)

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.header.di_mode)

    @property
    def size(self) -> int:
        return self.header.di_size

    @property
    def is_inline(self) -> bool:
        """True if ext4 keeps the contents in the inode (inline_data)."""
        return self.header.di_flags & _EXT4_INLINE_DATA_FL != 0 and self.kind in (stat.S_IFREG, stat.S_IFLNK)

    def inline_contents(self) -> bytes:
        """Return the contents of such a file: i_block and the attribute system.data. Raises ValueError.

        dump(8) does not look for them there and writes a hole, which restore(8) restores as zeros; but both parts are
        in the dump.
        """
        data = self.header.di_block + self.inline
        if len(data) < self.size:
            raise ValueError(f"{len(data)} of its {self.size} bytes are in the inode; the others are not in the dump")
        return data[: self.size]


class DumpReader:
    """A dump of level 0 that is being read. open_dump() returns it; a context manager.

    date is seconds since 1970; label, filesystem (where it was mounted), device and host are what dump(8) recorded, as
    text that is safe in messages. consumed is the number of bytes of the stored dump that were read so far. close()
    stops the threads that decompress; the stream stays the caller's.

    >>> from pydiskimg import open_dump
    >>> with open("root.dump", "rb") as file, open_dump(file, "root.dump") as reader:
    ...     isinstance(reader.date, int), reader.consumed > 0
    (True, True)
    """

    def __init__(self, name: str, stored: Input, tape: Tape, first: Spcl) -> None:
        self.name = name
        self.date = first.c_date
        self.label = _text(first.c_label)
        self.filesystem = _text(first.c_filesys)
        self.device = _text(first.c_dev)
        self.host = _text(first.c_host)
        self.order = tape.order
        self._stored = stored
        self._tape = tape
        self._next = first
        self._inode: Inode | None = None
        self._unread = False

    @property
    def consumed(self) -> int:
        """Bytes of the stored dump that were read so far, including those read ahead."""
        return self._stored.consumed

    def close(self) -> None:
        """Stop the threads that read ahead. May be called repeatedly."""
        self._tape.close()

    def __enter__(self) -> DumpReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read_map(self) -> bytes:
        """Return TS_BITS: bit 0 of byte 0 is set when inode 1 is in this dump, and so on."""
        self._advance()  # skip TS_TAPE
        self._map(TS_CLRI)
        return self._map(TS_BITS)

    def inodes(self) -> Iterator[Inode]:
        """Yield each inode; read its contents() before the next, or they are skipped.

        Ends after the end mark, when the stream was read to its end. Raises InvalidImageError.
        """
        while self._next.c_type == TS_INODE:
            header = self._next
            if header.c_flags & DR_EXTATTRIBUTES:
                raise self.error("extended attributes without a file before them")
            if header.c_flags & DR_METAONLY:
                raise self.error(
                    f"inode {header.c_inumber} comes without its contents, which does not occur in a dump of level 0"
                )
            self._inode = Inode(header)
            self._unread = True
            yield self._inode
            if self._unread:
                for _ in self.contents():
                    pass
        if self._next.c_type != TS_END:
            raise self.error(f"a record of the type {self._next.c_type}, expected a file or the end mark")
        self._tape.drain()

    def contents(self) -> Iterator[tuple[int, memoryview]]:
        """Yield (offset, bytes) of the current inode's contents, ascending, with holes between them.

        The inode's attributes are complete when this has ended.
        """
        if self._inode is None or not self._unread:
            return
        self._unread = False
        header = self._inode.header
        size = header.di_size
        position = 0
        while True:
            for count, has_data in self._runs(header):
                if not has_data:
                    position += count * TP_BSIZE
                    continue
                for piece in self._tape.data(count):
                    if position < size:
                        yield position, piece[: size - position]
                    position += len(piece)
            self._advance()
            if self._next.c_type != TS_ADDR:
                break
            if self._next.c_inumber != header.c_inumber:
                raise self.error(f"inode {self._next.c_inumber} continues, expected {header.c_inumber} to continue")
            header = self._next
        if position < size:
            raise self.error(f"inode {header.c_inumber} ends after {position} of {size} bytes")
        self._attributes(self._inode)

    def error(self, what: str) -> InvalidImageError:
        """Return an error with the location in the dump."""
        return InvalidImageError(f"{self.name}: before record {self._tape.record}: {what}; the dump is damaged")

    def _runs(self, header: Spcl) -> list[Run]:
        try:
            return runs(header)
        except ValueError as error:
            raise self.error(f"inode {header.c_inumber}: {error}") from error

    def _attributes(self, inode: Inode) -> None:
        slots = 0
        seen: set[bytes] = set()
        while self._next.c_type == TS_INODE and self._next.c_flags & DR_EXTATTRIBUTES:
            header = self._next
            if header.c_inumber != inode.number:
                raise self.error(f"attributes of inode {header.c_inumber} come after inode {inode.number}")
            if header.c_extattributes != EXT_XATTR:
                raise UnsupportedImageError(
                    f"{self.name}: inode {inode.number} has extended attributes of the kind {header.c_extattributes}, "
                    "which are from Mac OS X; only Linux's are restored"
                )
            slots += 1
            try:
                count = attribute_records(header)
                if slots > _ATTRIBUTE_SLOTS or not 0 < count <= _LARGEST_ATTRIBUTES:
                    raise self.error(f"inode {inode.number} has more extended attributes than possible")
                data = b"".join(self._tape.data(count))
                found, acls = attributes.decode(data[: header.di_size])
                for name, entries in acls.items():
                    check(name, entries, is_directory=inode.kind == stat.S_IFDIR)
            except ValueError as error:
                raise self.error(f"inode {inode.number}: {error}") from error
            names = found.keys() | acls.keys()
            if names & seen:
                raise self.error(f"inode {inode.number} has an extended attribute twice")
            seen |= names
            inode.inline += found.pop(attributes.INLINE_DATA, b"")
            inode.xattrs.update(found)
            inode.acls.update({name: entries for name, entries in acls.items() if not is_minimal(name, entries)})
            self._advance()

    def _map(self, kind: int) -> bytes:
        word = "TS_BITS" if kind == TS_BITS else "TS_CLRI"
        if self._next.c_type != kind:
            raise self.error(f"a record of the type {self._next.c_type}, expected the map {word}")
        parts: list[memoryview] = []
        length = 0
        while True:
            count = self._next.c_count
            if not 0 <= count <= (_LARGEST_MAP - length) // TP_BSIZE:
                raise self.error(f"the map {word} has {count} records, more than an ext file system has inodes for")
            if kind == TS_BITS:
                parts += self._tape.data(count)
            else:
                for _ in self._tape.data(count):
                    pass
            length += count * TP_BSIZE
            self._advance()
            if self._next.c_type != TS_ADDR:
                return b"".join(parts)

    def _advance(self) -> None:
        record = self._tape.record
        header = self._tape.header()
        if header.c_magic != NFS_MAGIC or header.c_tapea != record & 0xFFFFFFFF or header.c_volume != 1:
            raise self.error(f"a header that says it is record {header.c_tapea} of volume {header.c_volume}")
        if header.c_date != self.date:
            raise self.error(f"a header of another dump (date {header.c_date}, expected {self.date})")
        self._next = header


def open_dump(stream: int | Readable, name: str) -> DumpReader:
    """Begin to read a dump that dump(8) made.

    stream is a descriptor, or an object with a file's read(); it stays the caller's. name is what messages call it. The
    first record is read at once (the first block of a compressed dump), so that another file is refused before anything
    has changed. Pass the result to restore_dump().

    Raises InvalidImageError for a file that is not a dump, UnsupportedImageError for a level above 0, several volumes
    or another system's dump, and StorageError.

    >>> import os
    >>> from pydiskimg import open_dump, restore_dump
    >>> os.mkdir("restored")
    >>> with open("root.dump", "rb") as file, open_dump(file, "root.dump") as reader:
    ...     restored = restore_dump(reader, "restored")
    >>> restored.files > 0
    True
    """
    if isinstance(stream, int):
        descriptor = stream
        stored = Input(lambda size: os.read(descriptor, size), name)
    else:
        stored = Input(stream.read, name)
    record = stored.up_to(TP_BSIZE)
    first, order = _first_header(record, name)
    _check_supported(first, name)
    if first.c_flags & DR_COMPRESSED:
        chunks = compressed_chunks(
            stored, _first_block(stored, record, first), block_size=first.c_ntrec * TP_BSIZE, order=order
        )
    else:
        chunks = plain_chunks(stored, record)
    tape = Tape(chunks, name=name, order=order)
    try:
        return DumpReader(name, stored, tape, tape.header())
    except BaseException:
        tape.close()
        raise


def _first_header(record: bytes, name: str) -> tuple[Spcl, str]:
    if len(record) < TP_BSIZE:
        raise InvalidImageError(f"{name}: has {len(record)} bytes; a dump has at least {TP_BSIZE}")
    for order in "<>":
        magic = int.from_bytes(record[MAGIC_OFFSET : MAGIC_OFFSET + 4], "little" if order == "<" else "big")
        if magic in (OFS_MAGIC, FS_UFS2_MAGIC):
            raise UnsupportedImageError(f"{name}: is a dump by another system than Linux (magic {magic:#x})")
        if magic == NFS_MAGIC:
            if not sum_is_right(record, order):
                raise InvalidImageError(f"{name}: the checksum of the first record is wrong; the dump is damaged")
            return Spcl._make(SPCL[order].unpack(record)), order
    raise InvalidImageError(f"{name}: is not a dump: the magic number {NFS_MAGIC} is not at byte {MAGIC_OFFSET}")


def _check_supported(first: Spcl, name: str) -> None:
    if first.c_type != TS_TAPE or (first.c_tapea and first.c_volume == 1):
        raise InvalidImageError(f"{name}: begins with record {first.c_tapea} of the type {first.c_type}, not a dump's")
    if first.c_volume != 1:
        raise UnsupportedImageError(
            f"{name}: is volume {first.c_volume} of a dump; dumps of several volumes are not read"
        )
    if first.c_level or first.c_ddate:
        raise UnsupportedImageError(
            f"{name}: is a dump of level {first.c_level}, which contains only changes; a dump of level 0 is needed"
        )
    if not first.c_flags & DR_NEWINODEFMT:
        raise UnsupportedImageError(f"{name}: has inodes as before 4.4BSD, which dump(8) of Linux does not write")


def _first_block(stored: Input, record: bytes, first: Spcl) -> bytes:
    if not 0 < first.c_ntrec <= _LARGEST_TAPE_BLOCK:
        raise InvalidImageError(
            f"{stored.name}: says that its tape blocks have {first.c_ntrec} records; "
            f"expected 1 to {_LARGEST_TAPE_BLOCK}"
        )
    block = record + stored.up_to((first.c_ntrec - 1) * TP_BSIZE)
    if len(block) < first.c_ntrec * TP_BSIZE:
        raise InvalidImageError(f"{stored.name}: the dump ends within its first tape block; it is truncated")
    return block


def _text(note: bytes) -> str:
    return printable(note.split(b"\0", 1)[0])
