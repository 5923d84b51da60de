# SPDX-License-Identifier: MIT
"""An instance's disk as ganeti-instance-image lays it out: a table, /boot, swap, a root with a real Debian's files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.raw_disk import GIB, MIB, real_files, run

BOOT = (1 * MIB, 100 * MIB)
SWAP = (101 * MIB, 128 * MIB)
ROOT_START = 229 * MIB


def make_guest_disk(disk: Path, size: int = GIB, data: int = 1) -> Path:
    """Make a raw disk of size bytes with data times some 400 MiB of files from /usr."""
    with disk.open("wb") as file:
        file.truncate(size)
    places = (BOOT, SWAP, (ROOT_START, size - ROOT_START))
    table = "".join(
        f"{start // MIB}MiB,{length // MIB}MiB,{kind}\n"
        for (start, length), kind in zip(places, ("83", "82", "83"), strict=True)
    )
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True)
    with partition(disk, SWAP) as device:
        run("mkswap", device)
    with partition(disk, BOOT) as device:
        run("mke2fs", "-q", "-F", "-t", "ext3", device)
        with mounted(device, disk.with_suffix(".mnt")) as point:
            # As large as a kernel and its initrd, and as little compressible.
            run("sh", "-c", f"head -c 40M /dev/urandom > {point}/initrd.img")
    with partition(disk, places[2]) as device:
        run("mke2fs", "-q", "-F", "-t", "ext4", device)
        with mounted(device, disk.with_suffix(".mnt")) as point:
            (point / "etc").mkdir()
            (point / "etc/fstab").write_text("/dev/vda3 / ext4 defaults 0 1\n")
            for number in range(data):
                (point / str(number)).mkdir()
                real_files(point / str(number), number)
    return disk


@contextmanager
def partition(disk: Path, place: tuple[int, int] | None = None) -> Iterator[str]:
    """Give a loop device over place (start, length in bytes), or over the whole disk."""
    where = ["--offset", str(place[0]), "--sizelimit", str(place[1])] if place else []
    device = run("losetup", "--find", "--show", *where, str(disk)).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextmanager
def mounted(device: str, point: Path) -> Iterator[Path]:
    """Mount a file system on the directory point, which is made."""
    point.mkdir(exist_ok=True)
    run("mount", device, str(point))
    try:
        yield point
    finally:
        run("umount", str(point))
