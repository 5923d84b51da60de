# SPDX-License-Identifier: MIT
"""Fragmented images: extents of 4 KiB with gaps between them, raw to qcow2 and back, against qemu-img.

    python -m benchmarks.bench_fragments [ROUNDS [EXTENTS [STRIDE-IN-KIB [DIRECTORY]]]]

The raw image has one extent in each stride; the qcow2 image is qemu-img's of it. Without a DIRECTORY all is on tmpfs,
which must hold the raw data and two qcow2 images, of a cluster for each extent at most.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.raw_disk import run
from benchmarks.turns import COMMAND, Measured, measured, report

_KIB = 1 << 10
_EXTENT = 4 * _KIB


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    extents = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 17
    stride = int(sys.argv[3]) * _KIB if len(sys.argv) > 3 else 128 * _KIB
    with tempfile.TemporaryDirectory(dir=sys.argv[4] if len(sys.argv) > 4 else "/dev/shm") as name:
        work = Path(name)
        make_raw(work / "disk.raw", extents, stride)
        run("qemu-img", "convert", "-W", "-m", "8", "-O", "qcow2", str(work / "disk.raw"), str(work / "disk.qcow2"))
        for source, target in (("raw", "qcow2"), ("qcow2", "raw")):
            compare(work, source, target, rounds)


def make_raw(path: Path, extents: int, stride: int) -> None:
    """Write extents with bytes of their own, in each stride one, a page after its start."""
    data = os.urandom(_EXTENT - 8)
    with path.open("wb") as file:
        file.truncate(extents * stride)
        for number in range(extents):
            os.pwrite(file.fileno(), number.to_bytes(8, "big") + data, number * stride + _EXTENT)


def compare(work: Path, source: str, target: str, rounds: int) -> None:
    words = ("convert", "-W", "-m", "8", "-f", source, "-O", target, f"disk.{source}", "new")
    programs = {"pydiskimg": (COMMAND, *words), "qemu-img": ("qemu-img", *words)}
    found: dict[str, list[Measured]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, command in programs.items():
            (work / "new").unlink(missing_ok=True)
            found[name].append(measured(command, cwd=work))
    (work / "new").unlink()
    for index, unit in enumerate(("", " (processor)")):
        medians = {name: statistics.median(one[index] for one in ones) for name, ones in found.items()}
        report(f"{source} to {target}{unit}", medians, ours="pydiskimg")


main()
