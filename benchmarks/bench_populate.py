# SPDX-License-Identifier: MIT
"""A tarball of a whole Debian to an ext4 file system in a file, against what does the same with mke2fs. Needs root.

    python -m benchmarks.bench_populate [--rounds N] [--directory DIR] [ARCHIVE.tar.gz]

Without an archive, one is made with mmdebstrap. The others: mke2fs, mount and tar, with gzip and with pigz; mke2fs -d
of the tarball where mke2fs can (1.47.1), else of a tree that it is unpacked into first, or that is there already.
Processor time is that of the programs, without the kernel's threads that write to loop devices.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.debian_tarball import debian_tarball
from benchmarks.raw_disk import MIB, run
from benchmarks.turns import measured_in_turns, report

SIZE = 4096 * MIB
# As our own programs begin.
OURS = (
    "import sys; from pydiskimg import open_disk, open_tar, populate\n"
    "from pydiskimg.linux.stdio import begin_process; begin_process()\n"
    "with open_disk(sys.argv[2], writable=True) as disk, open_tar(sys.argv[1]) as entries: populate(disk, entries)"
)
TAR = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")


def main() -> None:
    with debian_tarball("A tarball to an ext4 file system") as (archive, work, rounds):
        seconds, processor = measured_in_turns(contenders(archive, work), rounds=rounds)
        report("seconds", seconds, ours="pydiskimg")
        report("processor seconds", processor, ours="pydiskimg")


def contenders(archive: Path, work: Path) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        "pydiskimg": lambda: ours(archive, work),
        "mke2fs, mount, tar xzf": lambda: mounted(archive, work, "gzip"),
        "mke2fs, mount, tar, pigz": lambda: mounted(archive, work, "pigz"),
    }
    if takes_tarballs():
        found["mke2fs -d TARBALL"] = lambda: run("mke2fs", "-q", "-F", "-d", str(archive), str(new_file(work)))
        return found
    tree = work / "tree"
    unpack(archive, tree, "gzip")
    found["mke2fs -d TREE, unpacked before"] = lambda: run("mke2fs", "-q", "-F", "-d", str(tree), str(new_file(work)))
    found["tar xzf, mke2fs -d TREE"] = lambda: unpacked_first(archive, work)
    return found


def new_file(work: Path) -> Path:
    disk = work / "disk"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(SIZE)
    return disk


def ours(archive: Path, work: Path) -> None:
    # -I: the installed modules, which are compiled, as the other programs are.
    run(sys.executable, "-I", "-c", OURS, str(archive), str(new_file(work)))


def mounted(archive: Path, work: Path, program: str) -> None:
    disk, target = new_file(work), work / "mnt"
    target.mkdir(exist_ok=True)
    run("mke2fs", "-q", "-F", "-t", "ext4", str(disk))
    run("mount", "-o", "loop", str(disk), str(target))
    try:
        unpack(archive, target, program)
    finally:
        run("umount", str(target))


def unpack(archive: Path, target: Path, program: str) -> None:
    target.mkdir(exist_ok=True)
    run("tar", "-xpf", str(archive), "-I", program, *TAR, "-C", str(target))


def unpacked_first(archive: Path, work: Path) -> None:
    unpack(archive, work / "again", "gzip")
    run("mke2fs", "-q", "-F", "-d", str(work / "again"), str(new_file(work)))
    shutil.rmtree(work / "again")


def takes_tarballs() -> bool:
    version = subprocess.run(["mke2fs", "-V"], capture_output=True, text=True, check=True).stderr.split()[1]
    return tuple(map(int, version.split("-")[0].split("."))) >= (1, 47, 1)


if __name__ == "__main__":
    main()
