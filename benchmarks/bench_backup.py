# SPDX-License-Identifier: MIT
"""export and import of an instance's disk against the ways of ganeti-instance-image 0.7: times, sizes, peak memory.

usage: bench_backup.py [--rounds N] [--directory DIR] [--temporary DIR] [export] [import] [memory]

Measured is a block device (a loop device over a file in DIR, which should be in memory) to a pipe and back: a
partition table, /boot with 40 MiB that do not compress, swap, a root of ext4 with some 400 MiB of files from /usr, on a
disk of 1 GiB and on one of 10 GiB. The old ways are those of its scripts, without what these do besides (partitioning,
GRUB): in their favour. Their temporary files are where those scripts put them unless told otherwise, below /tmp.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.guest_disk import BOOT, ROOT_START, make_guest_disk, partition
from benchmarks.raw_disk import GIB, MIB, run
from benchmarks.turns import in_turns, report

KINDS = ("none", "zlib", "zstd")
PARTS = ("export", "import", "memory")
# Sizes, and how many times 400 MiB of files are on each.
DISKS = ((GIB, 1), (10 * GIB, 2))
OURS = "ganeti_os"


class Bench:
    """A disk that is exported, one that is restored onto, and the directory that all lies in."""

    def __init__(self, stack: ExitStack, work: Path, temporary: str, rounds: int, size: int, data: int) -> None:
        self.work = work
        self.temporary = stack.enter_context(tempfile.TemporaryDirectory(dir=temporary))
        self.rounds = rounds
        self.processor: dict[str, list[float]] = {}
        self.size = size
        self.disk = make_guest_disk(work / "disk.raw", size, data)
        self.device = stack.enter_context(partition(self.disk))
        self.parts = {
            "root": stack.enter_context(partition(self.disk, self.root)),
            "boot": stack.enter_context(partition(self.disk, BOOT)),
        }
        self.target = work / "target.raw"
        with self.target.open("wb") as file:
            file.truncate(size)
        self.target_device = stack.enter_context(partition(self.target))
        for kind in KINDS:
            (work / kind / "etc/default").mkdir(parents=True)
            settings = (
                f"EXPORT_COMPRESSION={kind}\nCUSTOMIZE_DIR={work}\nEXPORT_DIR={work}\nBOOT_SIZE={BOOT[1] // MIB}\n"
            )
            (work / kind / "etc/default/ganeti-instance-image").write_text(settings)

    @property
    def root(self) -> tuple[int, int]:
        return ROOT_START, self.size - ROOT_START

    def verb(self, verb: str, kind: str) -> str:
        """A call as Ganeti makes it, of what is installed."""
        device = self.device if verb == "export" else self.target_device
        place = self.work / kind
        return (
            f"env -i PATH=$PATH LC_ALL=C OS_API_VERSION=20 OS_NAME=image INSTANCE_NAME=guest HYPERVISOR=kvm "
            f"INSTANCE_BE_maxmem=128 DISK_COUNT=1 NIC_COUNT=0 DISK_0_PATH={device} DISK_0_ACCESS=rw "
            f"{verb.upper()}_DEVICE={device} {verb.upper()}_INDEX=0 "
            f"{sys.executable} -I -m ganeti_os --sysconfdir {place}/etc --localstatedir {place}/var {verb}"
        )

    def shell(self, command: str) -> Callable[[], object]:
        """Return a call of the command in a temporary directory of its own; what is in it is removed, in its time."""
        whole = (
            f"set -e -o pipefail; cd {self.temporary}; {{ {command}\n}} 2>{self.work}/log; rm -rf {self.temporary}/*"
        )
        return lambda: self.measured(command, whole)

    def measured(self, command: str, whole: str) -> None:
        before = os.times()
        self.checked(whole)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        self.processor.setdefault(command, []).append(used)

    def compare(self, title: str, commands: Mapping[str, str]) -> None:
        """Measure the commands in turns; on a machine with other work, processor time tells more than the clock."""
        self.processor.clear()
        medians = in_turns({name: self.shell(command) for name, command in commands.items()}, rounds=self.rounds)
        report(title, medians, ours=OURS)
        used = {name: statistics.median(self.processor[command]) for name, command in commands.items()}
        report("   processor time", used, ours=OURS)

    def checked(self, command: str) -> None:
        done = subprocess.run(["bash", "-c", command], check=False)
        if done.returncode:
            sys.exit(f"{command}\n{(self.work / 'log').read_text()}")

    def old_export(self, way: str) -> str:
        if way == "qemu-img":
            return f"qemu-img convert -f raw -O qcow2 {self.device} disk.img; tar -cf - ."
        dumps = "; ".join(f"dump -0 -q -z9 -f {name}.dump {device}" for name, device in self.parts.items())
        return f"{dumps}; tar -cf - ."

    def exports(self) -> None:
        """Measure what becomes of the device in a pipe."""
        for kind in KINDS:
            commands = {
                OURS: f"{self.verb('export', kind)} | cat > /dev/null",
                "qemu-img, tar": f"({self.old_export('qemu-img')}) | cat > /dev/null",
                "dump -z9, tar": f"({self.old_export('dump')}) | cat > /dev/null",
            }
            self.compare(f"export ({kind})", commands)
            print(f"   {self.export(kind).stat().st_size / MIB:.1f} MiB")
        for way in ("qemu-img", "dump"):
            print(f"   {way}: {self.export(way).stat().st_size / MIB:.1f} MiB")

    def export(self, way: str) -> Path:
        """Return the backup made in a way, ours or an old one, made when it is wanted."""
        backup = self.work / f"{way}.backup"
        if not backup.exists():
            command = self.verb("export", way) if way in KINDS else self.old_export(way)
            self.shell(f"({command}) > {backup}")()
        return backup

    def imports(self) -> None:
        """Measure what a backup in a pipe becomes on a device that was in use."""
        old = {way: self.old_import(way) for way in ("qemu-img", "dump")}
        for kind in KINDS:
            ours = f"cat {self.export(kind)} | {self.verb('import', kind)}"
            self.compare(f"import ({kind})", {OURS: ours, **old})
            self.shell(ours)()
            self.check()
        for way, theirs in old.items():
            ours = f"cat {self.export(way)} | {self.verb('import', 'none')}"
            self.compare(f"import of the predecessor's ({way})", {OURS: ours, way: theirs})
            self.shell(ours)()
            if way == "qemu-img":
                self.check()

    def old_import(self, way: str) -> str:
        command = f"cat {self.export(way)} | tar -xf -; "
        if way == "qemu-img":
            return f"{command} qemu-img convert disk.img -O host_device {self.target_device}"
        for name, place, kind in (("root", self.root, "ext4"), ("boot", BOOT, "ext3")):
            command += (
                f"d=$(losetup --find --show --offset {place[0]} --sizelimit {place[1]} {self.target}); "
                f"mkfs.{kind} -q -F $d; mkdir m; mount $d m; (cd m; restore -r -y -f ../{name}.dump); "
                "umount m; losetup --detach $d; rmdir m; "
            )
        return command

    def check(self) -> None:
        """See that the files of the root came back, by e2fsck's word and by tar's."""
        with partition(self.target, self.root) as device:
            run("e2fsck", "-fn", device)
            packed = []
            for name in (device, self.parts["root"]):
                pack = "tar --sort=name --format=ustar -cf - . | sha256sum"
                mount = f"mount -o ro {name} /mnt && cd /mnt && {pack}; cd /; umount /mnt"
                packed.append(run("unshare", "--mount", "bash", "-c", mount))
        if packed[0] != packed[1]:
            sys.exit("what was restored differs")

    def memory(self) -> None:
        """Print the peak memory of each call, of its processes the one with the most."""
        for kind in KINDS:
            exported = self.peak(f"exec {self.verb('export', kind)} > {self.work}/stream")
            imported = self.peak(f"exec {self.verb('import', kind)} < {self.work}/stream")
            print(f"   {self.size / GIB:.1f} GiB, {kind:5} export {exported:4.0f} MiB   import {imported:4.0f} MiB")

    def peak(self, command: str) -> float:
        process = subprocess.Popen(["bash", "-c", f"{command} 2>{self.work}/log"])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{command}\n{(self.work / 'log').read_text()}")
        return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/dev/shm")
    parser.add_argument("--temporary", default="/tmp", help="where the old ways put their files")
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    arguments = parser.parse_args()
    for size, data in DISKS:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as name, ExitStack() as stack:
            bench = Bench(stack, Path(name), arguments.temporary, arguments.rounds, size, data)
            print(f"a disk of {size / GIB:.1f} GiB, {bench.disk.stat().st_blocks * 512 / MIB:.0f} MiB of it stored")
            if "export" in arguments.parts:
                bench.exports()
            if "import" in arguments.parts:
                bench.imports()
            if "memory" in arguments.parts:
                print("peak memory:")
                bench.memory()


if __name__ == "__main__":
    main()
