# SPDX-License-Identifier: MIT
"""What the boot loader adds to a create: the verb with BOOTLOADER=auto and none, in turns. Needs root.

    python -m benchmarks.bench_boot_loader [ROUNDS]

The tarball holds Debian's GRUB (grub-pc-bin), its font and 64 MiB of other files; everything is on tmpfs.
"""

from __future__ import annotations

import random
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.turns import in_turns, report
from tests.fixtures.node import Node

MIB = 1 << 20
PLACES = ("/usr/lib/grub/i386-pc", "/usr/share/grub")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        medians = in_turns({loader: create(work, loader) for loader in ("none", "auto")}, rounds=rounds)
        report("create", medians, ours="none")
        print(f"   the boot loader adds          {medians['auto'] - medians['none']:8.3f} s")


def create(work: Path, loader: str) -> Callable[[], None]:
    node = Node.make(work / loader, IMAGE_NAME="x", IMAGE_TYPE="tarball", ARCH="x86_64", BOOTLOADER=loader)
    make_tarball(node.images / "x-x86_64.tar")
    (node.images / "x-x86_64.tar").rename(node.images / "x-x86_64.tar.gz")
    disk = work / f"{loader}.disk"

    def run() -> None:
        with disk.open("wb") as file:
            file.truncate(600 * MIB)
        done = node.create(disk)
        assert done.returncode == 0, done.stderr

    return run


def make_tarball(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for place in ("/etc/hostname", *PLACES):
            archive.add(place, f".{place}")
        for number in range(64):
            file = path.with_name(f"noise{number}")
            file.write_bytes(random.Random(number).randbytes(MIB))
            archive.add(file, f"./srv/{file.name}")
            file.unlink()


if __name__ == "__main__":
    main()
