# SPDX-License-Identifier: MIT
"""Finding a guest's root by looking: any partition, any file system, /boot by what fstab says."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ganeti_os.guest.root import NoRootError, find_guest
from pydiskimg.errors import PartitionError
from pydiskimg.images.open_disk import open_disk
from pydiskimg.volumes.find import find_volumes
from tests.fixtures.block_devices import beginning
from tests.fixtures.node import Node, last_line

pytestmark = pytest.mark.root
MIB = 1 << 20

ROOT_FILES = {"etc/os-release": "ID=debian\n", "etc/fstab": "UUID={boot} /boot ext4 defaults 0 2\n", "sbin/init": "x"}
BOOT_UUID = "11111111-2222-3333-4444-555555555555"


def tree(path: Path, files: dict[str, str], *, boot: str = BOOT_UUID) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text.replace("{boot}", boot))
    (path / "boot").mkdir(exist_ok=True)
    return path


def file_system(path: Path, size_mib: int, contents: Path | None, *options: str) -> bytes:
    """Make an ext4 file system with contents and return its bytes."""
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    populate = ["-d", str(contents)] if contents else []
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *populate, *options, path], check=True)
    return path.read_bytes()


def disk(path: Path, script: str, volumes_at: Sequence[tuple[int, bytes]], size_mib: int = 200) -> Path:
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    if script:
        subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True)
    with path.open("r+b") as file:
        for start_mib, data in volumes_at:
            file.seek(start_mib * MIB)
            file.write(data)
    return path


@pytest.fixture
def root_fs(tmp_path: Path) -> bytes:
    return file_system(tmp_path / "root.fs", 60, tree(tmp_path / "root", ROOT_FILES))


@pytest.fixture
def boot_fs(tmp_path: Path) -> bytes:
    return file_system(tmp_path / "boot.fs", 20, tree(tmp_path / "b", {"vmlinuz": "x"}), "-U", BOOT_UUID, "-L", "bt")


@pytest.mark.parametrize(
    ("script", "boot_at", "root_at", "number"),
    [
        ("label: dos\n1M,20M,L\n30M,60M,L\n", 1, 30, 2),
        ("label: dos\n100M,60M,L\n1M,20M,L\n", 1, 100, 1),
        ("label: dos\n1M,20M,L\n,,E\n50M,60M,L\n", 1, 50, 5),
        ("label: gpt\nstart=1MiB,size=20MiB\nstart=90MiB,size=60MiB,type=L\n", 1, 90, 2),
    ],
)
def test_root_and_boot(
    tmp_path: Path, root_fs: bytes, boot_fs: bytes, script: str, boot_at: int, root_at: int, number: int
) -> None:
    path = disk(tmp_path / "disk", script, [(boot_at, boot_fs), (root_at, root_fs)])
    with open_disk(path, writable=True) as opened:
        guest = find_guest(opened)
    assert (guest.root.partition.number, guest.root.partition.start) == (number, root_at * MIB)
    assert guest.boot is not None
    assert guest.boot.partition.start == boot_at * MIB
    scripted(tmp_path, path, 'test -f "$TARGET/boot/vmlinuz"')


@pytest.mark.parametrize("by", ["uuid", "label", "partuuid", "partlabel"])
@pytest.mark.parametrize("link", [True, False])
def test_scripts_see_boot_and_efi_by_any_name(tmp_path: Path, boot_fs: bytes, by: str, link: bool) -> None:
    """Ubuntu's installer writes /dev/disk/by-uuid/...; the kernel here mounts no vfat, and any file system will do."""
    names = {"uuid": BOOT_UUID, "label": "bt", "partuuid": "AAAABBBB-CCCC-4DDD-8EEE-FFFF00001111", "partlabel": "b o"}
    tree(tmp_path / "b", {"efi/x": ""})  # the directory to mount on
    boot = file_system(tmp_path / "boot.fs", 20, tmp_path / "b", "-U", BOOT_UUID, "-L", "bt")
    efi = file_system(tmp_path / "efi.fs", 20, tree(tmp_path / "e", {"EFI/debian/grubx64.efi": "x"}), "-L", "ESP")
    if link:
        spec = f"/dev/disk/by-{by}/{names[by]}".replace(" ", r"\x20")
    else:
        spec = f"{by.upper()}={names[by]}".replace(" ", r"\040")
    files = {**ROOT_FILES, "etc/fstab": f"{spec} /boot ext4 x 0 2\nLABEL=ESP /boot/efi vfat umask=0077 0 1\n"}
    root = file_system(tmp_path / "root.fs", 60, tree(tmp_path / "root", files))
    table = f'label: gpt\nstart=1MiB,size=20MiB,uuid={names["partuuid"]},name="b o"\nstart=30MiB,size=20MiB\n'
    path = disk(tmp_path / "disk", f"{table}start=60MiB,size=60MiB\n", [(1, boot), (30, efi), (60, root)])
    scripted(tmp_path, path, 'test -f "$TARGET/boot/vmlinuz" && test -f "$TARGET/boot/efi/EFI/debian/grubx64.efi"')


