# SPDX-License-Identifier: MIT
"""Find which file system is on a disk or partition, by its superblock alone: nothing is run, mounted or guessed.

Every check reads a bounded number of bytes at fixed offsets; the content may be hostile.
"""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.probe.kind import FileSystemKind
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FileSystemKind", "probe"]

# btrfs has its superblock farthest from the start, at 64 KiB; swap with pages of 64 KiB has its signature just before.
_HEAD = (64 + 4) << 10

# Signatures, with their offsets, or with their offsets from the ends of pages
_FAT = ((510, b"\x55\xaa"), (54, (b"MSDOS", b"FAT")), (82, (b"MSWIN", b"FAT32")))
_SWAP = (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
_TUX_ON_ICE = b"\xed\xc3\x02\xe9"


def probe(source: Source) -> FileSystemKind | None:
    """Return which file system, swap area or container source holds; None for anything else, such as a partition table.

    Superblocks are read at fixed offsets, and nothing is mounted or run; the contents may be hostile. Raises
    FileSystemError where two file systems have left their signatures, which mount(8) refuses as well, and what reading
    raises.

    >>> from pydiskimg import MemoryDisk, make_swap, probe
    >>> disk = MemoryDisk(1 << 20)
    >>> print(probe(disk))
    None
    >>> made = make_swap(disk, label="swap0")
    >>> probe(disk).type, probe(disk).label
    ('swap', 'swap0')
    """
    head = read_bytes(source, 0, min(source.size, _HEAD))
    for container in _containers(head):
        held = container(head)
        if held is not None:
            return held
    found = [kind for kind in (look(source, head) for look in _file_systems(head)) if kind is not None]
    if len(found) > 1:
        names = " and ".join(kind.type for kind in found)
        raise FileSystemError(
            f"{source.name}: has the signatures of {names}, so its content is unclear; wipe the stale one"
        )
    return found[0] if found else None


# The order of both is libblkid's. A module is imported only if one of its signatures is in head: most disks have one.
def _containers(head: bytes) -> Iterator[Callable[[bytes], FileSystemKind | None]]:
    """Yield the probes for devices that hold other devices; the first one found ends the search."""
    if any(head.startswith(b"LABELONE", sector * 512) for sector in range(4)):
        from pydiskimg.fs.probe.containers import lvm2

        yield lvm2
    if head.startswith(b"LUKS\xba\xbe"):
        from pydiskimg.fs.probe.containers import luks

        yield luks


def _file_systems(head: bytes) -> Iterator[Callable[[Source, bytes], FileSystemKind | None]]:
    """Yield the probes for file systems and swap, of which the source may have only one."""
    if any(head.startswith(marks, offset) for offset, marks in _FAT):
        from pydiskimg.fs.probe import vfat

        yield vfat.probe
    if any(head.startswith(_SWAP, (size << 10) - 10) for size in (4, 8, 16, 32, 64)) or head.startswith(_TUX_ON_ICE):
        from pydiskimg.fs.probe import swap

        yield swap.probe
    if head.startswith(b"XFSB"):
        from pydiskimg.fs.probe import xfs

        yield xfs.probe
    if head.startswith(b"\x53\xef", 1024 + 0x38):
        from pydiskimg.fs.probe import ext

        yield ext.probe
    if head.startswith(b"_BHRfS_M", (64 << 10) + 0x40):
        from pydiskimg.fs.probe import btrfs

        yield btrfs.probe
