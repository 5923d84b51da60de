# SPDX-License-Identifier: MIT
"""The files of an ext4 without a mount, against the kernel and debugfs. Needs root.

    python -m benchmarks.bench_read [--rounds N] [--directory DIR] [ARCHIVE.tar.gz]

The file system is a whole Debian, of the archive or made with mmdebstrap, in a file of DIR: all of it as a tar archive
to /dev/null, against mount and tar; one file to standard output, against debugfs, which gets the start of Python
besides. Processor time is that of the programs, without the kernel's threads that read loop devices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.debian_tarball import debian_tarball
from benchmarks.raw_disk import MIB, run
from benchmarks.turns import COMMAND, measured_in_turns, report
from pydiskimg import open_disk, open_tar, populate

SIZE = 4096 * MIB
FILE = "/etc/passwd"
TAR = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--format=pax", "-S")


def main() -> None:
    with debian_tarball("The files of an ext4 without a mount") as (archive, work, rounds):
        disk = work / "disk"
        with disk.open("wb") as file:
            file.truncate(SIZE)
        with open_disk(disk, writable=True) as target, open_tar(archive) as entries:
            populate(target, entries)
        for what, contenders in (("tar-out", whole(disk, work)), ("cat", single(disk))):
            seconds, processor = measured_in_turns(contenders, rounds=rounds)
            report(f"{what}, seconds", seconds, ours="pydiskimg")
            report(f"{what}, processor seconds", processor, ours="pydiskimg")


def whole(disk: Path, work: Path) -> dict[str, Callable[[], object]]:
    point = work / "point"
    point.mkdir()

    def mounted() -> None:
        run("mount", "-o", "loop,ro", str(disk), str(point))
        try:
            # Told apart from /dev/null, for which GNU tar reads no file.
            run("sh", "-c", f"tar -C {point} {' '.join(TAR)} -cf - . | cat > /dev/null")
        finally:
            run("umount", str(point))

    return {
        "pydiskimg": lambda: run("sh", "-c", f"{COMMAND} tar-out {disk} / - | cat > /dev/null"),
        "mount, tar": mounted,
    }


def single(disk: Path) -> dict[str, Callable[[], object]]:
    def debugfs() -> None:
        run("debugfs", "-R", f"cat {FILE}", str(disk))
        run(sys.executable, "-c", "pass")

    return {"pydiskimg": lambda: run(COMMAND, "cat", str(disk), FILE), "debugfs, python": debugfs}


if __name__ == "__main__":
    main()
