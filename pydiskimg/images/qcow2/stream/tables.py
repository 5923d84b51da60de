# SPDX-License-Identifier: MIT
"""The beginning of a streamed qcow2: header and tables, read before the first byte of data.

The refcount table and the L1 table show whether all tables come first: with the header, they and the tables that they
name must fill the file from its start without a gap. Nothing else is read, even if a header claims more.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import Protocol

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import Header, read_header, require_readable, require_sound
from pydiskimg.images.qcow2.stream.checksums import checksum_of_tables, find_checks
from pydiskimg.images.qcow2.stream.layout import TABLES_LIMIT
from pydiskimg.images.qcow2.stream.spool import Spool
from pydiskimg.protocols import Source, WritableBuffer, read_bytes
from pydiskimg.text import quoted
from pydiskimg.units import MIB, format_bytes

_PIECE = MIB
_NEVER_ENDS = 1 << 63


class Front(Protocol):
    """A source that is read from start to end: a pipe."""

    @property
    def name(self) -> str: ...

    @property
    def position(self) -> int:
        """Bytes read so far."""

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; less only where the stream ends."""


class Prefix(Source):
    """A Source over the beginning of a stream, read on demand, up to limit (bytes).

    Its size is that of the whole file, which is unknown for a stream: larger than any number.
    """

    name: str
    size = _NEVER_ENDS

    def __init__(self, front: Front, spool: Spool) -> None:
        self.name = front.name
        self.limit = 1 << layout.MAX_CLUSTER_BITS
        self._front = front
        self._spool = spool

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        end = offset + len(buffer)
        if end > self.limit:
            raise InvalidImageError(
                f"{self.name}: a table at byte {offset} is not among those that come before the data, which end at "
                f"{self.limit}; the stream is corrupt"
            )
        self.fetch(end)
        buffer[:] = self._spool.read(offset, len(buffer))

    def fetch(self, end: int) -> None:
        """Read the bytes before end."""
        while (missing := end - self._spool.size) > 0:
            read_exactly(self._front, memoryview(piece := bytearray(min(missing, _PIECE))))
            self._spool.append(piece)


def read_exactly(front: Front, buffer: memoryview) -> None:
    """Fill the buffer. Raises InvalidImageError when the stream ends before that."""
    if front.read_into(buffer) < len(buffer):
        raise InvalidImageError(
            f"{front.name}: the stream ends after {front.position} bytes, in the middle of the image; "
            "its sender has failed or was interrupted"
        )


def read_stream_header(prefix: Prefix) -> Header:
    """Read and check the header, the first part of the stream.

    Raises InvalidImageError and UnsupportedImageError as read_header() does, and for features that a stream cannot
    have.
    """
    header, name = read_header(prefix), prefix.name
    require_sound(header, name)
    require_readable(header, name)
    if header.backing_file is not None:
        raise _unfit(name, f"has the backing file {quoted(header.backing_file)}")
    if header.has_data_file:
        raise _unfit(name, "keeps its data in an external file")
    if header.nb_snapshots:
        raise _unfit(name, "holds internal snapshots")
    if header.extended_l2:
        raise _unfit(name, "has extended L2 entries (subclusters)", "or send it with: pydiskimg convert -O qcow2 SRC -")
    return header


def fetch_tables(prefix: Prefix, header: Header, *, limit: int = TABLES_LIMIT) -> int:
    """Read all tables and return the offset of the data (bytes); after that nothing else is read through prefix.

    Raises InvalidImageError when the tables do not come first, UnsupportedImageError when they are larger than limit.
    """
    cluster_size = header.cluster_size
    l1_length = -(-header.l1_size * layout.ENTRY_SIZE // cluster_size) * cluster_size
    table_length = header.refcount_table_clusters * cluster_size
    ends = [cluster_size, header.refcount_table_offset + table_length]
    if l1_length:
        ends.append(header.l1_table_offset + l1_length)
    # Refcount blocks and L2 tables may precede the tables that name them, so their number is not known yet.
    most = cluster_size + table_length + l1_length
    most += (table_length // layout.ENTRY_SIZE + header.l1_size) * cluster_size
    if max(ends) > most:
        raise _no_stream(prefix.name, max(ends))
    _check_limit(prefix.name, max(ends), limit)
    prefix.limit = max(ends)
    blocks, blocks_end = _named(prefix, header.refcount_table_offset, table_length, cluster_size)
    tables, tables_end = _named(prefix, header.l1_table_offset, header.l1_size * layout.ENTRY_SIZE, cluster_size)
    end = max(*ends, blocks_end, tables_end)
    if end != cluster_size + table_length + l1_length + (blocks + tables) * cluster_size:
        raise _no_stream(prefix.name, end)
    _check_limit(prefix.name, end, limit)
    prefix.limit = end
    prefix.fetch(end)
    return end


def read_checks(prefix: Prefix, header: Header, end: int) -> bool:
    """Return True if a checksum follows each compressed cluster, after the tables, up to end (bytes), were read.

    Raises InvalidImageError if the stream has a wrong checksum of the tables.
    """
    checks = find_checks(read_bytes(prefix, 0, header.cluster_size), header.header_length)
    if checks is None:
        return False
    pieces = (read_bytes(prefix, at, min(_PIECE, end - at)) for at in range(0, end, _PIECE))
    found = checksum_of_tables(pieces, header.header_length)
    if found != checks.tables:
        raise InvalidImageError(
            f"{prefix.name}: the header and the tables have the checksum 0x{found:08x}, expected "
            f"0x{checks.tables:08x}; the stream is corrupt, or is an image file that was changed: make a new stream of "
            "it with pydiskimg convert -O qcow2 SRC -"
        )
    return checks.clusters


def _named(prefix: Prefix, offset: int, length: int, cluster_size: int) -> tuple[int, int]:
    """Return how many clusters a table names, and the end of the last of them."""
    count = last = 0
    for start in range(0, length, _PIECE):
        entries = array("Q", read_bytes(prefix, offset + start, min(_PIECE, length - start)))
        if zeros := entries.count(0):
            if zeros == len(entries):
                continue
            entries = array("Q", filter(None, entries))
        if sys.byteorder == "little":
            entries.byteswap()
        count += len(entries)
        last = max(last, *(entry & layout.ENTRY_OFFSET for entry in entries))
    return count, last + cluster_size if count else 0


def _check_limit(name: str, end: int, limit: int) -> None:
    if end > limit:
        raise UnsupportedImageError(
            f"{name}: has {format_bytes(end)} of tables before its data, and at most {format_bytes(limit)} are read; "
            "use a larger cluster size"
        )


def _no_stream(name: str, end: int) -> InvalidImageError:
    return InvalidImageError(
        f"{name}: is a qcow2 image whose tables do not all come before its data (the last one ends at byte {end}), so "
        "it cannot be read from a pipe; save it in a file and read that (if standard input is a file, /dev/stdin "
        "reads it as one), or make it with: pydiskimg convert -O qcow2 SRC -"
    )


def _unfit(name: str, what: str, advice: str = "") -> UnsupportedImageError:
    text = f"{name}: {what}, which cannot be read from a pipe; save it in a file and read that"
    return UnsupportedImageError(", ".join(filter(None, (text, advice))))
