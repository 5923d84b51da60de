# SPDX-License-Identifier: MIT
"""A tarball of a whole Debian to a bootable disk, raw and qcow2, against the usual pipeline of programs. Needs root.

    python -m benchmarks.bench_build [--rounds N] [--directory DIR] [ARCHIVE.tar.gz]

Without an archive, one is made with mmdebstrap. The pipeline unpacks the tarball, writes fstab and host name, makes the
table with sfdisk and the file system with mke2fs -d at the partition's offset, and for qcow2 converts with qemu-img; it
needs root for the owners, and leaves the boot loader out, which would take a mount and a chroot.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench_populate import unpack
from benchmarks.debian_tarball import debian_tarball
from benchmarks.raw_disk import run
from benchmarks.turns import COMMAND, measured_in_turns, report

SIZE = "4G"
UUID = "11111111-2222-3333-4444-555555555555"


def main() -> None:
    with debian_tarball("A tarball to a bootable disk") as (archive, work, rounds):
        contenders: dict[str, Callable[[], object]] = {
            "build": lambda: ours(archive, work, "raw"),
            "tar, sfdisk, mke2fs -d": lambda: piped(archive, work, "raw"),
            "build -O qcow2": lambda: ours(archive, work, "qcow2"),
            "the same, qemu-img convert": lambda: piped(archive, work, "qcow2"),
        }
        seconds, processor = measured_in_turns(contenders, rounds=rounds)
        for title, medians in (("seconds", seconds), ("processor seconds", processor)):
            names = list(contenders)
            for pair in (names[:2], names[2:]):
                report(title, {name: medians[name] for name in pair}, ours=pair[0])


def ours(archive: Path, work: Path, image_format: str) -> None:
    disk = work / f"disk.{image_format}"
    disk.unlink(missing_ok=True)
    run(COMMAND, "build", str(archive), str(disk), "-O", image_format, "--size", SIZE, "--hostname", "built")


def piped(archive: Path, work: Path, image_format: str) -> None:
    tree, raw, disk = work / "tree", work / "piped.raw", work / "piped.qcow2"
    for old in (raw, disk):
        old.unlink(missing_ok=True)
    unpack(archive, tree, "gzip")
    (tree / "etc/fstab").write_text(f"UUID={UUID} / ext4 errors=remount-ro 0 1\n")
    (tree / "etc/hostname").write_text("built\n")
    run("truncate", "-s", SIZE, str(raw))
    subprocess.run(["sfdisk", "-q", str(raw)], input="2048,,83,*\n", text=True, check=True)
    blocks = (raw.stat().st_size - (1 << 20)) // 4096
    options = ("-b", "4096", "-U", UUID, "-E", "offset=1048576", "-d", str(tree))
    run("mke2fs", "-q", "-F", "-t", "ext4", *options, str(raw), str(blocks))
    run("sync", str(raw))
    if image_format == "qcow2":
        run("qemu-img", "convert", "-O", "qcow2", str(raw), str(disk))
    shutil.rmtree(tree)


if __name__ == "__main__":
    main()
