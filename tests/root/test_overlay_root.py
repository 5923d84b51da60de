# SPDX-License-Identifier: MIT
"""An overlay with everything in it that only root can make, on real guests; cp -a is the judge."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg.files.copy import copy_directory
from tests.archive_trees import differences, picture
from tests.fixtures.block_devices import filled_file
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line
from tests.root.test_archive_root import privileged_tree

pytestmark = pytest.mark.root
MIB = 1 << 20
Tool = Callable[[str], str]


@pytest.fixture
def node(tmp_path: Path, debian: DebianSystem) -> Node:
    made = Node.make(tmp_path / "a node", IMAGE_NAME=NAME, IMAGE_TYPE="tarball", OVERLAY="web")
    for path in (debian.tarball, debian.qcow2):
        (made.images / path.name).symlink_to(path)
    return made


@pytest.fixture
def overlay(node: Node) -> Path:
    path = node.directory / "etc/ganeti/instance-image/overlays/web"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_it_comes_out_as_cp_makes_it(tool: Tool, tmp_path: Path, umask: int) -> None:
    source, ours, theirs = tmp_path / "source", tmp_path / "ours", tmp_path / "theirs"
    for path in (source, ours, theirs):
        path.mkdir()
    privileged_tree(tool, source)
    for target in (ours, theirs):
        (target / "directory").mkdir(mode=0o700)
        os.chown(target / "directory", 55, 55)
        (target / "text").write_text("old")
        os.chown(target / "text", 55, 55)
    before = os.umask(umask)
    try:
        copy_directory(str(source), str(ours))
        subprocess.run([tool("cp"), "-a", f"{source}/.", theirs], check=True)
    finally:
        os.umask(before)
    assert [line for line in differences(ours, source) if not line.startswith("b'': ")] == []
    assert [line for line in differences(ours, theirs) if not line.startswith("b'': ")] == []


def test_a_socket_is_copied_too(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    os.mknod(source / "socket", stat.S_IFSOCK | 0o640)
    copy_directory(str(source), str(target))
    assert stat.S_ISSOCK((target / "socket").lstat().st_mode)


@pytest.fixture
def two_file_systems(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "target"
    (target / "boot").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", target / "boot"], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target / "boot"], check=True)


def test_a_hard_link_across_file_systems_becomes_a_file(two_file_systems: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "boot").mkdir(parents=True)
    (source / "a").write_text("contents")
    os.link(source / "a", source / "boot/b")
    os.link(source / "a", source / "c")
    copy_directory(str(source), str(two_file_systems))
    assert (two_file_systems / "boot/b").read_text() == "contents"
    assert (two_file_systems / "a").stat().st_ino == (two_file_systems / "c").stat().st_ino


def fill(overlay: Path) -> None:
    """What an administrator puts there, and a link that would lead out of the guest."""
    (overlay / "etc/deep").mkdir(parents=True)
    (overlay / "etc/motd").write_text("welcome\n")
    (overlay / "etc/deep/secret").write_text("secret\n")
    (overlay / "etc/deep/secret").chmod(0o640)
    os.chown(overlay / "etc/deep/secret", 1234, 4321)
    os.setxattr(overlay / "etc/deep/secret", "user.note", b"kept")
    (overlay / "etc/hostname").write_text("from-the-overlay\n")
    (overlay / "etc/link").symlink_to("/etc/shadow")
    (overlay / "boot").mkdir()
    (overlay / "boot/loader").write_text("loader\n")
    os.utime(overlay / "etc/motd", ns=(5, 1_600_000_000_000_000_001))


def check(point: Path, boot: Path) -> None:
    assert (point / "etc/hostname").read_text() == "inst1\n", "an instance is named by its name"
    assert (point / "etc/motd").stat().st_mtime_ns == 1_600_000_000_000_000_001
    secret = (point / "etc/deep/secret").stat()
    assert (secret.st_uid, secret.st_gid, stat.S_IMODE(secret.st_mode)) == (1234, 4321, 0o640)
    assert os.getxattr(point / "etc/deep/secret", "user.note") == b"kept"
    assert os.readlink(point / "etc/link") == "/etc/shadow"
    assert (boot / "loader").read_text() == "loader\n"


@pytest.mark.parametrize("script", [False, True])
def test_over_a_tarball(node: Node, overlay: Path, tmp_path: Path, script: bool) -> None:
    fill(overlay)
    if script:
        node.add_script("10-see", '#!/bin/sh\ncat "$TARGET/etc/motd" >"$TARGET/etc/seen"\n')
    disk = filled_file(tmp_path / "disk", 700 * MIB)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    boot, _, root = partitions(str(disk))
    with inside(str(disk), boot, tmp_path) as point:
        assert (point / "loader").read_text() == "loader\n"
        kept = tmp_path / "kept"
        kept.mkdir()
        (kept / "loader").write_text((point / "loader").read_text())
    with inside(str(disk), root, tmp_path) as point:
        check(point, kept)
        assert "UUID=" in (point / "etc/fstab").read_text()
        if script:
            assert (point / "etc/seen").read_text() == "welcome\n"


@pytest.mark.parametrize("script", [False, True])
def test_over_a_disk_image(node: Node, overlay: Path, tmp_path: Path, script: bool) -> None:
    fill(overlay)
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2", OVERLAY="web")
    if script:
        node.add_script("10-see", '#!/bin/sh\ncat "$TARGET/etc/motd" >"$TARGET/etc/seen"\n')
    disk = filled_file(tmp_path / "disk", 450 * MIB)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert "copying the overlay: 8 entries, " in done.stderr
    with inside(str(disk), partitions(str(disk))[0], tmp_path) as point:
        check(point, point / "boot")
        if script:
            assert (point / "etc/seen").read_text() == "welcome\n"


def test_one_that_cannot_be_copied_leaves_no_system_that_looks_complete(
    node: Node, overlay: Path, tmp_path: Path
) -> None:
    (overlay / "etc").write_text("where the guest has a directory\n")
    for image_type in ("qcow2", "tarball"):
        node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type, OVERLAY="web")
        disk = filled_file(tmp_path / "disk", 700 * MIB)
        done = node.create(disk)
        assert done.returncode == 1
        assert (
            f"copying the overlay: {overlay}: entry etc: it would replace a directory that is not empty"
            in last_line(done)
        )
        types = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=False).stdout
        assert "type=83" not in types


def test_without_the_right_to_mount_nothing_is_written(node: Node, overlay: Path, tmp_path: Path) -> None:
    """It is needed for scripts."""
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2", OVERLAY="web")
    node.add_script("10-any", "#!/bin/sh\n")
    disk = filled_file(tmp_path / "disk", 450 * MIB)
    command = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", *node.command("create")]
    environment = {"PATH": PATH, **create_environment(disk)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN)" in last_line(done)
    with disk.open("rb") as file:
        assert file.read(MIB) == b"\xff" * MIB


def test_of_somebody_else(node: Node, overlay: Path, tmp_path: Path) -> None:
    os.chown(overlay, 1234, 0)
    disk = filled_file(tmp_path / "disk", MIB)
    done = node.create(disk)
    assert done.returncode == 1
    assert f"{overlay}: belongs to user 1234, and its content goes into guests" in last_line(done)
    assert disk.read_bytes() == b"\xff" * MIB


def test_a_symlink_of_the_guest_does_not_lead_the_overlay_out(tmp_path: Path) -> None:
    """As root, where every write outside would succeed."""
    guest, source, outside = (tmp_path / name for name in ("guest", "source", "outside"))
    for path in (guest, source / "etc/cron.d", outside):
        path.mkdir(parents=True)
    (outside / "precious").write_text("precious")
    (source / "etc/cron.d/job").write_text("job")
    (guest / "etc").symlink_to(outside)
    before = picture(outside)
    copy_directory(str(source), str(guest))
    assert picture(outside) == before
    assert (guest / "etc/cron.d/job").read_text() == "job"
