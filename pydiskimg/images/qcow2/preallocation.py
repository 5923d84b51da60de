# SPDX-License-Identifier: MIT
"""Clusters that an image has and the file system has not: preallocation=metadata."""

from __future__ import annotations

from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.refcount_reader import RefcountReader
from pydiskimg.protocols import Source

_WINDOW = 1 << 20  # clusters that are counted at a time


def has_unfilled_clusters(file: Source, header: Header, stored: int) -> bool:
    """True when clearly more clusters are in use than the file system stores bytes for: many then read as zero.

    stored is what the file occupies in bytes. "Clearly" is what it is to QEMU: a ninth more, and two at least.
    """
    clusters = stored // header.cluster_size
    threshold = max(clusters * 10 // 9, clusters + 2)
    end = -(-file.size // header.cluster_size)
    if end < threshold:
        return False
    reader = RefcountReader(file, header)
    end = min(end, len(reader.entries) * reader.block_clusters)  # a file of no contents may have any size
    used = 0
    for first in range(0, end, _WINDOW):
        for _, counts in reader.blocks(first, min(first + _WINDOW, end)):
            used += len(counts) - counts.count(0)
            if used >= threshold:
                return True
    return False
