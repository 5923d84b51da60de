# SPDX-License-Identifier: MIT
"""What the conversions are measured with."""

from __future__ import annotations

import subprocess
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
SIZE = GIB
DATA = 400 * MIB


def make_disk(work: Path, size: int = SIZE) -> Path:
    """A raw disk: in each GiB an ext4 file system with some 400 MiB of real files from /usr, other ones each time."""
    raw = work / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(size)
    for number in range(max(1, size // SIZE)):
        tree = work / "tree"
        tree.mkdir()
        real_files(tree, number)
        offset = f"offset={number * SIZE}"
        run("mke2fs", "-q", "-F", "-E", offset, "-d", str(tree), str(raw), f"{min(SIZE, size) >> 10}k")
        run("rm", "-rf", str(tree))
    return raw


def real_files(tree: Path, number: int = 0) -> None:
    """Put some 400 MiB of real files into the directory tree, other ones for each number."""
    subprocess.run(
        "{ tar -C / -cf - usr/bin usr/lib usr/share usr/include; tar -C / -cf - usr/bin usr/lib; } 2>/dev/null"
        f" | tail -c +{number * DATA + 1} | head -c {DATA} | tar -C {tree} -ixf - 2>/dev/null",
        shell=True,
        check=False,
    )


def run(*command: str) -> str:
    """Run a program that must succeed; returns what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
