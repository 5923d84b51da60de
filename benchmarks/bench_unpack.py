# SPDX-License-Identifier: MIT
"""Unpacking against GNU tar, in turns: medians of wall and processor time, and the ratio (below 1: we are faster).

usage: bench_unpack.py [--rounds N] [--directory DIR] [ARCHIVE ...]

Without an archive, one is packed from /usr (share/doc, lib/python3*, bin) and /etc, with gzip, xz and not compressed.
Each unpacking goes to a fresh directory below DIR, and ends with syncfs(), as an installation does.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TAR = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")
OURS = "import sys; from pydiskimg.files.tar import extract; extract(sys.argv[1], sys.argv[2])"
TREES = ("etc", "usr/share/doc", "usr/bin", "usr/lib/python3", "usr/lib/python3.11")


def tar(archive: Path, target: Path) -> list[str]:
    return ["tar", "-xpf", str(archive), *TAR, "-C", str(target)]


def ours(archive: Path, target: Path) -> list[str]:
    return [sys.executable, "-c", OURS, str(archive), str(target)]


def timed(command: list[str], target: Path) -> tuple[float, float, int]:
    """Return seconds of wall and of processor time, and the peak of memory in MiB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with status {process.returncode}")
    sync(target)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, usage.ru_maxrss >> 10


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(fd)
    finally:
        os.close(fd)


def compare(archive: Path, scratch: Path, rounds: int) -> None:
    results: dict[str, list[tuple[float, float, int]]] = {"tar": [], "pydiskimg": []}
    programs: dict[str, Callable[[Path, Path], list[str]]] = {"tar": tar, "pydiskimg": ours}
    for index in range(rounds + 1):
        for name, command in programs.items():
            target = Path(tempfile.mkdtemp(dir=scratch))
            result = timed(command(archive, target), target)
            if index:  # the first round warms the cache
                results[name].append(result)
            shutil.rmtree(target)
            sync(scratch)
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in results.items()
    }
    for name, (wall, processor, memory) in medians.items():
        print(f"{archive.name:14} {name:10} {wall:7.3f} s wall  {processor:7.3f} s processor  {memory:5.0f} MiB")
    ratio = medians["pydiskimg"][0] / medians["tar"][0]
    print(f"{archive.name:14} {'ratio':10} {ratio:7.2f}")


def pack(scratch: Path) -> list[Path]:
    trees = [tree for tree in TREES if Path("/", tree).exists()]
    archives = []
    for suffix, option in ((".tar", "--no-auto-compress"), (".tar.gz", "-z"), (".tar.xz", "-J")):
        archive = scratch / f"tree{suffix}"
        command = ["tar", "-cpf", str(archive), option, *TAR, "--format=pax", "-C", "/", *trees]
        subprocess.run(command, check=True, env=os.environ | {"XZ_OPT": "-0 -T0"})
        archives.append(archive)
    return archives


def main() -> None:
    parser = argparse.ArgumentParser(description="Unpacking against GNU tar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("archives", type=Path, nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        for archive in arguments.archives or pack(Path(name)):
            compare(archive.resolve(), Path(name), arguments.rounds)


if __name__ == "__main__":
    main()
