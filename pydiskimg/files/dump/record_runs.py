# SPDX-License-Identifier: MIT
"""c_addr: which records of a file follow a header, and which are holes."""

from __future__ import annotations

from typing import NamedTuple

from pydiskimg.files.dump.layout import TP_NINDIR, Spcl

_PLAIN = b"\0\1"
_MORE = 0x80


class Run(NamedTuple):
    """Records of one kind: they follow (data), or are a hole."""

    length: int
    data: bool


def runs(header: Spcl) -> list[Run]:
    """Return the runs that the c_addr of a TS_INODE or TS_ADDR header lists. Raises ValueError, its text a clause."""
    count = header.c_count
    if not 0 <= count <= TP_NINDIR:
        raise ValueError(f"its list of blocks has {count} entries; there can be {TP_NINDIR}")
    listed = header.c_addr[:count]
    if listed.count(1) == count:
        return [Run(count, data=True)] if count else []
    if listed.strip(_PLAIN):
        return _packed(listed)
    found = []
    position = 0
    while position < count:
        kind = listed[position]
        end = listed.find(1 - kind, position)
        end = count if end < 0 else end
        found.append(Run(end - position, data=bool(kind)))
        position = end
    return found


def attribute_records(header: Spcl) -> int:
    """Return how many records of extended attributes follow a header. Raises ValueError, its text a clause.

    A plain list is ignored: dump before 0.4b43 did not change it after the file's contents. All records follow.
    """
    listed = header.c_addr[: max(header.c_count, 0)]
    if not listed.strip(_PLAIN):
        return header.c_count
    found = _packed(listed)
    if not all(run.data for run in found):
        raise ValueError("its extended attributes have a hole")
    return sum(run.length for run in found)


def _packed(listed: bytes) -> list[Run]:
    """The format of dump 0.4b49 and later: 0nnnnnnd is n + 1 records, 1nnnnnnd NNNNNNNN is 64 * N + n + 65 records."""
    found = []
    position = 0
    while position < len(listed):
        entry = listed[position]
        count = (entry >> 1 & 0x3F) + 1
        position += 1
        if entry & _MORE:
            if position == len(listed):
                raise ValueError("its list of blocks ends within an entry")
            count += 64 * (listed[position] + 1)
            position += 1
        found.append(Run(count, data=bool(entry & 1)))
    return found
