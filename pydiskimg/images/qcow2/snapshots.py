# SPDX-License-Identifier: MIT
"""The internal snapshots of a qcow2 file (QEMU docs/interop/qcow2, "Snapshots"): read within bounds, and found."""

from __future__ import annotations

import os
from itertools import chain

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2.header import Header
from pydiskimg.protocols import Addressable, Source, read_bytes
from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING, ValueObject
from pydiskimg.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

# The fixed part of an entry; extra data, id_str, name and padding to 8 bytes follow.
SNAPSHOT = Record(
    "snapshot table entry",
    ">",
    40,
    """
     0  Q   l1_table_offset
     8  I   l1_size                  entries
     c  H   id_str_size
     e  H   name_size
    10  I   date_sec                 since 1970
    14  I   date_nsec
    18  Q   vm_clock_nsec
    20  I   vm_state_size            superseded by the one in the extra data
    24  I   extra_data_size
    """,
)
# Fields beyond extra_data_size do not exist.
EXTRA_DATA = Record(
    "snapshot extra data",
    ">",
    24,
    """
     0  Q   vm_state_size
     8  Q   disk_size
    10  Q   icount
    """,
)
NO_ICOUNT = (1 << 64) - 1
MAX_TABLE_SIZE = 64 << 20
MAX_EXTRA_DATA = 1024

_LISTED = 8  # snapshots that an error message names
# The part that QEMU shows of them, in bytes; its own snapshots have no longer ones.
_LONGEST_ID, _LONGEST_NAME = 127, 255


class Snapshot(ValueObject):
    """One entry of the snapshot table.

    whole_id and whole_name are the bytes up to the first zero byte, where QEMU ends them. Sizes and offsets are bytes,
    l1_size is entries. disk_size is the size that the virtual disk had. icount is None when not recorded.
    """

    def __init__(  # noqa: PLR0913 - the fields of an entry
        self,
        *,
        whole_id: bytes,
        whole_name: bytes,
        vm_state_size: int,
        date_sec: int,
        date_nsec: int,
        vm_clock_nsec: int,
        icount: int | None,
        disk_size: int,
        l1_table_offset: int,
        l1_size: int,
    ) -> None:
        self.whole_id = whole_id
        self.whole_name = whole_name
        self.vm_state_size = vm_state_size
        self.date_sec = date_sec
        self.date_nsec = date_nsec
        self.vm_clock_nsec = vm_clock_nsec
        self.icount = icount
        self.disk_size = disk_size
        self.l1_table_offset = l1_table_offset
        self.l1_size = l1_size

    @property
    def id(self) -> str:
        """The id as text, of at most 127 bytes, as QEMU shows it; bytes that are not UTF-8 are kept as surrogates."""
        return self.whole_id[:_LONGEST_ID].decode("utf-8", "surrogateescape")

    @property
    def name(self) -> str:
        """The name as text, of at most 255 bytes, as QEMU shows it; bytes that are not UTF-8 are kept as surrogates."""
        return self.whole_name[:_LONGEST_NAME].decode("utf-8", "surrogateescape")


def read_snapshots(file: Source, header: Header) -> list[Snapshot]:
    """Return the snapshots of the qcow2 file, in the table's order.

    Raises InvalidImageError if the table is not inside the file, is longer than 64 MiB, or an entry contradicts the
    specification. The snapshots' own L1 tables are checked when one is opened.
    """
    return [snapshot for snapshot, _ in snapshot_entries(file, header)]


def snapshot_entries(file: Addressable, header: Header) -> list[tuple[Snapshot, bytes]]:
    """Return the snapshots with the bytes of each in the table, including padding; raises as read_snapshots()."""
    table = _Table(file, header)
    return [table.next(number) for number in range(header.nb_snapshots)]


def packed_snapshot(snapshot: Snapshot) -> bytes:
    """Return the table's entry of a snapshot, in the form of every QEMU since 5.2, including padding."""
    fixed = SNAPSHOT.pack(
        l1_table_offset=snapshot.l1_table_offset,
        l1_size=snapshot.l1_size,
        id_str_size=len(snapshot.whole_id),
        name_size=len(snapshot.whole_name),
        date_sec=snapshot.date_sec,
        date_nsec=snapshot.date_nsec,
        vm_clock_nsec=snapshot.vm_clock_nsec,
        vm_state_size=min(snapshot.vm_state_size, 0xFFFF_FFFF),
        extra_data_size=EXTRA_DATA.size,
    )
    extra = EXTRA_DATA.pack(
        vm_state_size=snapshot.vm_state_size,
        disk_size=snapshot.disk_size,
        icount=NO_ICOUNT if snapshot.icount is None else snapshot.icount,
    )
    packed = fixed + extra + snapshot.whole_id + snapshot.whole_name
    return packed + bytes(-len(packed) % 8)


