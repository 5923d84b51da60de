# SPDX-License-Identifier: MIT
"""The sizes of a virtual disk and of the tables of its image."""

from __future__ import annotations

from pydiskimg.errors import DoesNotFitError
from pydiskimg.images.qcow2 import layout
from pydiskimg.units import format_bytes

REFCOUNT_ORDER = 4  # 16 bits


def round_size(size: int) -> int:
    """Return the size (bytes) of the virtual disk for contents of size bytes: QEMU uses whole sectors only."""
    return -(-size // layout.SECTOR) * layout.SECTOR


def l1_entries(size: int, cluster_size: int, *, name: str, entry_size: int = layout.ENTRY_SIZE) -> int:
    """Return the number of L1 entries for a virtual disk of size bytes; DoesNotFitError if it needs too many.

    entry_size is bytes of an L2 entry.
    """
    span = cluster_size // entry_size * cluster_size
    largest = min(layout.MAX_L1_TABLE_SIZE // layout.ENTRY_SIZE * span, (1 << 63) - layout.SECTOR)
    if size > largest:
        raise DoesNotFitError(
            f"{name}: a virtual size of {format_bytes(size)} is too large: clusters of {cluster_size} bytes can map "
            f"{format_bytes(largest)} at most; nothing was written",
            needed=size,
            available=largest,
        )
    return -(-size // span)


def refcount_clusters(others: int, cluster_size: int, order: int = REFCOUNT_ORDER) -> tuple[int, int]:
    """Return (table clusters, blocks) that count others clusters and themselves, with counts of 1 << order bits."""
    per_block, per_table_cluster = cluster_size * 8 >> order, cluster_size // layout.ENTRY_SIZE
    table, blocks = 1, 1
    while True:
        need_blocks = -(-(others + table + blocks) // per_block)
        need_table = -(-need_blocks // per_table_cluster)
        if (need_table, need_blocks) == (table, blocks):
            return table, blocks
        table, blocks = max(table, need_table), max(blocks, need_blocks)
