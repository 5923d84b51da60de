# SPDX-License-Identifier: MIT
"""qcow2 to a block device (a loop device on tmpfs), against qemu-img with its best flags. Needs root."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.turns import in_turns, report

MIB = 1 << 20
SIZE = 1024 * MIB
PYTHON = [sys.executable, "-m", "pydiskimg"]


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        raw = make_disk(work)
        images = {
            "uncompressed": qcow2(raw, work / "plain.qcow2"),
            "zlib": qcow2(raw, work / "zlib.qcow2", "-c"),
            "zstd": qcow2(raw, work / "zstd.qcow2", "-c", "-o", "compression_type=zstd"),
        }
        target = work / "target"
        target.write_bytes(b"\xff" * SIZE)
        device = run("losetup", "--find", "--show", str(target)).strip()
        try:
            for kind, image in images.items():
                medians = in_turns(contenders(image, device))
                report(f"convert qcow2 ({kind}) to a block device", medians, ours="pydiskimg")
        finally:
            run("losetup", "--detach", device)


def contenders(image: Path, device: str) -> dict[str, Callable[[], object]]:
    def qemu(cache: str) -> Callable[[], object]:
        return lambda: run(
            *("qemu-img", "convert", "-n", "-W", "-m", "8", "-t", cache, "-f", "qcow2", "-O", "raw", str(image), device)
        )

    return {
        "pydiskimg": lambda: run(*PYTHON, "convert", "-f", "qcow2", str(image), device),
        "qemu-img -t none": qemu("none"),
        "qemu-img -t writeback": qemu("writeback"),
    }


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


def qcow2(raw: Path, path: Path, *options: str) -> Path:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path))
    return path


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


main()
