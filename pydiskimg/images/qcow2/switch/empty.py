# SPDX-License-Identifier: MIT
"""Empty the disk of a qcow2 image, by one write of its header."""

from __future__ import annotations

from array import array

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.sizes import refcount_clusters
from pydiskimg.images.qcow2.switch.layer import l1_length
from pydiskimg.images.qcow2.switch.switch import Switch
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Store


def empty_qcow2(store: Store) -> int:
    """Unmap every cluster of the virtual disk of the image in store: it shows its backing file, or zeros.

    Snapshots and dirty bitmaps stay, as in QEMU. Returns the end of the last used cluster (bytes): the caller may cut
    the file there. Raises as shrink_qcow2().
    """
    end = _Emptying(store).run()
    return _with_tables_first(store) or end


class _Emptying(Switch):
    def run(self) -> int:
        counts, active = self._counts, self._active
        active.own(counts)
        new_l1 = self._new_l1(len(active.l1))
        self._settle()
        active.lower(counts)
        self._publish(new_l1, array("Q", bytes(len(active.l1) * layout.ENTRY_SIZE)))
        return min(counts.end_of_used() << self._header.cluster_bits, self._store.size)


def _with_tables_first(store: Store) -> int | None:
    """Write the tables of an empty image again, after its header, so that the file can be cut; return their end.

    Until now they were after all used clusters. None if snapshots or bitmaps have clusters, too.
    """
    header = read_header(store)
    if header.nb_snapshots or layout.EXTENSION_BITMAPS in header.extensions:
        return None
    length = l1_length(header, header.l1_size)
    table, blocks = refcount_clusters(1 + length, header.cluster_size, header.refcount_order)
    used = 1 + table + blocks + length
    present = Refcounts(store, header)
    if any(present.get(cluster) for cluster in range(1, used)):
        return None
    size, counts = header.cluster_size, bytearray(blocks * header.cluster_size)
    RefcountEntries(header.refcount_order).fill(counts, 0, used, 1)
    offsets = b"".join(((1 + table + number) * size).to_bytes(8, "big") for number in range(blocks))
    store.write(size, (offsets.ljust(table * size, b"\0") + counts).ljust((used - 1) * size, b"\0"))
    store.flush()
    change_header(
        store,
        l1_table_offset=(used - length) * size if length else 0,
        refcount_table_offset=size,
        refcount_table_clusters=table,
    )
    store.flush()
    return used * size
