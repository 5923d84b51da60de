# SPDX-License-Identifier: MIT
"""The locations of the guest's bytes in one layer of a qcow2 image, including zeros that have an offset.

A small image can have millions of rows, too many for a step each: they are columns, a list for each field.
"""

from __future__ import annotations

from _operator import ne, sub  # operator.py only re-exports them
from itertools import chain, compress, islice, repeat

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO, runs_of_kinds
from pydiskimg.images.qcow2.words import combined, common
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.l2_tables import L2Table
    from pydiskimg.images.qcow2.mapping import Mapping

    Piece: TypeAlias = tuple[int, int, int, int]
    """start, length, flags, and the host offset of the first byte (with HAS_OFFSET)."""

    Columns: TypeAlias = tuple[list[int], list[int], list[int], list[int]]
    """The fields of one piece or more, in order: starts, lengths, flags, host offsets."""

# Properties of a piece, combined as flags. HOLE is none of the first three.
IS_ZERO, IS_DATA, IS_COMPRESSED, HAS_OFFSET = 1, 2, 4, 8

_FLAGS = {HOLE: 0, ZERO: IS_ZERO, DATA: IS_DATA, COMPRESSED: IS_DATA | IS_COMPRESSED}
_OF_KIND = bytes(_FLAGS.get(kind, 0) for kind in range(256))
_OFFSET_FLAG = bytes((0, HAS_OFFSET)).ljust(256, b"\0")
_AS_FOUND = bytes(range(16))

# Maps the flags of a whole cluster to those that its subclusters have because of it.
_WHOLE = bytes(flags & (HAS_OFFSET if not flags & IS_COMPRESSED else 0xFF) for flags in range(16)).ljust(256, b"\0")
_NOT_NONE = bytes((0, *[1] * 255))
_OF_ALL = [bytes((flags,)) * layout.SUBCLUSTERS for flags in range(16)]
_AT_FIRST = [bytes((mark,)).ljust(layout.SUBCLUSTERS, b"\0") for mark in range(2)]

_MOST = 2048  # clusters that are one step
_SPARSE = 8  # clusters in a run on average: then one run after the other takes less time than all clusters at once


def host_ranges(mapping: Mapping, offset: int, length: int) -> Iterator[Piece]:
    """Yield the pieces of [offset, offset + length), in order; neighbours may be alike.

    Errors as for Mapping.runs().
    """
    for columns in host_columns(mapping, offset, length):
        yield from zip(*columns, strict=True)


def host_columns(mapping: Mapping, offset: int, length: int, translation: bytes = _AS_FOUND) -> Iterator[Columns]:
    """Yield the pieces of host_ranges() as columns, with translation[flags] instead of the flags of each piece."""
    table_of = translation.ljust(256, b"\0")
    for start, end, table in mapping.tables(offset, length) if length else ():
        if table is None:
            yield [start], [end - start], [translation[0]], [0]
        else:
            yield from _in_table(mapping.header, table, start, end, table_of)


def _in_table(header: Header, table: L2Table, start: int, end: int, translation: bytes) -> Iterator[Columns]:
    bits, first = header.cluster_bits, start - start % header.l2_span
    for index, after in _groups(table.kinds, start - first >> bits, (end - 1 - first >> bits) + 1):
        begin = first + (index << bits)
        low, high = max(begin, start), min(first + (after << bits), end)
        if table.kinds[index] == MIXED:
            flags, breaks, hosts = _of_subclusters(header, table, index, after)
            unit = header.subcluster_size
            yield _columns(range(begin, high, unit), low, high, flags.translate(translation), breaks, hosts)
        elif _is_sparse(table.kinds[index:after]):
            yield _of_runs(header, table, index, after, first, (low, high), translation)
        else:
            yield _all_at_once(header, table, index, after, (begin, low, high), translation)


