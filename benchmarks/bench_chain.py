# SPDX-License-Identifier: MIT
"""What works on a chain of qcow2 images and on their headers, against qemu-img, on tmpfs.

    python -m benchmarks.bench_chain [ROUNDS [MIB-OF-CHANGES [WORD-OF-A-TITLE]]]

commit, rebase and convert have an image with so many MiB of changes over a backing file that holds half as much. Each
run begins with fresh copies, which are not timed.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.raw_disk import run
from benchmarks.turns import COMMAND, Measured, measured, report

_SIZE = 4 << 30
_ALLOW = ("--allow-references", ".")
_ON_CHAINS = {
    "commit": ("commit", "-q", "top.qcow2"),
    "rebase onto another file": ("rebase", "-q", "-b", "other.qcow2", "-F", "qcow2", "top.qcow2"),
    "rebase onto none": ("rebase", "-q", "-b", "", "top.qcow2"),
    "convert to raw": ("convert", "-O", "raw", "top.qcow2", "new"),
    "convert to qcow2": ("convert", "-O", "qcow2", "top.qcow2", "new"),
    "measure": ("measure", "-O", "qcow2", "top.qcow2"),
}
_ON_HEADERS = {
    "resize": ("resize", "-q", "alone.qcow2", "+1G"),
    "snapshot -c": ("snapshot", "-c", "new", "alone.qcow2"),
    "snapshot -l": ("snapshot", "-l", "alone.qcow2"),
    "snapshot -a": ("snapshot", "-a", "s1", "alone.qcow2"),
    "snapshot -d": ("snapshot", "-d", "s1", "alone.qcow2"),
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    changes = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    chosen = sys.argv[3] if len(sys.argv) > 3 else ""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        make_images(work, changes)
        for title, words in {**_ON_CHAINS, **_ON_HEADERS}.items():
            if chosen in title:
                compare(work, title, words, rounds)


def make_images(work: Path, changes: int) -> None:
    """base and other differ in what they hold and top does not hold; alone stands on none and has snapshots."""
    kept = work / "kept"
    kept.mkdir()
    for name, first in (("base", 0), ("other", changes // 4), ("alone", 0)):
        image(kept / f"{name}.qcow2", first, max(1, changes // 2))
    top, below = kept / "top.qcow2", kept / "base.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(top))
    fill(top, changes, changes)
    run("qemu-img", "rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", str(top))
    for number in range(4):
        run("qemu-img", "snapshot", "-c", f"s{number}", str(kept / "alone.qcow2"))


def image(path: Path, first: int, count: int) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(_SIZE))
    fill(path, first, count)


def fill(path: Path, first: int, count: int) -> None:
    """Write count MiB from the first one on, each with other bytes."""
    commands = [f"write -q -P {1 + number % 255} {number}M 1M" for number in range(first, first + count)]
    run("qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)), str(path))


def compare(work: Path, title: str, words: tuple[str, ...], rounds: int) -> None:
    programs = {"pydiskimg": (COMMAND, *words), "qemu-img": ("qemu-img", *words)}
    if title in _ON_CHAINS:
        programs["pydiskimg"] += _ALLOW
    found: dict[str, list[Measured]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, command in programs.items():
            for path in work.iterdir():
                if path.is_file():
                    path.unlink()
            for path in (work / "kept").iterdir():
                shutil.copyfile(path, work / path.name)
            found[name].append(measured(command, cwd=work))
    for index, unit in enumerate(("", " (processor)")):
        medians = {name: statistics.median(one[index] for one in ones) for name, ones in found.items()}
        report(f"{title}{unit}", medians, ours="pydiskimg")


main()