def test_an_efi_that_cannot_be_mounted_is_a_warning(tmp_path: Path, boot_fs: bytes) -> None:
    files = {**ROOT_FILES, "etc/fstab": "LABEL=bt /boot/efi vfat defaults 0 1\n"}  # there is not a directory /boot/efi
    root = file_system(tmp_path / "root.fs", 60, tree(tmp_path / "root", files))
    path = disk(tmp_path / "disk", "label: dos\n1M,20M,L\n30M,60M,L\n", [(1, boot_fs), (30, root)])
    log = scripted(tmp_path, path, 'test -d "$TARGET/boot"')
    assert "warning: /boot/efi is not mounted: /boot/efi in the guest: cannot be a mount point" in log


def scripted(tmp_path: Path, image: Path, script: str) -> str:
    """create copies the image and runs a script over it; return its log."""
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", IMAGE_TYPE="raw", ARCH="x86_64")
    (node.images / "x-x86_64.raw").symlink_to(image)
    node.add_script("check", f"#!/bin/sh\nset -e\n{script}\n")
    target = tmp_path / "copy"
    with target.open("wb") as file:
        file.truncate(image.stat().st_size)
    done = node.create(target)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_other_file_systems_without_a_partition_table(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([f"mkfs.{kind}", "-q", path], check=True)
    point = tmp_path / "point"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", path, point], check=True)
    tree(point, ROOT_FILES)
    subprocess.run(["umount", point], check=True)
    with open_disk(path, writable=True) as opened:
        guest = find_guest(opened)
    assert (guest.root.partition.number, guest.root.content and guest.root.content.type) == (0, kind)
    assert guest.boot is None
    scripted(tmp_path, path, 'test "$(stat -fc %T "$TARGET")" = ' + kind)


def test_scripts_see_the_subvolume_that_is_the_root(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(130 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", path], check=True)
    point = tmp_path / "point"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", path, point], check=True)
    subprocess.run(["btrfs", "subvolume", "create", point / "root"], check=True, capture_output=True)
    tree(point / "root", ROOT_FILES)
    subprocess.run(["umount", point], check=True)
    with open_disk(path, writable=True) as opened:
        assert find_guest(opened).root.options == "subvol=/root"
    scripted(tmp_path, path, 'test -f "$TARGET/etc/os-release"')


def test_what_there_is_is_listed_when_there_is_no_root(tmp_path: Path, boot_fs: bytes) -> None:
    path = disk(tmp_path / "disk", "label: dos\n1M,20M,L\n30M,60M,7\n", [(1, boot_fs)])
    with (
        open_disk(path) as opened,
        pytest.raises(
            NoRootError,
            match=r"among: partition 1 \(ext4\): no /etc of a Linux system; partition 2 \(nothing known\); set NOM",
        ),
    ):
        find_guest(opened)


def test_a_disk_that_failed_to_become_a_system_is_no_system_of_another_kind(tmp_path: Path) -> None:
    """Ganeti renames after each import, also after one that failed, and that is the last thing it tells of."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB) + b"\xff" * MIB)
    with open_disk(path) as opened, pytest.raises(NoRootError, match=r"an installation or import of it has failed$"):
        find_guest(opened)


def test_a_damaged_file_system_is_one_sentence(tmp_path: Path, root_fs: bytes) -> None:
    damaged = root_fs[:2048] + b"\xff" * 65536 + root_fs[2048 + 65536 :]
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", IMAGE_TYPE="raw", ARCH="x86_64")
    disk(node.images / "x-x86_64.raw", "label: dos\n1M,60M,L\n", [(1, damaged)])
    node.add_script("check", "#!/bin/sh\n")
    target = tmp_path / "copy"
    target.write_bytes(b"\xff" * 200 * MIB)
    done = node.create(target)
    assert done.returncode == 1
    assert "no root file system was found among: partition 1 (ext4): " in last_line(done)
    assert "NOMOUNT" not in last_line(done)
    assert not any(beginning(target, MIB // 2)), "a failed installation looks complete"


def test_boot_that_leads_elsewhere(tmp_path: Path, boot_fs: bytes) -> None:
    """The guest's /boot is a symlink to a directory of the host; the mount stays inside the guest."""
    contents = tree(tmp_path / "root", ROOT_FILES)
    (contents / "boot").rmdir()
    (contents / "srv").mkdir()
    (contents / "boot").symlink_to("/srv")
    root = file_system(tmp_path / "evil.fs", 60, contents)
    path = disk(tmp_path / "disk", "label: dos\n1M,20M,L\n30M,60M,L\n", [(1, boot_fs), (30, root)])
    scripted(tmp_path, path, 'test -f "$TARGET/srv/vmlinuz" && test ! -e /srv/vmlinuz')


def test_partitions_beyond_the_disk_are_refused(tmp_path: Path) -> None:
    path = disk(tmp_path / "disk", "label: dos\n100M,60M,L\n", [])
    with path.open("r+b") as file:
        file.truncate(120 * MIB)
    with open_disk(path) as opened, pytest.raises(PartitionError, match="lies beyond the end of the disk"):
        find_volumes(opened)


@pytest.mark.parametrize("spec", ["/dev/sda1", "/dev/sdb1", "UUID={root}", "LABEL=itself", "/dev/sda" + "1" * 5000])
def test_the_root_is_never_its_own_boot(tmp_path: Path, spec: str) -> None:
    uuid = "99999999-2222-3333-4444-555555555555"
    files = {**ROOT_FILES, "etc/fstab": f"/dev/sda1 / ext4 x 0 1\n{spec.replace('{root}', uuid)} /boot ext4 x 0 2\n"}
    root = file_system(tmp_path / "root.fs", 60, tree(tmp_path / "root", files), "-U", uuid, "-L", "itself")
    path = disk(tmp_path / "disk", "label: dos\n1M,60M,L\n", [(1, root)])
    with open_disk(path, writable=True) as opened:
        assert find_guest(opened).boot is None


def test_boot_on_another_disk_is_not_taken_for_a_partition_of_this_one(
    tmp_path: Path, boot_fs: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    files = {**ROOT_FILES, "etc/fstab": "/dev/sda2 / ext4 x 0 1\n/dev/sdb1 /boot ext4 x 0 2\n"}
    root = file_system(tmp_path / "root.fs", 60, tree(tmp_path / "root", files))
    path = disk(tmp_path / "disk", "label: dos\n1M,20M,L\n30M,60M,L\n", [(1, boot_fs), (30, root)])
    with open_disk(path, writable=True) as opened:
        assert find_guest(opened).boot is None
    assert "fstab mounts /dev/sdb1 on /boot, which is on none of" in caplog.text
