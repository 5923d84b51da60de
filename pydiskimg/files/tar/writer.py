# SPDX-License-Identifier: MIT
"""Pack entries into a tar archive: pax headers, with nanoseconds, attributes, ACLs and holes."""

from __future__ import annotations

import stat

from pydiskimg.errors import ArchiveError
from pydiskimg.files.tar.headers import KINDS, SparseMap, member_headers
from pydiskimg.files.tar.layout import BLOCK
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable
from pydiskimg.transfer.pipe import PipeWriter
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydiskimg.files.entry import Entry
    from pydiskimg.protocols import Buffer

_COLLECTED = 256 * KIB  # bytes that are written at once; they fit in a processor's cache
_LARGE = 32 * KIB  # a piece that is not worth copying
_PADDING = bytes(BLOCK)
_END = bytes(2 * BLOCK)


def write_archive(entries: Iterable[Entry], fd: int, name: str) -> int:
    """Write entries to fd as a tar archive in pax format; return the number of sockets, which tar cannot store.

    name is its name in messages; fd stays open. Raises ArchiveError for an entry that tar cannot store or whose
    contents do not match its size, StorageError when a write fails, and as reading the contents does.
    """
    left_out = 0
    archive = _Archive(PipeWriter(fd, name))
    for entry in entries:
        if entry.kind == stat.S_IFSOCK:
            left_out += 1
        else:
            archive.add(entry)
    archive.finish()
    return left_out


class _Archive:
    def __init__(self, output: PipeWriter) -> None:
        self._output = output
        self._collected = memoryview(bytearray(_COLLECTED))
        self._filled = 0

    def add(self, entry: Entry) -> None:
        if entry.kind not in KINDS:
            raise self._failed(entry, f"tar cannot store a file of type {entry.kind:#o}")
        if entry.kind != stat.S_IFREG:
            self._put(member_headers(entry))
        elif entry.data is None or (len(entry.data) == 1 and entry.data[0] == (0, entry.size)) or not entry.size:
            self._put(member_headers(entry))
            self._add_contents(entry)
        else:
            sparse = SparseMap(entry.data, entry.size)
            self._put(member_headers(entry, sparse))
            self._put(sparse.text)
            self._add_sparse(entry, sparse)

    def finish(self) -> None:
        self._put(_END)
        self._flush()

    def _add_contents(self, entry: Entry) -> None:
        size = entry.size
        end = moved = self._moved(entry)
        for offset, data in entry.contents if moved < size else ():
            if offset < moved:
                offset, data = moved, data[moved - offset :]  # noqa: PLW2901
                if not data:
                    continue
            if offset < end or offset + len(data) > size:
                raise self._failed(entry, "its contents do not have its size")
            if offset > end:
                self._put_zeros(offset - end)
            self._put(data)
            end = offset + len(data)
        self._put_zeros(size - end + -size % BLOCK)

    def _moved(self, entry: Entry) -> int:
        """Move contents, or the first part of them, without reading them; return how many bytes that were."""
        if not entry.ranges or not self._output.can_move:
            return 0
        if sum(length for _, _, length in entry.ranges) != entry.size:
            raise self._failed(entry, "its contents do not have its size")
        self._flush()
        return self._output.move(entry.ranges)

    def _add_sparse(self, entry: Entry, sparse: SparseMap) -> None:
        done = 0
        for offset, data in entry.contents:
            before, after = sparse.stored_before(offset), sparse.stored_before(offset + len(data))
            if before < done or after - before != len(data):
                raise self._failed(entry, "its contents are not at the stated offsets")
            self._put_zeros(before - done)
            self._put(data)
            done = after
        self._put_zeros(sparse.stored - done + -sparse.stored % BLOCK)

    def _put(self, data: Buffer) -> None:
        end = self._filled + len(data)
        if end > _COLLECTED or len(data) >= _LARGE:
            self._flush()
            if len(data) >= _LARGE:
                self._output.write(data)
                return
            end = len(data)
        self._collected[self._filled : end] = data
        self._filled = end

    def _put_zeros(self, length: int) -> None:
        if length <= BLOCK:
            self._put(_PADDING[:length])
        else:
            self._flush()
            self._output.zeros(length)

    def _flush(self) -> None:
        if self._filled:
            self._output.write(self._collected[: self._filled])
            self._filled = 0

    def _failed(self, entry: Entry, why: str) -> ArchiveError:
        return ArchiveError(f"{self._output.name}: entry {printable(entry.path)}: cannot be packed: {why}")
