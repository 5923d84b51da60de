# SPDX-License-Identifier: MIT
"""Dumps (dump -z9) restored into a new ext4 on a loop device on tmpfs, against restore -r. Needs root.

    python -m benchmarks.bench_dump [ROUNDS]

One of few large files and one of many small ones; the time with Python's start, and up to the unmounting.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.raw_disk import MIB, make_disk, run
from benchmarks.turns import in_turns, report

CODE = (
    "import os, sys; from pydiskimg import open_dump, restore_dump;"
    "restore_dump(open_dump(os.open(sys.argv[1], os.O_RDONLY), sys.argv[1]), sys.argv[2])"
)
SMALL_FILES = ("perl", "i18n", "locale", "doc", "man", "zoneinfo", "python3", "bash-completion")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        for title, disk in (("400 MiB of /usr", make_disk(work)), ("many small files", small_files(work))):
            with attached(disk) as device:
                run("dump", "-0", "-q", "-z9", "-f", str(work / "a.dump"), device)
            disk.unlink()
            report(title, in_turns(contenders(work), rounds=rounds), ours="pydiskimg")


def small_files(work: Path) -> Path:
    disk, tree = work / "small.raw", work / "small"
    tree.mkdir()
    for name in SMALL_FILES:
        if (source := Path("/usr/share", name)).is_dir():
            run("cp", "-a", str(source), str(tree))
    with disk.open("wb") as file:
        file.truncate(1024 * MIB)
    run("mke2fs", "-q", "-F", "-d", str(tree), str(disk))
    run("rm", "-rf", str(tree))
    return disk


def contenders(work: Path) -> dict[str, Callable[[], object]]:
    dump = str(work / "a.dump")

    def ours(target: Path) -> None:
        run(sys.executable, "-c", CODE, dump, str(target))

    def theirs(target: Path) -> None:
        subprocess.run(["restore", "-r", "-f", dump], check=True, capture_output=True, cwd=target)

    def into_new(restore: Callable[[Path], None]) -> Callable[[], None]:
        def measured() -> None:
            with mounted(work) as target:
                restore(target)

        return measured

    return {"pydiskimg": into_new(ours), "restore -r": into_new(theirs)}


@contextmanager
def mounted(work: Path) -> Iterator[Path]:
    """A new ext4 of 2 GiB; making and mounting it takes both contenders the same."""
    image, target = work / "target.raw", work / "target"
    with image.open("wb") as file:
        file.truncate(2048 * MIB)
    target.mkdir(exist_ok=True)
    run("mke2fs", "-q", "-F", "-t", "ext4", str(image))
    try:
        with attached(image) as device:
            run("mount", device, str(target))
            try:
                yield target
            finally:
                run("umount", str(target))
    finally:
        image.unlink()


@contextmanager
def attached(image: Path) -> Iterator[str]:
    device = run("losetup", "--find", "--show", str(image)).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


main()
