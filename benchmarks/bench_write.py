# SPDX-License-Identifier: MIT
"""raw to qcow2 (files on tmpfs), against qemu-img with its best flags: time, size and peak memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.raw_disk import MIB, make_disk, run
from benchmarks.turns import COMMAND, in_turns, report

KINDS = {
    "uncompressed": ([], ["-W", "-m", "8"], 7),
    "zlib": (["-c"], ["-W", "-m", "8"], 3),
    "zstd": (["-c", "-o", "compression_type=zstd"], ["-W", "-m", "8"], 5),
}


def main() -> None:
    """Measure each kind, and let qemu-img judge what was made."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        raw = make_disk(work)
        for kind, (options, fast, rounds) in KINDS.items():
            ours, theirs = work / "ours.qcow2", work / "theirs.qcow2"
            medians = in_turns(contenders(raw, ours, theirs, options, fast), rounds=rounds)
            report(f"convert raw to qcow2 ({kind})", medians, ours="pydiskimg")
            run("qemu-img", "check", "-q", str(ours))
            run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(raw), str(ours))
            sizes = [path.stat().st_blocks * 512 for path in (ours, theirs)]
            print(f"   size {sizes[0] / MIB:.1f} MiB, qemu-img's {sizes[1] / MIB:.1f}: {sizes[0] / sizes[1]:.3f} of it")
            print(f"   peak memory {peak_memory(raw, ours, options):.0f} MiB")


def contenders(
    raw: Path, ours: Path, theirs: Path, options: list[str], fast: list[str]
) -> dict[str, Callable[[], object]]:
    common = ["convert", "-f", "raw", "-O", "qcow2"]
    return {
        "pydiskimg": lambda: run(COMMAND, *common, *options, str(raw), str(ours)),
        "qemu-img": lambda: run("qemu-img", *common, *options, str(raw), str(theirs)),
        "qemu-img -W -m 8": lambda: run("qemu-img", *common, *options, *fast, str(raw), str(theirs)),
    }


def peak_memory(raw: Path, path: Path, options: list[str]) -> float:
    """MiB of one conversion, measured in a process of its own."""
    code = (
        "import resource, sys; from pydiskimg.cli import main; status = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(shown) / 1024


main()
