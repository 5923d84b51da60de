# SPDX-License-Identifier: MIT
"""What an administrator does with instances, by the real client; judged on the disks themselves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.debian_system import NAME
from tests.fixtures.ganeti_lab import NODE, SYSCONFDIR, Lab
from tests.fixtures.judges import inside, partitions

pytestmark = pytest.mark.ganeti
NO_CHECKS = ("--no-name-check", "--no-ip-check")
EXPORTS = "/var/lib/ganeti/export"
TEMPLATES = {
    "file": (("-t", "file"), ""),
    "ext": (("-t", "ext"), ",provider=loopfile"),
}
# As the script interfaces of ganeti-instance-image does: what rename finds must be the instance's name.
NAME_SCRIPT = '#!/bin/sh\necho "$INSTANCE_NAME" >"$TARGET/etc/hostname"\n'


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["qcow2", "tarball"])
def configured(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Lab]:
    """The lab, set up for one kind of image and with a script that gives instances their names."""
    lab.configure(IMAGE_NAME=NAME, IMAGE_TYPE=request.param)
    script = lab.path(f"{SYSCONFDIR}/ganeti/instance-image.d/name")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(NAME_SCRIPT)
    script.chmod(0o755)
    yield lab
    script.unlink()


def add(lab: Lab, instance: str, template: str, *options: str, size: str = "700M") -> subprocess.CompletedProcess[str]:
    where, more = TEMPLATES[template]
    disk = f"0:size={size}{more}"
    return lab.run(
        *("gnt-instance", "add", *where, "-o", "image", "-n", NODE, "--disk", disk, "-B", "memory=64M"),
        *("--net", "0:mac=generate", *NO_CHECKS, "--no-start", *options, instance),
    )


def backup_import(lab: Lab, of: str, instance: str, template: str, *options: str, size: str) -> str:
    """Import an export; Ganeti's client succeeds even when the import fails, so its words are returned."""
    where, more = TEMPLATES[template]
    return lab.succeed(
        *("gnt-backup", "import", "-n", NODE, f"--src-node={NODE}", f"--src-dir={EXPORTS}/{of}", *where),
        *("--disk", f"0:size={size}{more}", "-B", "memory=64M", "--net", "0:mac=generate"),
        *(*NO_CHECKS, *options, instance),
    )


@contextmanager
def instance(lab: Lab, name: str) -> Iterator[str]:
    """Remove the instance after the block."""
    try:
        yield name
    finally:
        lab.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", name)


@contextmanager
def root_of(lab: Lab, name: str, tmp_path: Path) -> Iterator[Path]:
    """e2fsck and mount the last partition of the instance's disk."""
    disk = str(lab.disk(name))
    with inside(disk, partitions(disk)[-1], tmp_path) as point:
        yield point


def host_name(lab: Lab, name: str, tmp_path: Path) -> str:
    with root_of(lab, name, tmp_path) as point:
        return (point / "etc/hostname").read_text().strip()


def files(lab: Lab, name: str, tmp_path: Path) -> dict[str, tuple[int, ...]]:
    """What there is in the root file system, with mode, owner, size and time of each."""
    with root_of(lab, name, tmp_path) as point:
        found: dict[str, tuple[int, ...]] = {}
        for path in sorted(point.rglob("*")):
            status = path.lstat()
            found[str(path.relative_to(point))] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev),
                0 if path.is_dir() else status.st_size,
            )
        return found


def test_the_life_of_an_instance(configured: Lab, template: str, tmp_path: Path) -> None:
    """Add, reinstall, rename, export, import to an equal, a larger and a too small disk, remove."""
    lab = configured
    with instance(lab, "inst1.lab.example") as first, instance(lab, "inst2.lab.example") as second:
        added = add(lab, first, template)
        assert added.returncode == 0, added.stdout
        assert host_name(lab, first, tmp_path) == first

        before = files(lab, first, tmp_path)
        disk = lab.disk(first)
        with disk.open("r+b") as file:
            file.write(b"\xff" * (4 << 20))
        lab.succeed("gnt-instance", "reinstall", "-f", first)
        after = files(lab, first, tmp_path)
        assert after.keys() == before.keys()

        lab.succeed("gnt-instance", "rename", "-f", *NO_CHECKS, first, second)
        assert host_name(lab, second, tmp_path) == second

        original = files(lab, second, tmp_path)
        lab.succeed("gnt-backup", "export", "-n", NODE, "--noshutdown", second)
        backup = next(path for path in lab.path(f"{EXPORTS}/{second}").iterdir() if path.name != "config.ini")
        checked = subprocess.run(["qemu-img", "check", "-f", "qcow2", backup], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stdout

        with instance(lab, "inst3.lab.example") as equal:
            said = backup_import(lab, second, equal, template, size="700M")
            assert host_name(lab, equal, tmp_path) == equal, said
            copied = files(lab, equal, tmp_path)
            assert {path for path, status in copied.items() if original.get(path) != status} <= {"etc", "etc/hostname"}

        lab.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2", GROW="yes")
        with instance(lab, "inst4.lab.example") as larger:
            said = backup_import(lab, second, larger, template, size="1G")
            grown = partitions(str(lab.disk(larger)))[-1]
            assert grown["offset"] + grown["length"] > (1020 << 20), said
            assert host_name(lab, larger, tmp_path) == larger, said
            with root_of(lab, larger, tmp_path) as point:
                assert shutil.disk_usage(point).total > grown["length"] * 0.9

        with instance(lab, "inst5.lab.example") as small:
            said = backup_import(lab, second, small, template, size="600M")
            assert "the disk has 629145600" in said, said
            assert lab.disk(small).read_bytes().strip(b"\0") == b""

        path = lab.disk(second)
        lab.succeed("gnt-instance", "remove", "-f", "--shutdown-timeout=0", second)
        assert not path.exists()
        assert str(path) not in subprocess.run(["losetup", "-l"], capture_output=True, text=True, check=True).stdout
