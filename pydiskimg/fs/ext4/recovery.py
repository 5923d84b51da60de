# SPDX-License-Identifier: MIT
"""A file system as it will be once its journal has been replayed; nothing is written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from operator import itemgetter

from pydiskimg.extents import Extent, Kind
from pydiskimg.fs.ext4.features import Compat, Features
from pydiskimg.fs.ext4.file_system import FileSystem, read_file_system
from pydiskimg.fs.ext4.journal_reader import Copy, Log
from pydiskimg.fs.ext4.layout import ERROR_FS
from pydiskimg.protocols import Source, WritableBuffer, check_buffer


class OverlaidSource(Source):
    """A Source over another one, with other contents of some blocks: those that _content() returns."""

    name: str
    size: int

    def __init__(self, source: Source, block_size: int) -> None:
        self.name = source.name
        self.size = source.size
        self._source = source
        self._block_size = block_size

    def extents(self) -> Iterator[Extent]:
        if self.size:
            yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        self._source.read_into(offset, buffer)
        view, size, end = memoryview(buffer), self._block_size, offset + len(buffer)
        for block in range(offset // size, -(-end // size)):
            data = self._content(block)
            if data is not None:
                first, last = max(offset, block * size), min(end, (block + 1) * size)
                view[first - offset : last - offset] = data[first - block * size : last - block * size]

    @abstractmethod
    def _content(self, block: int) -> bytes | None:
        """Return the whole contents of a block; None for the source's own."""


class RecoveredSource(OverlaidSource):
    """A Source with the blocks of the log in their final locations.

    read_into() raises NotBelievedError if the copy of a block is damaged.
    """

    def __init__(self, source: Source, log: Log, copies: dict[int, Copy], block_size: int) -> None:
        super().__init__(source, block_size)
        self._log = log
        self._copies = copies

    @property
    def next_sequence(self) -> int:
        """The number of the transaction after those of the log."""
        return self._log.next_sequence

    def check_copies(self) -> int:
        """Return how many blocks recovery writes. Raises as replayed() does if a copy is damaged."""
        return sum(1 for _ in self.replayed())

    def replayed(self) -> Iterator[tuple[int, bytes]]:
        """Yield the blocks that recovery writes, by number, ascending. Raises as read_into() does."""
        for block, copy in sorted(self._copies.items(), key=itemgetter(0)):
            yield block, self._log.content(copy)

    def _content(self, block: int) -> bytes | None:
        copy = self._copies.get(block)
        return None if copy is None else self._log.content(copy)


def after_recovery(fs: FileSystem) -> tuple[Source, int]:
    """Return the source as recovery will leave it, and how many blocks that changes; fs.source for an empty log.

    Raises NotBelievedError if the result of recovery cannot be determined, and as reading does.
    """
    if Compat.HAS_JOURNAL not in fs.geometry.features:
        if fs.needs_recovery:
            raise fs.not_believed("it needs recovery and has no journal")
        return fs.source, 0
    if not fs.superblock.journal_inode:
        if fs.needs_recovery:
            raise fs.not_believed("its journal, on another device, has changes that are not yet written back")
        return fs.source, 0
    log = Log(fs)
    if log.error or fs.state & ERROR_FS:
        raise fs.not_believed("the kernel has seen errors in it, and it was not checked since")
    if fs.needs_recovery and log.has_fast_commits:
        raise fs.not_believed("it needs recovery by fast commits, which are not read here")
    if not log.start:
        return fs.source, 0
    if not fs.needs_recovery:
        raise fs.not_believed("its journal has changes, although its superblock says that it has none")
    copies = log.copies()
    return RecoveredSource(fs.source, log, copies, fs.geometry.block_size), len(copies)


def recovered(fs: FileSystem, known: Features) -> FileSystem:
    """Return the file system as mounting it would leave it; fs itself if its journal has no changes.

    Unlike after_recovery() it ignores errors that the kernel has recorded, and a log that the superblock does not
    announce. Raises NotBelievedError if the log is damaged, on another device, or has fast commits, and as reading
    does.
    """
    if not fs.needs_recovery:
        return fs
    if not fs.superblock.journal_inode:
        raise fs.not_believed("it needs recovery by a journal that is not in it")
    log = Log(fs)
    if not log.start:
        return fs
    copies = log.copies()
    if log.holds_fast_commits():
        raise fs.not_believed("it needs recovery by fast commits, which are not read here")
    source = RecoveredSource(fs.source, log, copies, fs.geometry.block_size)
    return read_file_system(source, known)