def find_snapshot(snapshots: Sequence[Snapshot], wanted: str, *, name: str, ids: bool = True) -> Snapshot:
    """Return the first snapshot with the id wanted or, if there is none, with that name: the whole one, or the shown
    part.

    Without ids, only names count. Raises UnsupportedImageError, which lists the snapshots; name is the image's.
    """
    whole = os.fsencode(wanted)
    by_id = (s for s in snapshots if ids and s.whole_id == whole)
    by_name = (s for s in snapshots if s.whole_name == whole)
    as_shown = (s for s in snapshots if s.name == wanted or (ids and s.id == wanted))
    for found in chain(by_id, by_name, as_shown):
        return found
    if not snapshots:
        raise UnsupportedImageError(f"{name}: has no snapshot {quoted(whole)}; it has no snapshots at all")
    listed = ", ".join(f"{_shown(s.id)} ({_shown(s.name)})" for s in snapshots[:_LISTED])
    more = f" and {len(snapshots) - _LISTED} more" if len(snapshots) > _LISTED else ""
    what = "id or the name of" if ids else "name, in brackets, of"
    raise UnsupportedImageError(f"{name}: has no snapshot {quoted(whole)}; expected the {what}: {listed}{more}")


def _shown(text: str) -> str:
    return quoted(text.encode("utf-8", "surrogateescape"))


class _Table:
    """The snapshot table, read from start to end in pieces of one entry at most."""

    def __init__(self, file: Addressable, header: Header) -> None:
        self._file = file
        self._header = header
        self._at = header.snapshots_offset

    def next(self, number: int) -> tuple[Snapshot, bytes]:
        """Read the entry at the current offset, and go past it; returns its bytes, too."""
        start = self._at
        head = self._read(number, SNAPSHOT.size)
        fields = SNAPSHOT.unpack(head)
        id_size, name_size, extra_size = (fields.pop(name) for name in ("id_str_size", "name_size", "extra_data_size"))
        if extra_size > MAX_EXTRA_DATA:
            raise self._invalid(number, f"has {extra_size} bytes of extra data, at most {MAX_EXTRA_DATA} are allowed")
        rest = self._read(number, extra_size + id_size + name_size)
        extra, names = rest[:extra_size], rest[extra_size:]
        self._at += -(self._at - start) % 8
        fields = {"disk_size": self._header.size, "icount": NO_ICOUNT, **fields, **_extra_data(extra)}
        if fields["disk_size"] >= 1 << 63:
            raise self._invalid(
                number, f"has a disk of {fields['disk_size']} bytes, and no disk is larger than 2^63 - 1"
            )
        icount = fields.pop("icount")
        snapshot = Snapshot(
            whole_id=names[:id_size].partition(b"\0")[0],
            whole_name=names[id_size:].partition(b"\0")[0],
            icount=None if icount == NO_ICOUNT else icount,
            **fields,
        )
        return snapshot, (head + rest).ljust(self._at - start, b"\0")

    def _read(self, number: int, length: int) -> bytes:
        end = self._at + length
        if end - self._header.snapshots_offset > MAX_TABLE_SIZE:
            raise self._invalid(number, f"ends beyond the {MAX_TABLE_SIZE} bytes a table may have")
        if end > self._file.size:
            raise self._invalid(number, f"ends at 0x{end:x}, beyond the end of the file (0x{self._file.size:x})")
        data = read_bytes(self._file, self._at, length)
        self._at = end
        return data

    def _invalid(self, number: int, text: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._file.name}: snapshot {number + 1} of {self._header.nb_snapshots}, at 0x{self._at:x}: {text}; "
            "the image is truncated or corrupt"
        )


def _extra_data(extra: bytes) -> dict[str, int]:
    """The numbers that are completely in the extra data."""
    fields = EXTRA_DATA.unpack(extra.ljust(EXTRA_DATA.size, b"\0"))
    return {name: fields[name] for name, at in EXTRA_DATA.offsets.items() if at + 8 <= len(extra)}


def snapshot_facts(snapshots: Iterable[Snapshot]) -> Iterator[dict[str, Any]]:
    """Return an iterator of the snapshots under the names of `qemu-img info --output=json`."""
    return (
        {
            "id": snapshot.id,
            "name": snapshot.name,
            "vm-state-size": snapshot.vm_state_size,
            "date-sec": snapshot.date_sec,
            "date-nsec": snapshot.date_nsec,
            "vm-clock-sec": snapshot.vm_clock_nsec // 1_000_000_000,
            "vm-clock-nsec": snapshot.vm_clock_nsec % 1_000_000_000,
        }
        | ({} if snapshot.icount is None else {"icount": snapshot.icount})
        for snapshot in snapshots
    )
