# SPDX-License-Identifier: MIT
"""Which file system lies on a disk or partition: its superblocks are read, nothing is run, mounted or guessed.

Every check is on a bounded number of bytes at fixed places; the content may be hostile.
"""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.probe import btrfs, containers, ext, swap, vfat, xfs
from pydiskimg.fs.probe.kind import FileSystemKind
from pydiskimg.protocols import Source, read_bytes

__all__ = ["FileSystemKind", "probe"]

# btrfs has its superblock farthest from the start, at 64 KiB; swap of 64 KiB pages its signature just before.
_HEAD = (64 + 4) << 10

# libblkid's order. What holds other devices ends the search; of file systems there must be one only.
_CONTAINERS = (containers.lvm2, containers.luks)
_FILE_SYSTEMS = (vfat.probe, swap.probe, xfs.probe, ext.probe, btrfs.probe)


def probe(source: Source) -> FileSystemKind | None:
    """Return what lies on the source, or None when it is nothing that is known here.

    None for a partition table. Raises FileSystemError when two file systems have left their signatures
    (libblkid and mount refuse that too); StorageError or InvalidImageError as reading the source does.
    """
    head = read_bytes(source, 0, min(source.size, _HEAD))
    for container in _CONTAINERS:
        held = container(head)
        if held is not None:
            return held
    found = [kind for kind in (look(source, head) for look in _FILE_SYSTEMS) if kind is not None]
    if len(found) > 1:
        names = " and ".join(kind.type for kind in found)
        raise FileSystemError(
            f"{source.name}: has the signatures of {names}, so what it holds is unclear; wipe the one that is stale"
        )
    return found[0] if found else None
