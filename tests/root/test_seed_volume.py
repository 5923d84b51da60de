# SPDX-License-Identifier: MIT
"""Images whose root is not written get cloud-init's seed on a volume, by the verbs as Ganeti calls them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.fat12 import read_fat12
from pydiskimg.fs.luks import LUKS2
from pydiskimg.images.open_disk import open_disk
from pydiskimg.regions.region import Region
from pydiskimg.volumes.find import find_volumes
from tests.fixtures.block_devices import beginning
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import NIC, Node, create_environment, last_line
from tests.fixtures.partition_tables import entry, gpt, record

pytestmark = [pytest.mark.root, pytest.mark.oracle]
Tool = Callable[[str], str]

SECTORS, ROOT, VAR = 81920, 8192, 69632
OLD, NEW = "inst1.example.org", "inst2.example.net"
FILES = {
    "etc/os-release": "ID=debian\n",
    "etc/hostname": "image\n",
    "etc/cloud/cloud.cfg": "users: [default]\n",
    "usr/bin/cloud-init": "#!/usr/bin/python3\n",
    "usr/sbin/netplan": "#!/usr/bin/python3\n",
}


def luks() -> bytes:
    return LUKS2.pack(magic=b"LUKS\xba\xbe", version=2, uuid=b"3ed0e2b2-5e0c-4a0f-8a3f-6b7c1a0b0f11")


def ext4(tool: Tool, directory: Path, fstab: str, *, unknown: bool = False) -> bytes:
    """Return a root file system; unknown: with a feature that no kernel knows."""
    for name, text in {**FILES, "etc/fstab": fstab}.items():
        (directory / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "tree" / name).write_text(text)
    file = directory / "ext4"
    subprocess.run(
        [tool("mke2fs"), "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", directory / "tree", file, "30m"], check=True
    )
    data = bytearray(file.read_bytes())
    if unknown:
        data[1024 + 0x63] |= 0x80
    return bytes(data)


def node_of(directory: Path, root: bytes, *, mbr: bool = False, var: bytes = b"", **settings: str) -> Node:
    image = MemoryDisk(SECTORS * 512)
    if mbr:
        image.write(0, record(entry(0x83, ROOT, SECTORS - ROOT)))
    elif var:
        gpt(image, ((2048, 4095), (ROOT, VAR - 1), (VAR, SECTORS - 2049)), sectors=SECTORS)
        image.write(VAR * 512, var)
    else:
        gpt(image, ((2048, 4095), (ROOT, SECTORS - 2049)), sectors=SECTORS)
    image.write(ROOT * 512, root)
    node = Node.make(directory / "node", IMAGE_NAME="image", IMAGE_TYPE="raw", **settings)
    (node.images / "image-x86_64.raw").write_bytes(image.data)
    return node


def seed(disk: Path) -> dict[str, bytes] | None:
    """Return the files on the volume, None where there is none."""
    with open_disk(disk) as opened:
        for volume in find_volumes(opened):
            if volume.content is not None and volume.content.label == "CIDATA":
                place = volume.partition
                return read_fat12(Region(opened, place.start, place.length))
    return None


def rename(node: Node, disk: Path) -> subprocess.CompletedProcess[str]:
    environment = create_environment(disk, **{**NIC, "NIC_0_IP": "192.0.2.11"})
    return node.run("rename", **{**environment, "INSTANCE_NAME": NEW, "OLD_INSTANCE_NAME": OLD})


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate((SECTORS * 512) + (16 << 20))
    return path


@pytest.mark.parametrize("kind", ["LUKS", "ext4 of the future"])
def test_a_root_that_is_not_mounted(tmp_path: Path, tool: Tool, disk: Path, kind: str) -> None:
    root = luks() if kind == "LUKS" else ext4(tool, tmp_path, "", unknown=True)
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nruncmd: [true]\n")
    node = node_of(tmp_path, root, CLOUD_USER_DATA=str(user_data))
    done = node.create(disk, INSTANCE_UUID="5eed", **NIC)
    assert done.returncode == 0, done.stderr
    assert "the seed of cloud-init, label CIDATA, was written" in done.stderr
    made = seed(disk)
    assert made is not None
    assert made["user-data"] == user_data.read_bytes()
    assert yaml.safe_load(made["meta-data"]) == {"instance-id": f"5eed-{OLD}", "local-hostname": OLD}
    assert (
        "No problems found"
        in subprocess.run([tool("sgdisk"), "-v", disk], capture_output=True, text=True, check=True).stdout
    )
    done = rename(node, disk)
    assert done.returncode == 0, done.stderr
    renamed = seed(disk)
    assert renamed is not None
    assert yaml.safe_load(renamed["meta-data"]) == {"instance-id": f"5eed-{OLD}", "local-hostname": NEW}
    assert b"192.0.2.11/24" in renamed["network-config"]
    assert [renamed[name] for name in ("user-data", "vendor-data")] == [made["user-data"], made["vendor-data"]]


def test_a_var_of_its_own(tmp_path: Path, tool: Tool, disk: Path) -> None:
    """The root is written; its /var/lib/cloud is hidden by the file system that is mounted over /var."""
    node = node_of(tmp_path, ext4(tool, tmp_path, "LABEL=root / ext4\nLABEL=var /var ext4\n"))
    done = node.create(disk, **NIC)
    assert done.returncode == 0, done.stderr
    assert (made := seed(disk)) is not None
    assert yaml.safe_load(made["meta-data"])["local-hostname"] == OLD
    assert rename(node, disk).returncode == 0
    assert (renamed := seed(disk)) is not None
    assert yaml.safe_load(renamed["meta-data"])["local-hostname"] == NEW


def test_a_var_that_is_mounted_for_the_edit_needs_none(tmp_path: Path, tool: Tool, disk: Path) -> None:
    """The seed is written into the /var that the guest mounts, on another partition of the disk."""
    (tmp_path / "tree/var").mkdir(parents=True)
    subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-L", "var", tmp_path / "var", "4m"], check=True)
    root = ext4(tool, tmp_path, "LABEL=root / ext4\nLABEL=var /var ext4\n")
    node = node_of(tmp_path, root, var=(tmp_path / "var").read_bytes())
    done = node.create(disk, **NIC)
    assert done.returncode == 0, done.stderr
    assert seed(disk) is None
    with inside(str(disk), partitions(str(disk))[-1], tmp_path) as var:
        meta_data = (var / "lib/cloud/seed/nocloud/meta-data").read_text()
    assert yaml.safe_load(meta_data)["local-hostname"] == OLD


def test_a_root_that_is_written_needs_none(tmp_path: Path, tool: Tool, disk: Path) -> None:
    done = node_of(tmp_path, ext4(tool, tmp_path, "LABEL=root / ext4\n")).create(disk, **NIC)
    assert done.returncode == 0, done.stderr
    assert seed(disk) is None


@pytest.mark.parametrize("kind", ["an MBR", "IDENTITY=no", "no Linux"])
def test_no_volume(tmp_path: Path, disk: Path, kind: str) -> None:
    identity = "no" if kind == "IDENTITY=no" else "yes"
    root = bytes(8) if kind == "no Linux" else luks()
    done = node_of(tmp_path, root, mbr=kind == "an MBR", IDENTITY=identity).create(disk, **NIC)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert seed(disk) is None
    warned = "cloud-init in the guest gets no seed with the instance's name and network: the disk has no GPT"
    assert (warned in done.stderr) == (kind == "an MBR")


@pytest.mark.parametrize("where", [0x16, 13 * 512 + 32 + 1, 13 * 512 + 32 + 32 + 28])
def test_volumes_of_a_hostile_guest(tmp_path: Path, disk: Path, where: int) -> None:
    """The sectors of a table, a letter of a long name, the size of a file: told, and nothing is written."""
    node = node_of(tmp_path, luks())
    assert node.create(disk, **NIC).returncode == 0
    with disk.open("r+b") as file:
        file.seek(40 * 512 + where)
        file.write(b"\xff\x5f")
    before = beginning(disk, 1 << 20)
    done = rename(node, disk)
    assert "Traceback" not in done.stderr
    assert "cloud-init in the guest may keep the old name" in done.stderr or done.returncode == 1, last_line(done)
    assert beginning(disk, 1 << 20) == before


def test_user_data_that_is_missing(tmp_path: Path, disk: Path) -> None:
    done = node_of(tmp_path, luks(), CLOUD_USER_DATA="/nowhere/user-data").create(disk, **NIC)
    assert done.returncode == 1
    assert "/nowhere/user-data: CLOUD_USER_DATA cannot be read" in last_line(done)
    assert not any(beginning(disk, 4 << 20))
