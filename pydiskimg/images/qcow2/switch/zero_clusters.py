# SPDX-License-Identifier: MIT
"""Replace clusters that are marked zero by unmapped ones, or by stored zeros: version 2 cannot mark them.

A table is changed once for all layers that share it, and new clusters are counted as often as the table.
"""

from __future__ import annotations

from collections import Counter

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.snapshots import SNAPSHOT, snapshot_entries
from pydiskimg.images.qcow2.switch.layer import DiskLayer, references, with_flags
from pydiskimg.images.qcow2.switch.switch import Switch
from pydiskimg.images.qcow2.words import numbers
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

    from pydiskimg.protocols import Store


def store_zero_clusters(store: Store) -> None:
    """Remove the zero marks of all clusters of the image in store and of its snapshots; the contents stay. Durable.

    If there is a backing file, zeros are stored instead. The image is of version 3 and has no subclusters and no
    external data file. Raises InvalidImageError, UnsupportedImageError and StorageError; then nothing was changed.
    """
    _Storing(store).run()


class _Storing(Switch):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._entries = snapshot_entries(store, self._header)
        self._layers = [self._active]
        for snapshot, _ in self._entries:
            what = f"the L1 table of snapshot {snapshot.id}"
            self._layers.append(self._layer(snapshot.l1_table_offset, snapshot.l1_size, what=what))
        self._active_tables = {cluster for _, cluster in self._active.tables()}
        self._new: dict[int, int] = {}  # maps the cluster of a table to that of its changed copy
        self._stored: dict[int, list[int]] = {}  # maps the cluster of a table to those that store zeros now

    def run(self) -> None:
        shared = Counter(cluster for layer in self._layers for _, cluster in layer.tables())
        changed = self._tables_to_change()
        if not changed:
            return
        changed |= self._tables_to_flag(changed, shared)
        for cluster, (layer, index) in changed.items():
            self._change(cluster, layer.table(index))
        l1, tables = self._new_l1(len(self._active.l1)), self._snapshot_fields()
        self._settle()
        for cluster, (layer, index) in changed.items():
            self._count(cluster, layer.table(index), shared[cluster])
        for cluster in self._active_tables & changed.keys():
            if shared[cluster] == 1:
                self._flag_copy(self._new[cluster])
        self._lower_snapshot_tables()
        active = self._renamed(self._active)
        self._flag_l1(active)
        self._publish(l1, active, **tables)

    def _tables_to_change(self) -> dict[int, tuple[DiskLayer, int]]:
        """The clusters of tables with zero clusters, each with its first occurrence."""
        seen: set[int] = set()
        found = {}
        for layer in self._layers:
            for index, cluster in layer.tables():
                if cluster in seen:
                    continue
                seen.add(cluster)
                if any(map(_is_zero, layer.table(index))):
                    found[cluster] = layer, index
        return found

    def _tables_to_flag(
        self, changed: dict[int, tuple[DiskLayer, int]], shared: Counter[int]
    ) -> dict[int, tuple[DiskLayer, int]]:
        """The other tables of the disk with a cluster that may be theirs alone when zero clusters are unmapped."""
        freed: set[int] = set()
        for cluster, (layer, index) in changed.items():
            for first, number in references(_only_zero(layer.table(index)), self._header):
                freed.update(host for host in range(first, first + number) if self._counts.get(host) > shared[cluster])
        found = {}
        for index, cluster in self._active.tables() if freed else ():
            hosts = references(self._active.table(index), self._header)
            if cluster not in changed and any(freed.intersection(range(at, at + count)) for at, count in hosts):
                found[cluster] = self._active, index
        return found

    def _flag_copy(self, cluster: int) -> None:
        """Set the copied flags of the entries of a changed table that only the disk uses."""
        raw = read_bytes(self._store, cluster << self._header.cluster_bits, self._header.cluster_size)
        self._write_l2(cluster, with_flags(numbers(raw), self._header, self._counts))

    def _change(self, cluster: int, words: array[int]) -> None:
        """Write the changed copy of a table, and its zeros, which have no other references yet."""
        counts, bits = self._counts, self._header.cluster_bits
        zeros = bytes(self._header.cluster_size)
        self._stored[cluster] = []
        counts.own(cluster)
        for first, number in references(_only_zero(words), self._header):
            counts.own(first, number)
        for index, entry in enumerate(words):
            if not _is_zero(entry):
                continue
            words[index] = 0
            if self._header.backing_file is not None:
                new = counts.allocate_one()
                self._store.write(new << bits, zeros)
                self._stored[cluster].append(new)
                words[index] = new << bits
        self._new[cluster] = counts.allocate_one()
        self._write_l2(self._new[cluster], words)

    def _count(self, cluster: int, words: array[int], times: int) -> None:
        """Count a table's new references as often as the table, and lower its old ones as often."""
        counts = self._counts
        for _ in range(times - 1):
            for new in (self._new[cluster], *self._stored[cluster]):
                counts.raise_counts(new)
        for _ in range(times):
            counts.lower(cluster)
            for first, number in references(_only_zero(words), self._header):
                counts.lower(first, number)

    def _snapshot_fields(self) -> dict[str, int]:
        """Write the snapshots' L1 tables and their table to new clusters; return their fields of the header."""
        if not self._entries:
            return {}
        table = bytearray()
        for layer, (_, raw) in zip(self._layers[1:], self._entries, strict=True):
            l1 = self._new_l1(len(layer.l1))
            self._write_l1(l1, self._renamed(layer))
            if layer.l1:
                self._counts.own(*layer.l1_clusters)
            entry = bytearray(raw)
            SNAPSHOT.put(entry, {"l1_table_offset": l1 << self._header.cluster_bits})
            table += entry
        size = self._header.cluster_size
        length = -(-len(table) // size)
        self._counts.leave(self._header.snapshots_offset // size, length)
        first = self._counts.take(length)
        self._store.write(first * size, bytes(table).ljust(length * size, b"\0"))
        return {"snapshots_offset": first * size}

    def _lower_snapshot_tables(self) -> None:
        for layer in self._layers[1:]:
            if layer.l1:
                self._counts.lower(*layer.l1_clusters)

    def _renamed(self, layer: DiskLayer) -> array[int]:
        """The layer's L1 entries, without flags, that refer to the changed tables."""
        l1, bits = layer.l1[:], self._header.cluster_bits
        for index, cluster in layer.tables():
            if cluster in self._new:
                l1[index] = self._new[cluster] << bits
        return l1


def _is_zero(entry: int) -> bool:
    return bool(entry & layout.L2_ZERO) and not entry & layout.L2_COMPRESSED


def _only_zero(words: array[int]) -> array[int]:
    """The words of a table reduced to its zero clusters."""
    left = words[:]
    for index, entry in enumerate(left):
        if not _is_zero(entry):
            left[index] = 0
    return left
