# SPDX-License-Identifier: MIT
"""info and map of large images, against qemu-img: wall time with Python's start, and peak memory."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.turns import COMMAND, in_turns, report

CLUSTER = 1 << 16
TIB = 1 << 40
ENTRIES = CLUSTER // 8


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        empty, sparse = Path(name, "empty.qcow2"), Path(name, "sparse.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", str(empty), "64T")
        scatter(sparse)
        for title, image in (("empty, 64 TiB", empty), ("1 TiB, 1 % in random clusters", sparse)):
            for command, rounds in (("info", 41), ("map", 7)):
                words = (command, "--output=json", str(image))
                contenders = {"pydiskimg": runner(COMMAND, *words), "qemu-img": runner("qemu-img", *words)}
                report(f"{command}: {title}", in_turns(contenders, rounds=rounds), ours="pydiskimg")
                print(f"   peak memory: {peak_memory(COMMAND, *words) >> 20} MiB")


def scatter(path: Path) -> None:
    """Make a 1 TiB image whose allocated clusters, 1 % of all, are at random places in it and in the file."""
    rng = random.Random(1)
    clusters, tables = TIB // CLUSTER, TIB // CLUSTER // ENTRIES
    chosen = rng.sample(range(clusters), clusters // 100)
    first_data = 3 + tables
    used = first_data + len(chosen)
    blocks = -(-used // (CLUSTER // 2 - 1))
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, TIB, 0, tables, 2 * CLUSTER, CLUSTER, 1, 0, 0)
    places = dict(zip(chosen, range(first_data, used), strict=True))
    with path.open("wb") as file:
        file.write((head + struct.pack(">QQQII", 0, 0, 0, 4, 104)).ljust(CLUSTER, b"\0"))
        file.write(numbers((used + block) * CLUSTER for block in range(blocks)).ljust(CLUSTER, b"\0"))
        file.write(numbers((3 + table) * CLUSTER | 1 << 63 for table in range(tables)).ljust(CLUSTER, b"\0"))
        for table in range(tables):
            span = range(table * ENTRIES, (table + 1) * ENTRIES)
            file.write(numbers(places[index] * CLUSTER | 1 << 63 if index in places else 0 for index in span))
        file.seek(used * CLUSTER)
        file.write((b"\0\1" * (used + blocks)).ljust(blocks * CLUSTER, b"\0"))


def numbers(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


def runner(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def peak_memory(*command: str) -> int:
    """Bytes of memory that a command holds at most; started by a small process, since the starter's count as well."""
    code = "import os, sys; null = os.open(os.devnull, os.O_WRONLY); "
    code += "quiet = [(os.POSIX_SPAWN_DUP2, null, 1)]; "
    code += "child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet); "
    code += "print(os.wait4(child, 0)[2].ru_maxrss << 10)"
    return int(subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True).stdout)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


main()
