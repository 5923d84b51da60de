# SPDX-License-Identifier: MIT
"""Take, apply and delete the internal snapshots of a qcow2 image, each by one write of its header.

QEMU changes reference counts, copied flags and tables in place; an interruption leaves counts that do not agree with
the flags. Here all of them go to new clusters first (counts.py), so that an interruption leaves the image unchanged,
without a leaked cluster.
"""

from __future__ import annotations

from array import array

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.snapshots import (
    MAX_TABLE_SIZE,
    SNAPSHOT,
    Snapshot,
    find_snapshot,
    packed_snapshot,
    snapshot_entries,
)
from pydiskimg.images.qcow2.switch.layer import has_flags, with_flags, without_flags
from pydiskimg.images.qcow2.switch.switch import Switch
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.switch.layer import DiskLayer
    from pydiskimg.protocols import Store

_LEAST_EXTRA_DATA = 16  # bytes that version 3 requires
_LONGEST_NAME = 0xFFFF  # bytes: the limit of a field of 16 bits


def take_snapshot(store: Store, name: str, *, now_ns: int) -> Snapshot:
    """Take an internal snapshot of the virtual disk in store, and return it; durable on return.

    store comes from open_qcow2_store(). now_ns is the time of the snapshot, in nanoseconds since 1970. Its id is the
    highest id plus 1; names need not be unique, as in QEMU. The image changes by one write of its header: an
    interruption leaves it as it was.

    Raises InvalidImageError, UnsupportedImageError for an image that cannot be written or whose reference counts are
    too narrow, and StorageError; the image has not changed then.

    >>> import time
    >>> from pydiskimg import open_image, open_qcow2_store, take_snapshot
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     snapshot = take_snapshot(store, "before-upgrade", now_ns=time.time_ns())
    >>> with open_image("disk.qcow2", snapshot="before-upgrade") as image:
    ...     image.size == snapshot.disk_size
    True
    """
    return _Change(store).take(name, now_ns)


def apply_snapshot(store: Store, wanted: str) -> Snapshot:
    """Return the virtual disk to the contents and size of a snapshot, given by id or name; durable on return.

    What was written since is lost. Errors and interruptions are as for take_snapshot(); UnsupportedImageError is also
    raised for an image with dirty bitmaps, as by QEMU.

    >>> from pydiskimg import apply_snapshot, open_image_disk, open_qcow2_store, read_bytes, take_snapshot
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     snapshot = take_snapshot(store, "clean", now_ns=0)
    >>> with open_image_disk("disk.qcow2") as disk:
    ...     disk.write(510, b"xx")
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     snapshot = apply_snapshot(store, "clean")
    >>> with open_image_disk("disk.qcow2") as disk:
    ...     read_bytes(disk, 510, 2).hex()
    '55aa'
    """
    return _Change(store).apply(wanted)


def delete_snapshot(store: Store, name: str) -> Snapshot:
    """Delete the first snapshot of a name, and free the clusters that it alone uses; durable on return.

    An id is not a name here, as in qemu-img: what is deleted cannot be brought back. Errors and interruptions are as
    for take_snapshot().

    >>> from pydiskimg import delete_snapshot, open_qcow2_store, take_snapshot
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     taken = take_snapshot(store, "scratch", now_ns=0)
    ...     deleted = delete_snapshot(store, "scratch")
    >>> deleted.whole_name
    b'scratch'
    """
    return _Change(store).delete(name)


def complete_snapshot_table(store: Store) -> None:
    """Give the snapshots of an image of version 2 all fields of version 3. Raises as take_snapshot()."""
    _Change(store).complete()