def _groups(kinds: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(index, after) of clusters that are one step; only steps that begin with a MIXED cluster contain MIXED ones."""
    if MIXED in kinds[start:end]:
        from pydiskimg.images.qcow2.mixed_runs import groups_with_mixed  # imported here: few images have subclusters

        found = groups_with_mixed(kinds, start, end)
    else:
        found = iter([(start, end)])
    for index, after in found:
        step = after - index if kinds[index] == MIXED else _MOST
        for at in range(index, after, step):
            yield at, min(at + step, after)


def _is_sparse(kinds: bytes) -> bool:
    changes = len(kinds) - _changes(kinds).count(0)
    return changes * _SPARSE < len(kinds)


def _of_runs(
    header: Header,
    table: L2Table,
    index: int,
    after: int,
    first: int,
    bounds: tuple[int, int],
    translation: bytes,
) -> Columns:
    """The pieces of [low, high) in clusters of few runs, one run after the other; first is the start of the table's
    range.
    """
    starts: list[int] = []
    lengths: list[int] = []
    flags: list[int] = []
    hosts: list[int] = []
    bits, (low, high) = header.cluster_bits, bounds
    for _, first_of_kind, after_kind in runs_of_kinds(table.kinds[index:after]):
        at, stop = index + first_of_kind, index + after_kind
        begin = first + (at << bits)
        start, end = max(begin, low), min(first + (stop << bits), high)
        if stop - at == 1 or _is_one_piece(table, at, stop):
            known, host = _one_cluster(header, table, at)
            starts.append(start)
            lengths.append(end - start)
            flags.append(translation[known])
            hosts.append(host + start - begin)
        else:
            some = _all_at_once(header, table, at, stop, (begin, start, end), translation)
            starts += some[0]
            lengths += some[1]
            flags += some[2]
            hosts += some[3]
    return starts, lengths, flags, hosts


def _one_cluster(header: Header, table: L2Table, index: int) -> tuple[int, int]:
    """The flags and the host offset of the cluster."""
    if table.kinds[index] == COMPRESSED:
        return IS_DATA | IS_COMPRESSED, 0
    host = table.host(index)
    is_located = host or (header.has_data_file and _is_first(table.entry(index)))
    return _FLAGS[table.kinds[index]] | (HAS_OFFSET if is_located else 0), host


def _is_first(entry: int) -> bool:
    """True if an L2 entry with the offset 0 refers to the first cluster of a data file, as its copied bit tells.

    For a cluster that is zero as a whole the bit does not tell; QEMU then treats it as one without an offset.
    """
    return entry & (layout.COPIED | layout.L2_ZERO) == layout.COPIED


def _is_one_piece(table: L2Table, index: int, after: int) -> bool:
    """True for clusters of one kind, read as zero or from the backing file, that have no host offsets either."""
    kind = table.kinds[index]
    if kind == HOLE and table.step == 1:
        return True
    if kind not in (HOLE, ZERO):
        return False
    return max(table.words[index * table.step : after * table.step : table.step]) <= layout.L2_ZERO


def _all_at_once(
    header: Header, table: L2Table, index: int, after: int, bounds: tuple[int, int, int], translation: bytes
) -> Columns:
    """The pieces of [low, high) in clusters none of which is MIXED; the first one begins at begin."""
    begin, low, high = bounds
    flags, breaks, hosts = _of_clusters(header, table, index, after)
    return _columns(range(begin, high, header.cluster_size), low, high, flags.translate(translation), breaks, hosts)


def _of_clusters(header: Header, table: L2Table, index: int, after: int) -> tuple[bytes, bytes, list[int]]:
    """For each cluster: the flags, 1 if its host offset does not follow the previous one's, and the host offset."""
    words = table.words[index * table.step : after * table.step : table.step]
    kinds = table.kinds[index:after]
    if COMPRESSED in kinds:
        from array import array  # imported here: it takes long to import

        words = array("Q", [0 if word & layout.L2_COMPRESSED else word for word in words])
    hosts = [word & layout.ENTRY_OFFSET for word in words]
    located = bytes(map(bool, hosts))
    if header.has_data_file and 0 in located:
        located = bytes(host > 0 or _is_first(word) for host, word in zip(hosts, words, strict=True))
    apart = bytes((0, *map(ne, map(sub, hosts[1:], hosts), repeat(header.cluster_size))))
    return combined(kinds.translate(_OF_KIND), located.translate(_OFFSET_FLAG)), common(apart, located), hosts


def _of_subclusters(header: Header, table: L2Table, index: int, after: int) -> tuple[bytes, bytes, Iterable[int]]:
    """The values of _of_clusters(), for each subcluster."""
    of_clusters, apart, hosts = _of_clusters(header, table, index, after)
    of_kinds = table.subclusters(index, after).translate(_OF_KIND)
    # The properties of the subclusters of a whole cluster: all that is known of a compressed one.
    of_all = b"".join(map(_OF_ALL.__getitem__, of_clusters.translate(_WHOLE)))
    breaks = b"".join(map(_AT_FIRST.__getitem__, apart))
    size, unit = header.cluster_size, header.subcluster_size
    ends = map(size.__add__, hosts)
    return combined(of_kinds, of_all), breaks, chain.from_iterable(map(range, hosts, ends, repeat(unit)))


def _columns(units: range, start: int, end: int, flags: bytes, breaks: bytes, hosts: Iterable[int]) -> Columns:
    """The pieces of [start, end): units, the first of which begins at or before start; neighbours that are alike are
    joined.

    For each unit there is a flag, a byte that tells whether its host offset does not follow the previous one's, and a
    host offset.
    """
    wanted = slice((start - units.start) // units.step, len(units))
    flags, breaks = flags[wanted], breaks[wanted]
    marks = combined(_changes(flags).translate(_NOT_NONE), breaks)
    starts, found = list(compress(units[wanted], marks)), list(compress(islice(hosts, wanted.start, None), marks))
    found[0] += start - starts[0]
    starts[0] = start
    return starts, list(map(sub, [*starts[1:], end], starts)), list(compress(flags, marks)), found


def _changes(flags: bytes) -> bytes:
    """Nonzero where a byte differs from the one before it, and for the first one."""
    before = int.from_bytes(b"\xff" + flags[:-1], "big")
    return (int.from_bytes(flags, "big") ^ before).to_bytes(len(flags), "big")
