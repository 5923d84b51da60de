# SPDX-License-Identifier: MIT
"""create of a whole Debian from its tarball: this checkout, without its identity, and another checkout, in turns.

    python -m benchmarks.bench_create [--rounds N] [--directory DIR] [--other CHECKOUT] ARCHIVE.tar.gz

The instance's disk is a new file of 4 GiB in DIR, with the kernel inside. Needs root where the other checkout does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.turns import measured_in_turns, report
from tests.fixtures.node import NIC, PATH, ROOT, Node, create_environment

SIZE = 4096 << 20
OURS = "pydiskimg"


def main() -> None:
    parser = argparse.ArgumentParser(description="create from a tarball")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--other", type=Path)
    parser.add_argument("archive", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        work, peaks = Path(name), dict[str, int]()
        archive = arguments.archive.resolve()
        contenders = {
            OURS: create(work / "ours", archive, ROOT, peaks, IDENTITY="yes"),
            "IDENTITY=no": create(work / "without", archive, ROOT, peaks, IDENTITY="no"),
        }
        if arguments.other:
            contenders["the other checkout"] = create(work / "other", archive, arguments.other, peaks, IDENTITY="yes")
        seconds, processor = measured_in_turns(contenders, rounds=arguments.rounds)
    report("seconds", seconds, ours=OURS)
    report("processor seconds", processor, ours=OURS)
    for what, peak in peaks.items():
        print(f"   {what}: at most {peak >> 20} MiB of memory")


def create(
    directory: Path, archive: Path, checkout: Path, peaks: dict[str, int], **settings: str
) -> Callable[[], None]:
    node = Node.make(directory, IMAGE_NAME="x", IMAGE_TYPE="tarball", ARCH="x86_64", SWAP="no", **settings)
    (node.images / "x-x86_64.tar.gz").symlink_to(archive)
    disk = directory / "disk"

    def run_verb() -> None:
        disk.unlink(missing_ok=True)
        disk.touch()
        os.truncate(disk, SIZE)
        process = subprocess.Popen(
            node.command("create"),
            cwd=checkout,
            env={"PATH": PATH, **create_environment(disk, **NIC)},
            stderr=subprocess.PIPE,
            umask=0o077,
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0, said.decode()
        peaks[directory.name] = max(peaks.get(directory.name, 0), used.ru_maxrss << 10)

    return run_verb


if __name__ == "__main__":
    main()
