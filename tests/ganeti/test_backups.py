# SPDX-License-Identifier: MIT
"""Backups other than our complete exports: truncated, made by ganeti-instance-image, interrupted; and growing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.ganeti_lab import EXPORTS, IMAGES, SYSCONFDIR, Lab
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.judges import blkid, partitions
from tests.fixtures.lab_instances import (
    MIB,
    add,
    add_command,
    backup_import,
    contents,
    differences,
    export,
    files,
    host_name,
    import_command,
    root_of,
    starts_with_zeros,
)

pytestmark = pytest.mark.ganeti
RENAMED = {"etc", "etc/hostname", "etc/hosts"}
OF = "source.lab.example"


@pytest.fixture(scope="module")
def exported(lab: Lab) -> Path:
    """The only backup in the export directory of an instance, which is there as well."""
    add(lab, OF, template="ext")
    return export(lab, OF)[0]


def copied(lab: Lab, backup: Path, name: str) -> Path:
    """Copy an export, and return its backup, for a test to replace."""
    shutil.copytree(backup.parent, lab.path(f"{EXPORTS}/{name}"))
    return lab.path(f"{EXPORTS}/{name}") / backup.name


def wait_for_verb(lab: Lab, verb: str, client: subprocess.Popen[str]) -> int:
    """Return the id of the process that runs a verb for the client."""
    while client.poll() is None:
        if found := lab.verbs(verb):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(client.communicate()[0])


def test_a_backup_that_was_cut_off(lab: Lab, exported: Path) -> None:
    os.truncate(copied(lab, exported, "cut"), exported.stat().st_size // 2)
    said = backup_import(lab, "cut", "cut.lab.example", template="ext")
    assert "Some disks for instance cut.lab.example" in said
    assert "in the middle of the image; its sender has failed or was interrupted" in said
    assert "the first 1 MiB are zeros" in said  # the rename that Ganeti tries nevertheless
    assert starts_with_zeros(lab.disk("cut.lab.example"))


def test_a_disk_of_ganeti_instance_image(lab: Lab, exported: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", lab.disk(OF), image], check=True)
    subprocess.run(["tar", "-cf", copied(lab, exported, "theirs"), "-C", tmp_path, image.name], check=True)
    said = backup_import(lab, "theirs", "theirs.lab.example")
    assert host_name(lab, "theirs.lab.example", tmp_path) == "theirs.lab.example", said
    assert differences(files(lab, OF, tmp_path), files(lab, "theirs.lab.example", tmp_path)) <= RENAMED


def test_dumps_of_ganeti_instance_image(lab: Lab, exported: Path, tmp_path: Path) -> None:
    disk = lab.disk(OF)
    root = partitions(str(disk))[-1]
    boot = tmp_path / "boot.fs"
    with boot.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext3", boot], check=True)
    with loop(disk, root["offset"], root["length"], read_only=True) as device:
        subprocess.run(
            ["dump", "-0", "-q", "-z9", "-f", tmp_path / "root.dump", device], check=True, capture_output=True
        )
    with loop(boot, 0, 16 * MIB) as device:
        subprocess.run(
            ["dump", "-0", "-q", "-z9", "-f", tmp_path / "boot.dump", device], check=True, capture_output=True
        )
    archive = copied(lab, exported, "dumps")
    subprocess.run(["tar", "-cf", archive, "-C", tmp_path, "root.dump", "boot.dump"], check=True)
    said = backup_import(lab, "dumps", "dumps.lab.example", template="ext")
    name = "dumps.lab.example"
    assert host_name(lab, name, tmp_path) == name, said
    path = str(lab.disk(name))
    assert [blkid(path, partition, "TYPE") for partition in partitions(path)] == ["ext4", "swap", "ext4"]
    found = differences(_without_times(files(lab, OF, tmp_path)), _without_times(files(lab, name, tmp_path)))
    assert {path for path in found if not path.startswith("boot")} <= {*RENAMED, "etc/fstab", "lost+found"}


def _without_times(found: dict[str, tuple[int | str, ...]]) -> dict[str, tuple[int | str, ...]]:
    """A dump has seconds only."""
    return {name: (*status[:3], *status[4:]) for name, status in found.items()}


def test_an_import_that_is_killed(lab: Lab, exported: Path, tmp_path: Path) -> None:
    name = "killed.lab.example"
    client = lab.start(*import_command(OF, name, template="ext"))
    verb = wait_for_verb(lab, "import", client)
    while int(Path(f"/proc/{verb}/io").read_text().split()[1]) < 12 * MIB:  # rchar: into the backup
        time.sleep(0.005)
    os.kill(verb, signal.SIGKILL)
    said = client.communicate()[0]
    assert f"Some disks for instance {name}" in said
    assert starts_with_zeros(lab.disk(name))
    lab.succeed("gnt-instance", "reinstall", "-f", name)
    assert host_name(lab, name, tmp_path) == name


def test_a_create_that_is_killed(lab: Lab, tmp_path: Path) -> None:
    """While a script runs: the guest is mounted and its disk is attached to a loop device."""
    name, scripts, flag = "killed-create.lab.example", f"{SYSCONFDIR}/slow.d", "/srv/ganeti/script-runs"
    lab.add_script(f"{scripts}/slow", f"#!/bin/sh\ntouch {flag}\nexec sleep 300\n")
    lab.publish("slow", CUSTOMIZE_DIR=scripts)
    client = lab.start(*add_command(name, os="image+slow"))
    verb = wait_for_verb(lab, "create", client)
    while not lab.path(flag).exists():
        assert client.poll() is None, client.communicate()[0]
        time.sleep(0.01)
    assert lab.loop_devices()
    os.kill(verb, signal.SIGKILL)
    client.communicate()
    assert client.returncode != 0
    assert not any(_boots(partition) for partition in partitions(str(lab.disk(name))))
    lab.add_script(f"{scripts}/slow", "#!/bin/sh\n")
    lab.succeed("gnt-instance", "reinstall", "-f", name)
    assert host_name(lab, name, tmp_path) == name


def _boots(partition: dict[str, Any]) -> bool:
    return partition["type"] == "83" or bool(partition.get("bootable"))


@pytest.fixture(scope="module")
def xfs_image(lab: Lab, debian: DebianSystem, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image whose root is xfs; returns its IMAGE_NAME."""
    work = tmp_path_factory.mktemp("xfs")
    raw = work / "raw"
    with raw.open("wb") as file:
        file.truncate(402 * MIB)
    subprocess.run(["sfdisk", "-q", raw], input="label: dos\n1M,400M,L,*\n", text=True, check=True)
    with loop(raw, MIB, 400 * MIB) as device:
        subprocess.run(["mkfs.xfs", "-q", device], check=True)
        with mounted_at(device, work / "mnt") as point:
            subprocess.run(["tar", "-xf", debian.tarball, "-C", point], check=True)
    image = lab.path(IMAGES) / debian.qcow2.name.replace("debian-small", "xfs-small")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
    return "xfs-small"


