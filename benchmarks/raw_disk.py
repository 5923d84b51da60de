# SPDX-License-Identifier: MIT
"""What the conversions are measured with."""

from __future__ import annotations

import subprocess
from pathlib import Path

MIB = 1 << 20
SIZE = 1024 * MIB


def make_disk(work: Path) -> Path:
    """A disk with an ext4 file system of real files: /usr/lib and /usr/bin, about 400 MiB of them."""
    raw = work / "disk.raw"
    tree = work / "tree"
    tree.mkdir()
    subprocess.run(
        f"tar -C / -cf - usr/bin usr/lib 2>/dev/null | head -c {400 * MIB} | tar -C {tree} -xf - 2>/dev/null",
        shell=True,
        check=False,
    )
    with raw.open("wb") as file:
        file.truncate(SIZE)
    run("mke2fs", "-q", "-F", "-d", str(tree), str(raw))
    run("rm", "-rf", str(tree))
    return raw


def run(*command: str) -> str:
    """Run a program that must succeed; returns what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