class _Change(Switch):
    """One change of the snapshots of one image."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        if self._header.has_data_file:
            raise UnsupportedImageError(
                f"{store.name}: has an external data file; such an image has no internal snapshots: copy the image and "
                "its data file"
            )
        self._entries = snapshot_entries(store, self._header)

    def complete(self) -> None:
        if all(SNAPSHOT.unpack(raw)["extra_data_size"] >= _LEAST_EXTRA_DATA for _, raw in self._entries):
            return
        l1 = self._active.l1[:]
        own_l1 = self._new_l1(len(l1))
        fields = self._table_fields([packed_snapshot(snapshot) for snapshot, _ in self._entries])
        self._settle()
        self._flag_l1(l1)
        self._publish(own_l1, l1, **fields)

    def take(self, name: str, now_ns: int) -> Snapshot:
        counts, active = self._counts, self._active
        active.own(counts)
        twins = {i: counts.allocate_one() for i, _ in active.tables() if has_flags(active.table(i), self._header)}
        own_l1, its_l1 = self._new_l1(len(active.l1)), self._new_l1(len(active.l1))
        snapshot = self._new_snapshot(name, now_ns, its_l1)
        fields = self._table_fields([*(raw for _, raw in self._entries), packed_snapshot(snapshot)])
        self._settle()
        l1 = active.l1[:]
        for index, cluster in active.tables():
            for first, number in active.references(index):
                counts.raise_counts(first, number)
            shared = twins.get(index, cluster)
            counts.raise_counts(shared)
            if shared != cluster:
                counts.lower(cluster)
                l1[index] = self._write_l2(shared, without_flags(active.table(index), self._header))
        self._write_l1(its_l1, l1)
        self._publish(own_l1, l1, **fields)
        return snapshot

    def apply(self, wanted: str) -> Snapshot:
        counts, header = self._counts, self._header
        if header.has_bitmaps:
            raise UnsupportedImageError(
                f"{self._store.name}: has dirty bitmaps, which cannot record the changes by applying a snapshot; "
                "remove them first"
            )
        snapshot, layer = self._found(wanted)
        _require_same_size(header, snapshot, self._store.name)
        self._active.own(counts)
        layer.own(counts)
        copies = {i: counts.allocate_one() for i, _ in layer.tables() if has_flags(layer.table(i), header)}
        needed = -(-snapshot.disk_size // header.l2_span)
        l1 = layer.l1 + array("Q", bytes(max(0, needed - len(layer.l1)) * layout.ENTRY_SIZE))
        own_l1 = self._new_l1(len(l1))
        self._settle()
        self._active.lower(counts)
        layer.raise_counts(counts)
        for index, copy in copies.items():
            counts.lower(layer.l1[index] >> header.cluster_bits)
            l1[index] = self._write_l2(copy, with_flags(layer.table(index), header, counts))
        self._flag_l1(l1)
        self._publish(own_l1, l1, size=snapshot.disk_size)
        return snapshot

    def delete(self, name: str) -> Snapshot:
        counts, header, active = self._counts, self._header, self._active
        snapshot, layer = self._found(name, ids=False)
        layer.own(counts)
        # Only if the snapshot has a table, too, may a cluster belong to the active layer alone from now on.
        its = {index for index, _ in layer.tables()}
        copies = {index: counts.allocate_one() for index, _ in active.tables() if index in its}
        for index in copies:
            counts.own(active.l1[index] >> header.cluster_bits)
        own_l1 = self._new_l1(len(active.l1))
        fields = self._table_fields([raw for each, raw in self._entries if each is not snapshot])
        self._settle()
        layer.lower(counts)
        if layer.l1:
            counts.lower(*layer.l1_clusters)
        l1 = active.l1[:]
        for index, copy in copies.items():
            l1[index] = self._flagged(index, copy)
        self._flag_l1(l1)
        self._publish(own_l1, l1, **fields)
        return snapshot

    def _flagged(self, index: int, copy: int) -> int:
        """Return the offset of an active table, which is written to the cluster copy if its flags change."""
        counts, cluster = self._counts, self._active.l1[index] >> self._header.cluster_bits
        words = self._active.table(index)
        new = words if counts.get(cluster) != 1 else with_flags(words, self._header, counts)
        if new == words:
            counts.lower(copy)
            return self._active.l1[index]
        counts.lower(cluster)
        return self._write_l2(copy, new)

    def _found(self, wanted: str, *, ids: bool = True) -> tuple[Snapshot, DiskLayer]:
        snapshot = find_snapshot([each for each, _ in self._entries], wanted, name=self._store.name, ids=ids)
        what = f"the L1 table of snapshot {snapshot.id}"
        return snapshot, self._layer(snapshot.l1_table_offset, snapshot.l1_size, what=what)

    def _new_snapshot(self, name: str, now_ns: int, l1: int) -> Snapshot:
        whole_name = name.encode("utf-8", "surrogateescape")
        if len(whole_name) > _LONGEST_NAME or b"\0" in whole_name or not whole_name:
            raise UnsupportedImageError(
                f"{self._store.name}: a snapshot's name has 1 to {_LONGEST_NAME} bytes, none of them zero; found "
                f"{len(whole_name)} bytes"
            )
        highest = max((_number(each.whole_id) for each, _ in self._entries), default=0)
        seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
        if not 0 <= seconds < 1 << 32:  # all that an entry of the table holds
            raise ValueError(f"{now_ns} nanoseconds are not a time of a snapshot; expected one from 1970 to 2106")
        return Snapshot(
            whole_id=b"%d" % (highest + 1),
            whole_name=whole_name,
            vm_state_size=0,
            date_sec=seconds & 0xFFFF_FFFF,
            date_nsec=nanoseconds,
            vm_clock_nsec=0,
            icount=0,  # qemu-img's: no machine has run
            disk_size=self._header.size,
            l1_table_offset=l1 << self._header.cluster_bits,
            l1_size=len(self._active.l1),
        )

    def _table_fields(self, entries: Iterable[bytes]) -> dict[str, int]:
        """Write the snapshot table to new clusters; return its fields of the header."""
        entries = list(entries)
        table = b"".join(entries)
        if len(entries) > layout.MAX_SNAPSHOTS or len(table) > MAX_TABLE_SIZE:
            raise UnsupportedImageError(
                f"{self._store.name}: has {len(self._entries)} snapshots; an image has at most {layout.MAX_SNAPSHOTS}, "
                f"whose table has at most {MAX_TABLE_SIZE} bytes"
            )
        old = self._header.snapshots_offset, sum(len(raw) for _, raw in self._entries)
        self._counts.leave(old[0] >> self._header.cluster_bits, self._clusters(old[1]))
        if not table:
            return {"snapshots_offset": 0, "nb_snapshots": 0}
        count = self._clusters(len(table))
        offset = self._counts.take(count) << self._header.cluster_bits
        self._store.write(offset, table.ljust(count << self._header.cluster_bits, b"\0"))
        return {"snapshots_offset": offset, "nb_snapshots": len(entries)}

    def _clusters(self, length: int) -> int:
        return -(-length // self._header.cluster_size)


def _require_same_size(header: Header, snapshot: Snapshot, name: str) -> None:
    if header.version < 3 and snapshot.disk_size != header.size:
        raise UnsupportedImageError(
            f"{name}: the disk had {snapshot.disk_size} bytes at the snapshot and has {header.size}; an image of "
            "version 2 (0.10) cannot change its size with snapshots"
        )


def _number(whole_id: bytes) -> int:
    """The number at an id's start, as QEMU parses it; 0 if there is none."""
    digits = whole_id[: len(whole_id) - len(whole_id.lstrip(b"0123456789"))]
    return int(digits[:18] or b"0")
