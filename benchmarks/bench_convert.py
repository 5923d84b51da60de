# SPDX-License-Identifier: MIT
"""Images to a block device (a loop device on tmpfs) and to a file, against qemu-img with its best flags. Needs root.

    python -m benchmarks.bench_convert [ROUNDS [SIZE-IN-MIB]]

The disk is an ext4 file system of real files; with a SIZE above 1024, several of them with different content.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.raw_disk import MIB, SIZE, make_disk, run
from benchmarks.turns import COMMAND, in_turns, report


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    size = int(sys.argv[2]) * MIB if len(sys.argv) > 2 else SIZE
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        raw = make_disk(work, size)
        images = {
            "qcow2 (uncompressed)": qcow2(raw, work / "plain.qcow2"),
            "qcow2 (zlib)": qcow2(raw, work / "zlib.qcow2", "-c"),
            "qcow2 (zstd)": qcow2(raw, work / "zstd.qcow2", "-c", "-o", "compression_type=zstd"),
            "raw": raw,
        }
        with block_device(work / "target", size) as device:
            for kind, image in images.items():
                medians = in_turns(onto(image, device), rounds=rounds)
                report(f"{kind} to a block device", medians, ours="pydiskimg")
        for kind, image in images.items():
            medians = in_turns(into_new_file(image, work / "new.raw"), rounds=rounds)
            report(f"{kind} to a new raw file", medians, ours="pydiskimg")


def onto(image: Path, device: str) -> dict[str, Callable[[], object]]:
    """Onto what exists and holds old data: all of it is written or zeroed."""
    return contenders(image, device, "-n", "-W", "-m", "8")


def into_new_file(image: Path, path: Path) -> dict[str, Callable[[], object]]:
    def fresh(convert: Callable[[], object]) -> Callable[[], object]:
        def run_fresh() -> None:
            path.unlink(missing_ok=True)
            convert()

        return run_fresh

    return {name: fresh(convert) for name, convert in contenders(image, str(path), "-W", "-m", "8").items()}


def contenders(image: Path, target: str, *options: str) -> dict[str, Callable[[], object]]:
    format_name = "raw" if image.suffix == ".raw" else "qcow2"

    def qemu(cache: str) -> Callable[[], object]:
        words = ("convert", *options, "-t", cache, "-f", format_name, "-O", "raw", str(image), target)
        return lambda: run("qemu-img", *words)

    return {
        "pydiskimg": lambda: run(COMMAND, "convert", "-f", format_name, str(image), target),
        "qemu-img -t none": qemu("none"),
        "qemu-img -t writeback": qemu("writeback"),
    }


def qcow2(raw: Path, path: Path, *options: str) -> Path:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path))
    return path


@contextmanager
def block_device(path: Path, size: int) -> Iterator[str]:
    """A loop device over a new file full of 0xFF."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(b"\xff" * MIB)
    device = run("losetup", "--find", "--show", str(path)).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)
        os.unlink(path)


main()
