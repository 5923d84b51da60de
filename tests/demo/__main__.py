# SPDX-License-Identifier: MIT
"""make demo: a small Debian becomes an instance's disk, once from a qcow2 image and once from a tarball; then a backup
of the second becomes a third, larger instance, with a name of its own.

The input is made by Debian's own tools (see tests/fixtures/debian_system.py) and kept in .demo/. Everything after
that is done by the verbs, run as Ganeti runs them, with a PATH on which there is no program at all.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from ganeti_os.guest.root import find_guest
from pydiskimg.errors import DiskImageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from pydiskimg.units import format_size
from pydiskimg.volumes.find import find_volumes
from tests.fixtures.debian_system import NAME, DebianSystem, debian_system

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = Path(".demo").resolve()
NO_PROGRAMS = "/nonexistent"
GIB = 1 << 30


def main() -> None:
    started = time.monotonic()
    WORK.mkdir(exist_ok=True)
    say("Making the input from Debian's kernel and busybox packages, tar and qemu-img (kept in .demo/)")
    system = debian_system(WORK)
    for path in (system.qcow2, system.tarball):
        print(f"   {path.relative_to(WORK.parent)}  {format_size(path.stat().st_size)}")
    install(system, "qcow2", "inst1.example.org")
    install(system, "tarball", "inst2.example.org")
    back_up("inst2.example.org", "inst3.example.org")
    say(f"Done in {time.monotonic() - started:.1f} s")


def install(system: DebianSystem, image_type: str, instance: str) -> None:
    disk = WORK / f"{instance}.disk"
    with disk.open("wb") as file:
        file.truncate(2 * GIB)
    write_settings(system, image_type)
    say(f"create {instance}: a {image_type} image onto {disk.relative_to(WORK.parent)} (2 GiB), PATH={NO_PROGRAMS}")
    run("create", environment(instance, disk))
    show(disk)


def back_up(instance: str, copy: str) -> None:
    source, target, backup = WORK / f"{instance}.disk", WORK / f"{copy}.disk", WORK / f"{instance}.qcow2"
    with target.open("wb") as file:
        file.truncate(3 * GIB)
    say(f"export {instance} to {backup.relative_to(WORK.parent)}, which is a qcow2 image")
    with backup.open("wb") as out:
        run("export", environment(instance, source) | {"EXPORT_DEVICE": str(source)}, stdout=out)
    print(f"   {format_size(backup.stat().st_size)}")
    say(f"import {copy} from it, onto a disk of 3 GiB, which it fills; and rename, as Ganeti does then")
    with backup.open("rb") as stream:
        run("import", environment(copy, target) | {"IMPORT_DEVICE": str(target)}, stdin=stream)
    run("rename", environment(copy, target) | {"OLD_INSTANCE_NAME": instance})
    show(target)


def run(
    verb: str,
    variables: dict[str, str],
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | None = None,
) -> None:
    """Run a verb, which has to succeed."""
    command = [sys.executable, "-m", "ganeti_os", "--sysconfdir", str(WORK / "etc"), verb]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=variables, stdin=stdin, stdout=stdout, check=False)
    if done.returncode:
        sys.exit(f"{verb} failed with status {done.returncode}")
    print(f"   exit status 0 after {time.monotonic() - started:.2f} s")


def write_settings(system: DebianSystem, image_type: str) -> None:
    path = WORK / "etc/default/ganeti-instance-image"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'IMAGE_NAME="{NAME}"\nIMAGE_TYPE={image_type}   # qcow2 or tarball\nIMAGE_DIR="{system.directory}"\n'
    )


def environment(instance: str, disk: Path) -> dict[str, str]:
    """What Ganeti 3.0 passes to every verb."""
    return {
        "PATH": NO_PROGRAMS,
        "OS_API_VERSION": "20",
        "OS_NAME": "image",
        "INSTANCE_NAME": instance,
        "INSTANCE_BE_maxmem": "256",
        "INSTANCE_HV_kernel_path": "",
        "HYPERVISOR": "kvm",
        "DISK_COUNT": "1",
        "DISK_0_PATH": str(disk),
        "DISK_0_ACCESS": "rw",
        "NIC_COUNT": "0",
    }


def show(path: Path) -> None:
    """Print the partition table and what is in the root file system."""
    with open_disk(path) as disk:
        print("   partition  start      size       type  contents")
        for volume in find_volumes(disk):
            part, content = volume.partition, volume.content
            what = f"{content.type} {content.label or ''} UUID={content.uuid}" if content else "-"
            print(f"   {part.number:9}  {format_size(part.start):9}  {format_size(part.length):9}  {part.type}  {what}")
        root = find_guest(disk).root
        with (
            loop_device(disk.fd, offset=root.partition.start, length=root.partition.length, read_only=True) as loop,
            mounted(loop.path, fs_type=root.content.type if root.content else "", read_only=True) as target,
            open_mounted_tree(target) as tree,
        ):
            files = list(tree.walk())
            print(f"   {root}: {len(files)} files and directories, among them:")
            for name, status in files:
                if name.count("/") == 1 or name.startswith(("/boot/", "/etc/")):
                    print(f"      {stat.filemode(status.st_mode)} {status.st_size:>10} {name}")
            for name in ("/etc/fstab", "/etc/hostname", "/etc/hosts"):
                print(f"   {name}:")
                print("".join(f"      {line}\n" for line in tree.read(name).decode().splitlines()), end="")


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if os.geteuid() != 0:
    sys.exit("the demo mounts what it made: run it as root (make demo uses sudo)")
try:
    main()
except (DiskImageError, RuntimeError) as failure:
    sys.exit(f"demo: {failure}")
