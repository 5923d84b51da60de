# SPDX-License-Identifier: MIT
"""Correct entries of L2 tables whose errors are harmless, in place: one write of 8 bytes each."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import cast

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check.areas import Areas
from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.refcount_reader import read_padded
from pydiskimg.images.qcow2.words import is_zero, numbers
from pydiskimg.protocols import Source, Store
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.header import Header

_PIECE = 1 << 20


def mend_entries(store: Store) -> None:
    """Correct such entries in the tables of the disk and of all snapshots; durable on return.

    These are the copied flag of a compressed cluster, and an invalid offset of a cluster without data. A check has
    found that the L1 tables are valid. Raises as reading and writing do.
    """
    header = read_header(store, tables_inside=False)
    file = cast("Source", store)
    suspicious = layout.L2_COMPRESSED | layout.ENTRY_OFFSET & (header.cluster_size - 1)
    for offset in _tables(file, header):
        raw = read_padded(file, offset, header.cluster_size)
        if is_zero(raw):
            continue
        words = numbers(raw)
        step = header.l2_entry_size // layout.ENTRY_SIZE
        if not reduce(or_, words[::step]) & suspicious:
            continue
        for index in range(0, len(words), step):
            entry = words[index]
            if entry and (new := _mended(entry, words[index + 1] if step > 1 else None, header)) != entry:
                store.write(offset + index * layout.ENTRY_SIZE, new.to_bytes(layout.ENTRY_SIZE, "big"))
    store.flush()


def _mended(entry: int, bitmap: int | None, header: Header) -> int:
    if entry & layout.L2_COMPRESSED:
        return entry & ~layout.COPIED
    is_unused = entry & layout.L2_ZERO if bitmap is None else not bitmap & layout.SUBCLUSTERS_ALLOCATED
    if is_unused and entry & layout.ENTRY_OFFSET & (header.cluster_size - 1):
        return entry & layout.L2_ZERO if bitmap is None else 0
    return entry


def _tables(file: Source, header: Header) -> Iterator[int]:
    """Yield the offset of each L2 table once."""
    areas = Areas(file, header, CheckResult())
    found: set[int] = set()
    for table in (areas.active_table, *areas.snapshot_tables):
        length = table.entries * layout.ENTRY_SIZE
        for at in range(0, length, _PIECE):
            entries = numbers(read_padded(file, table.offset + at, min(_PIECE, length - at)))
            found.update(entry & layout.ENTRY_OFFSET for entry in entries if entry)
    found.discard(0)
    yield from sorted(found)
