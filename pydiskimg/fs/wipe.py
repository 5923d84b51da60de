# SPDX-License-Identifier: MIT
"""Wipe the signatures that file systems, RAID and volume managers have left on a disk.

A maker zeroes them before it writes anything, so that no program (libblkid, udev, mdadm, LVM, zpool, a boot loader)
later takes the disk for what it held before. The locations, from the on-disk formats:

    0                1 MiB   +4 KiB         2, 4, 64 MiB                              size - 2 MiB       size
    |  everything that starts  |   | second headers |                                 |  superblocks at   |
    |  at the front            |   | LUKS2, btrfs,  |                                 |  the end          |
                                   | VMFS, bcachefs |

Front: boot code and partition tables, LVM (first four sectors), LUKS, xfs, md 1.1 and 1.2, swap (pages of 4 to
64 KiB), ISO 9660 and UDF (32 KiB), btrfs and reiserfs (64 KiB), UFS (up to 256 KiB), ZFS labels (two of 256 KiB),
LUKS2 second headers (16 KiB to 4 MiB). End: GPT backup, md 0.90 and 1.0, DRBD, nilfs2, bcachefs, ZFS labels (two of
256 KiB), firmware RAID (the farthest, Promise, looks 3087 sectors back).
"""

from __future__ import annotations

from pydiskimg.protocols import Disk
from pydiskimg.regions.claims import require_unclaimed
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRONT = MIB + 4 * KIB
_SECOND_HEADERS = (2 * MIB, 4 * MIB, 64 * MIB)
_SECOND_HEADER_SIZE = 4 * KIB
_END = 2 * MIB


def signature_ranges(size: int) -> Iterator[tuple[int, int]]:
    """Yield the (offset, length) in bytes to be zeroed on a disk of size bytes; ascending, disjoint, all inside."""
    end = max(0, size - _END) // (4 * KIB) * (4 * KIB)
    offsets = [(0, _FRONT), *((offset, offset + _SECOND_HEADER_SIZE) for offset in _SECOND_HEADERS), (end, size)]
    done = 0
    for start, stop in sorted(offsets):  # on small disks the area at the end overlaps some of the second headers
        first, last = max(start, done), min(stop, size)
        if first < last:
            yield first, last - first
            done = last


def wipe_signatures(disk: Disk) -> None:
    """Zero every location where a signature of an earlier use may be, and return when that is on stable storage.

    Even a disk that reads as zero is zeroed: another program may have written to it since it was opened, and zeroing a
    hole costs nothing. Raises InUseError if an open tree changes files on the disk, and StorageError.
    """
    require_unclaimed(disk)
    for offset, length in signature_ranges(disk.size):
        disk.zero(offset, length)
    disk.flush()