@contextmanager
def _xfs_root(disk: Path, tmp_path: Path) -> Iterator[Path]:
    """xfs_repair and mount the only partition of a disk."""
    (place,) = partitions(str(disk))
    with loop(disk, place["offset"], place["length"], read_only=True) as device:
        repair = subprocess.run(["xfs_repair", "-n", device], capture_output=True, text=True, check=False)
        assert repair.returncode == 0, repair.stderr
        with mounted_at(device, tmp_path / "xfs", "-o", "ro,norecovery,nouuid") as point:
            yield point


def test_growing_a_root_of_xfs(lab: Lab, xfs_image: str, tmp_path: Path) -> None:
    first, larger = "xfs1.lab.example", "xfs2.lab.example"
    add(lab, first, "-O", f"image_name={xfs_image}", template="ext", sizes=("420M",))
    export(lab, first)
    said = backup_import(lab, first, larger, template="ext", sizes=("1G",))
    with _xfs_root(lab.disk(first), tmp_path) as point:
        before = contents(point)
    with _xfs_root(lab.disk(larger), tmp_path) as point:
        assert (point / "etc/hostname").read_text() == "xfs2\n", said
        assert differences(before, contents(point)) <= RENAMED
        status = os.statvfs(point)
        assert status.f_frsize * status.f_blocks > 900 * MIB
    assert partitions(str(lab.disk(larger)))[-1]["length"] > 1020 * MIB


def test_growing_a_root_of_ext4(lab: Lab, exported: Path, tmp_path: Path) -> None:
    name = "grown.lab.example"
    said = backup_import(lab, OF, name, sizes=("1G",))
    grown = partitions(str(lab.disk(name)))[-1]
    assert host_name(lab, name, tmp_path) == name, said
    assert grown["offset"] + grown["length"] > 1020 * MIB
    with root_of(lab, name, tmp_path) as point:
        assert shutil.disk_usage(point).total > grown["length"] * 0.9
