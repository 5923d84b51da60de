# SPDX-License-Identifier: MIT
"""What the identity adds to a create: the verb with IDENTITY=yes and no, in turns. Needs root.

    python -m benchmarks.bench_identity [ROUNDS]

The image is a qcow2 of the small Debian of tests/demo, with an SSH server's files, so that host keys are made, and the
instance has a NIC with an address. Its disk is on tmpfs. GROW is off: what is measured is the identity alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.turns import measured_in_turns, report
from tests.fixtures.debian_system import debian_system
from tests.fixtures.node import NIC, Node

MIB = 1 << 20
START = MIB  # of the only partition
FILES = {
    "/etc/ssh/sshd_config": "",
    "/usr/sbin/sshd": "",
    "/etc/machine-id": f"{'a' * 32}\n",
    "/sbin/ifup": "",
    "/etc/network/interfaces": "auto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\n",
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        work = Path(name)
        image = system_image(work)
        contenders = {switch: create(work, image, switch) for switch in ("no", "yes")}
        seconds, processor = measured_in_turns(contenders, rounds=rounds)
        for title, medians in (("seconds", seconds), ("processor seconds", processor)):
            report(title, medians, ours="no")
            print(f"   the identity adds             {medians['yes'] - medians['no']:8.3f} s")


def system_image(work: Path) -> Path:
    """Return a raw image of the small Debian with FILES in it."""
    demo = Path(__file__).resolve().parent.parent / ".demo"
    demo.mkdir(exist_ok=True)
    image = work / "image"
    run("qemu-img", "convert", "-O", "raw", debian_system(demo).qcow2, image)
    point = work / "point"
    point.mkdir()
    run("mount", "-o", f"loop,offset={START}", image, point)
    try:
        for path, text in FILES.items():
            file = Path(f"{point}{path}")
            file.parent.mkdir(parents=True, exist_ok=True)
            # busybox's programs are links to its absolute path, which this machine has, too.
            file.unlink(missing_ok=True)
            file.write_text(text)
    finally:
        run("umount", point)
    return image


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def create(work: Path, image: Path, switch: str) -> Callable[[], None]:
    node = Node.make(work / switch, IMAGE_NAME="x", IMAGE_TYPE="raw", ARCH="x86_64", IDENTITY=switch, GROW="no")
    shutil.copy(image, node.images / "x-x86_64.raw")
    disk = work / f"{switch}.disk"

    def run_verb() -> None:
        with disk.open("wb") as file:
            file.truncate(600 * MIB)
        done = node.create(disk, **NIC)
        assert done.returncode == 0, done.stderr

    return run_verb


if __name__ == "__main__":
    main()
