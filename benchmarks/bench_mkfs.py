# SPDX-License-Identifier: MIT
"""Making file systems against mke2fs -F -q, in turns, on sparse files: medians, ratio, bytes that the file takes.

    python -m benchmarks.bench_mkfs [--rounds N] [--directory DIR]

Ours runs in this process, as it does in an installation; mke2fs is a program to be started. Both get a fresh sparse
file in each round and do not flush (a memory file system does not need it, a disk would measure the disk): so give a
DIR in memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.turns import in_turns, report
from pydiskimg.disks.file import FileDisk
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.units import GIB, MIB, TIB, format_size

CASES = (
    (64 * MIB, "ext2", None),
    (10 * GIB, "ext3", None),
    (10 * GIB, "ext4", None),
    (1 * TIB, "ext4", None),
    (1 * TIB, "ext4", 1024),
    (15 * TIB, "ext4", None),
)


@contextmanager
def sparse(path: Path, size: int) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def ours(path: Path, size: int, kind: str, block_size: int | None) -> None:
    with sparse(path, size) as fd:
        make_ext(FileDisk(fd, str(path), reads_as_zero=True), kind=kind, block_size=block_size)


def mke2fs(path: Path, size: int, kind: str, block_size: int | None) -> None:
    with sparse(path, size):
        pass
    options = ["-b", str(block_size)] if block_size else []
    program = shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program, "mke2fs is not installed"
    subprocess.run([program, "-F", "-q", "-t", kind, *options, str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/dev/shm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        for size, kind, block_size in CASES:
            mine, peer = Path(directory, "ours"), Path(directory, "mke2fs")
            medians = in_turns(
                {
                    "pydiskimg": lambda: ours(mine, size, kind, block_size),  # noqa: B023 - used in this turn only
                    "mke2fs": lambda: mke2fs(peer, size, kind, block_size),  # noqa: B023 - used in this turn only
                },
                rounds=arguments.rounds,
            )
            blocks = f", blocks of {block_size}" if block_size else ""
            report(f"{kind}, {format_size(size)}{blocks}", medians, ours="pydiskimg")
            taken = [format_size(path.stat().st_blocks * 512) for path in (mine, peer)]
            print(f"   taken by the file: {taken[0]}, by mke2fs {taken[1]}")
            mine.unlink()
            peer.unlink()


if __name__ == "__main__":
    main()
