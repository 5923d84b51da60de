# SPDX-License-Identifier: MIT
"""An instance's disk as ganeti-instance-image lays it out: a table, /boot, swap, a root with a real Debian's files."""

from __future__ import annotations

from pathlib import Path

from benchmarks.inputs import INPUTS, Making, real_files
from benchmarks.programs import attached, mounted, run
from pydiskimg.units import MIB

BOOT = (1 * MIB, 100 * MIB)
SWAP = (101 * MIB, 128 * MIB)
ROOT_START = 229 * MIB


def make_guest_disk(disk: Path, size: int, data: int) -> None:
    """Make a raw disk of size bytes with that many bytes of files on its root. Needs root."""
    with disk.open("wb") as file:
        file.truncate(size)
    root = (ROOT_START, size - ROOT_START)
    table = "".join(
        f"{start // MIB}MiB,{length // MIB}MiB,{kind}\n"
        for (start, length), kind in zip((BOOT, SWAP, root), ("83", "82", "83"), strict=True)
    )
    run("sfdisk", "-q", str(disk), stdin=table)
    point = disk.with_name("point")
    with attached(disk, *SWAP) as device:
        run("mkswap", device)
    with attached(disk, *BOOT) as device:
        run("mke2fs", "-q", "-F", "-t", "ext3", device)
        with mounted(device, point):
            # As large as a kernel and its initrd, and as little compressible.
            run("sh", "-c", f"head -c 40M /dev/urandom > {point}/initrd.img")
    with attached(disk, *root) as device:
        run("mke2fs", "-q", "-F", "-t", "ext4", device)
        with mounted(device, point):
            (point / "etc").mkdir()
            (point / "etc/fstab").write_text("/dev/vda3 / ext4 defaults 0 1\n")
            real_files(point, data)


def guest(path: Path, making: Making) -> None:
    make_guest_disk(path, making.scale.disk, making.scale.data_size)


def large_guest(path: Path, making: Making) -> None:
    make_guest_disk(path, making.scale.large, making.scale.large_data)


INPUTS.update(guest=guest, large_guest=large_guest)
