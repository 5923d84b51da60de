# SPDX-License-Identifier: MIT
"""Images through pipes, against the way round a temporary file that qemu-img has to go; times and peak memory."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.raw_disk import make_disk
from benchmarks.turns import COMMAND, in_turns, report

MIB = 1 << 20
CONVERT = f"{COMMAND} convert"
KINDS = {
    "uncompressed": ("", ""),
    "zlib": ("-c", "-c"),
    "zstd": ("-c -o compression_type=zstd", "-c -o compression_type=zstd"),
}


def main() -> None:
    rounds = int(os.environ.get("ROUNDS", "5"))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        raw = make_disk(work)
        for kind, (ours, theirs) in KINDS.items():
            stream = work / "stream.qcow2"
            medians = in_turns(
                {
                    "pydiskimg": shell(f"{CONVERT} {ours} -O qcow2 {raw} - | cat > /dev/null"),
                    "qemu-img + cat": shell(
                        f"qemu-img convert -f raw -O qcow2 -W -m 8 {theirs} {raw} {work}/t && "
                        f"cat {work}/t | cat > /dev/null"
                    ),
                },
                rounds=rounds,
            )
            report(f"a disk to a pipe ({kind})", medians, ours="pydiskimg")
            memory(f"{CONVERT} {ours} -O qcow2 {raw} - > {stream}")
            size = f"{stream.stat().st_size / MIB:.0f} MiB"
            subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", stream], check=True)
            subprocess.run(["qemu-img", "convert", *theirs.split(), "-O", "qcow2", raw, work / "t"], check=True)
            print(f"   size {size}, qemu-img's {(work / 't').stat().st_size / MIB:.0f} MiB")
            medians = in_turns(
                {
                    "pydiskimg": shell(f"cat {stream} | {CONVERT} -f qcow2 - {work}/back"),
                    "cat + qemu-img": shell(
                        f"cat {stream} | cat > {work}/t && "
                        f"qemu-img convert -W -m 8 -f qcow2 -O raw {work}/t {work}/back"
                    ),
                },
                rounds=rounds,
            )
            report(f"a pipe to a file ({kind})", medians, ours="pydiskimg")
            memory(f"{CONVERT} -f qcow2 - {work}/back < {stream}")
            subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", raw, work / "back"], check=True)


def shell(command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, shell=True, check=True)


def memory(command: str) -> None:
    done = subprocess.run(
        f"/usr/bin/time -v {command}",
        shell=True,
        check=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    match = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
    print(f"   peak memory {int(match[1]) // 1024 if match else '?'} MiB")


main()
