# SPDX-License-Identifier: MIT
"""What an administrator does with instances, by the real client; judged on the disks themselves."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.ganeti_lab import CONFIGURED, Lab
from tests.fixtures.judges import inside, partitions
from tests.fixtures.lab_instances import (
    MIB,
    add,
    backup_import,
    differences,
    export,
    files,
    host_name,
    is_sound_qcow2,
    rename,
    root_of,
)

pytestmark = pytest.mark.ganeti
HASH = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org"
RENAMED = {"etc", "etc/hostname", "etc/hosts"}


def fill_second_disk(disk: Path, kind: str) -> None:
    """Make a swap area with something swapped out, or scatter bytes that are no file system."""
    if kind == "swap":
        subprocess.run(["mkswap", "-q", "-U", "11111111-2222-3333-4444-555555555555", disk], check=True)
    rng = random.Random(1)
    with disk.open("r+b") as file:
        for offset in range(2 * MIB if kind == "swap" else 0, 60 * MIB, 7 * MIB + 512):
            file.seek(offset)
            file.write(rng.randbytes(5000))


def second_disk_is_equal(one: Path, other: Path, kind: str) -> bool:
    """Swapped-out memory is not in a backup."""
    if kind == "data":
        return one.read_bytes() == other.read_bytes()
    with one.open("rb") as first, other.open("rb") as second:
        same = first.read(4096) == second.read(4096)
        return same and not any(second.read())


@pytest.mark.parametrize(("template", "kind", "second"), [("file", "qcow2", "swap"), ("ext", "tarball", "data")])
def test_the_life_of_an_instance(lab: Lab, tmp_path: Path, template: str, kind: str, second: str) -> None:
    """Add, reinstall, rename, export, import to equal, larger and too small disks, remove; with a second disk."""
    first, renamed = f"{kind}1.lab.example", f"{kind}2.lab.example"
    equal, larger, small = (f"{kind}{number}.lab.example" for number in (3, 4, 5))
    add(lab, first, os=f"image+{kind}", template=template, sizes=("700M", "64M"))
    assert host_name(lab, first, tmp_path) == first

    before = files(lab, first, tmp_path)
    with lab.written_disk(first).open("r+b") as file:
        file.write(b"\xff" * (4 * MIB))
    lab.succeed("gnt-instance", "reinstall", "-f", first)
    assert files(lab, first, tmp_path).keys() == before.keys()

    rename(lab, first, renamed)
    assert host_name(lab, renamed, tmp_path) == renamed

    fill_second_disk(lab.written_disk(renamed, 1), second)
    original = files(lab, renamed, tmp_path)
    assert all(map(is_sound_qcow2, export(lab, renamed)))

    said = backup_import(lab, renamed, equal, template=template, sizes=("700M", "64M"))
    assert host_name(lab, equal, tmp_path) == equal, said
    assert differences(original, files(lab, equal, tmp_path)) <= RENAMED
    assert second_disk_is_equal(lab.disk(renamed, 1), lab.disk(equal, 1), second)

    said = backup_import(lab, renamed, larger, template=template, sizes=("1G", "80M"))
    assert (
        partitions(str(lab.disk(larger)))[-1]["length"] == partitions(str(lab.disk(renamed)))[-1]["length"] + 324 * MIB
    )
    assert host_name(lab, larger, tmp_path) == larger, said

    said = backup_import(lab, renamed, small, template=template, sizes=("600M", "64M"))
    assert "the disk has 629145600" in said, said
    assert not any(lab.disk(small).read_bytes())

    disks = [lab.disk(renamed, index) for index in (0, 1)]
    lab.succeed("gnt-instance", "remove", "-f", "--shutdown-timeout=0", renamed)
    assert not any(disk.exists() for disk in disks)


@pytest.mark.parametrize(("template", "kind"), [("file", "tarball"), ("ext", "qcow2")])
def test_adding_with_an_overlay(lab: Lab, tmp_path: Path, template: str, kind: str) -> None:
    """The kinds and templates that the lives do not combine."""
    overlay = lab.path(f"{CONFIGURED}/instance-image/overlays/web/etc")
    overlay.mkdir(parents=True, exist_ok=True)
    (overlay / "motd").write_text("from the overlay\n")
    os.chown(overlay / "motd", 0, 42)
    name = f"overlay-{kind}.lab.example"
    hidden = (f"--os-parameters-secret=root_password_hash={HASH}", f"--os-parameters-private=authorized_keys={KEY}")
    add(lab, name, "-O", "overlay=web", *hidden, os=f"image+{kind}", template=template)
    assert not [log for log in lab.path("/var/log/ganeti").rglob("*.log") if HASH in log.read_text(errors="replace")]
    with root_of(lab, name, tmp_path) as point:
        assert f"root:{HASH}:0:0:" in (point / "etc/passwd").read_text()  # this system has no /etc/shadow
        assert (point / "root/.ssh/authorized_keys").read_text() == f"{KEY}\n"
        assert (point / "etc/motd").read_text() == "from the overlay\n"
        assert (point / "etc/motd").stat().st_gid == 42
        assert (point / "etc/hostname").read_text() == f"overlay-{kind}\n"
        if kind == "tarball":
            lines = [line.split() for line in (point / "etc/fstab").read_text().splitlines() if line[0] != "#"]
            assert {"/", "/boot", "none"} <= {line[1] for line in lines}
    disk = str(lab.disk(name))
    for partition in partitions(disk):
        if partition["type"] == "83":
            with inside(disk, partition, tmp_path):
                pass
