# SPDX-License-Identifier: MIT
"""Short commands on small images, in turns with qemu-img: the least and the median, and the least of the processor.

    python -m benchmarks.bench_start [TURNS]

Nearly all that such a command takes is its start; the least of many turns is what other work on the machine left alone.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.turns import COMMAND

IMAGE, RAW = "{}.qcow2", "{}.raw"  # of each program its own
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("--version",),
    ("--help",),
    ("convert", "--help"),
    ("info", IMAGE),
    ("map", IMAGE),
    ("check", IMAGE),
    ("measure", "-O", "raw", IMAGE),
    ("measure", "-O", "qcow2", IMAGE),
    ("compare", RAW, RAW),
    ("resize", RAW, "1M"),
    ("resize", IMAGE, "1G"),
    ("snapshot", "-l", IMAGE),
    ("snapshot", "-c", "new", IMAGE),
    ("snapshot", "-a", "new", IMAGE),
    ("snapshot", "-d", "new", IMAGE),
    ("resize", IMAGE, "+1M"),
    ("resize", "--shrink", IMAGE, "-1M"),
)


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as name:
        programs = {"pydiskimg": COMMAND, "qemu-img": "qemu-img"}
        for program in programs:
            make_images(Path(name, program))
        python = [run([sys.executable, "-c", "pass"]) for _ in range(turns)]
        print(f"{'':24}milliseconds: least, median, least of the processor\n{'python -c pass':24}{told(python)}")
        found: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
        for _ in range(turns):
            for words in COMMANDS:
                for program, command in programs.items():
                    arguments = [word.format(Path(name, program)) for word in words]
                    found.setdefault(words, {}).setdefault(program, []).append(run([command, *arguments]))
        for words, taken in found.items():
            ours, theirs = (taken[program] for program in programs)
            least, median = (how(t for t, _ in ours) / how(t for t, _ in theirs) for how in (min, statistics.median))
            title = " ".join(word for word in words if "{}" not in word)
            print(f"{title:24}{told(ours)}  qemu-img {told(theirs)}  {least:4.1f} and {median:4.1f} times as long")


def make_images(path: Path) -> None:
    image, raw = IMAGE.format(path), RAW.format(path)
    run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1G"])
    run(["qemu-io", "-c", "write 0 1M", "-c", "write 512M 1M", image])
    run(["qemu-img", "snapshot", "-c", "one", image])
    run(["qemu-img", "create", "-q", "-f", "raw", raw, "1M"])


def run(command: list[str]) -> tuple[float, float]:
    """Run a program that must succeed; returns milliseconds, and those of the processor."""
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    used, start = processor(), time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    taken = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    return taken * 1e3, (processor() - used) * 1e3


def processor() -> float:
    """Seconds of the processor that all programs took that were run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def told(taken: list[tuple[float, float]]) -> str:
    by_clock = [seconds for seconds, _ in taken]
    return f"{min(by_clock):6.1f} {statistics.median(by_clock):6.1f} {min(used for _, used in taken):6.1f}"


if __name__ == "__main__":
    main()
