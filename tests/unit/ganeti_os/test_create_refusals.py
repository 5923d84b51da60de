# SPDX-License-Identifier: MIT
"""create with bad input: one clear sentence at the end, exit status 1 or 2, and the disk as it was."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from tests.fixtures.node import ROOT, Node, create_environment, last_line, run_unprivileged
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.streams import written

SIZE = 4 << 20


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "the disk"
    path.write_bytes(b"\xff" * SIZE)
    return path


def refused(node: Node, disk: Path, *words: str, status: int = 1) -> None:
    done = node.create(disk)
    assert done.returncode == status, done.stderr
    for word in words:
        assert word in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE, "the disk was written to"


def test_an_image_larger_than_the_disk(node: Node, disk: Path) -> None:
    with (node.images / "x-x86_64.raw").open("wb") as file:
        file.truncate(SIZE + 1)
    refused(node, disk, "needs 4194305 bytes (4 MiB), the disk has 4194304 bytes (4 MiB); nothing was written")


def test_a_missing_image_lists_what_there_is(node: Node, disk: Path) -> None:
    (node.images / "y-x86_64.raw").touch()
    refused(node, disk, f"{node.images}/x-x86_64.raw", "y-x86_64.raw")


def test_a_file_that_is_no_image(node: Node, disk: Path) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="qcow2")
    (node.images / "x-x86_64.qcow2").write_bytes(b"#!/bin/sh\n" * 100)
    refused(node, disk, "x-x86_64.qcow2", "qcow2")


@pytest.mark.parametrize("image_type", ["raw", "qcow2"])
def test_an_image_of_no_bytes(node: Node, disk: Path, image_type: str) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE=image_type)
    image = b"" if image_type == "raw" else written(BytesSource(b""))
    (node.images / f"x-x86_64.{image_type}").write_bytes(image)
    refused(node, disk, f"x-x86_64.{image_type}: is the image of a disk of 0 bytes; expected a disk with data")


def test_a_truncated_header(node: Node, disk: Path) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="qcow2")
    (node.images / "x-x86_64.qcow2").write_bytes(b"QFI\xfb\0\0\0\3")
    refused(node, disk, "x-x86_64.qcow2")


def test_a_disk_that_does_not_exist(node: Node, disk: Path, tmp_path: Path) -> None:
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    done = node.create(tmp_path / "missing")
    assert (done.returncode, "No such file or directory" in last_line(done)) == (1, True)
    assert not (tmp_path / "missing").exists()


def test_scripts_on_a_tarball_need_root_before_the_disk_is_touched(node: Node, disk: Path) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="tarball")
    node.add_script("10-any", "#!/bin/sh\n")
    with tarfile.open(node.images / "x-x86_64.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("etc"))
    done = run_unprivileged(node, "create", create_environment(disk))
    assert done.returncode == 1
    assert "needs root" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE


def test_a_tarball_that_is_a_text(node: Node, disk: Path) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="tarball")
    (node.images / "x-x86_64.tar.gz").write_bytes(b"hello\n")
    refused(node, disk, "x-x86_64.tar.gz: is text that begins with 'hello', expected a tar archive")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"IMAGE_TYPE": "iso"}, "IMAGE_TYPE is 'iso'; expected"),
        ({"SWAP_SIZE": "-5"}, "SWAP_SIZE is '-5'; expected a size in MiB"),
        ({"FILESYSTEM": "ntfs"}, "FILESYSTEM is 'ntfs'"),
        ({"IMAGE_TYPE": "tarball", "NOMOUNT": "yes"}, "NOMOUNT=yes contradicts"),
        ({"IMAGE_NAME": "../x"}, "IMAGE_NAME is '../x'"),
    ],
)
def test_settings_that_make_no_sense(node: Node, disk: Path, settings: dict[str, str], words: str) -> None:
    (node.images / "x-x86_64.tar.gz").write_bytes(gzip.compress(b"", mtime=0))
    node.configure(**{"IMAGE_NAME": "x", "ARCH": "x86_64", **settings})
    refused(node, disk, words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "; nothing was written; 64 MiB of that are swap (the instance's memory): set SWAP_SIZE, or SWAP=no"),
        ({"SWAP_SIZE": "9"}, "; nothing was written; 9 MiB of that are swap (SWAP_SIZE): set SWAP_SIZE, or SWAP=no"),
        ({"SWAP": "no"}, "the disk has 4194304 bytes (4 MiB); nothing was written"),
    ],
)
def test_swap_that_leaves_no_room_is_told(node: Node, disk: Path, settings: dict[str, str], words: str) -> None:
    with tarfile.open(node.images / "x-x86_64.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("etc/fstab"))
    node.configure(**{"IMAGE_NAME": "x", "ARCH": "x86_64", "IMAGE_TYPE": "tarball", **settings})
    done = node.create(disk)
    assert done.returncode == 1
    assert last_line(done).endswith(words)
    assert disk.read_bytes() == b"\xff" * SIZE


def test_a_line_that_is_no_assignment(node: Node, disk: Path) -> None:
    file = node.directory / "etc/default/ganeti-instance-image"
    file.write_text("IMAGE_NAME=x\nrm -rf /\n")
    refused(node, disk, f"{file}:2:")


def test_cdinstall_prepares_nothing_and_says_so(node: Node, disk: Path) -> None:
    node.configure(CDINSTALL="yes")
    done = node.create(disk)
    assert done.returncode == 0
    assert "CDINSTALL=yes" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE


def test_a_raw_image_needs_no_root_and_its_rest_is_zero(node: Node, disk: Path) -> None:
    data = os.urandom(2 << 20)
    (node.images / "x-x86_64.raw").write_bytes(data)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes() == data + bytes(2 << 20)


def test_a_full_file_system_gives_one_sentence(node: Node, tmp_path: Path) -> None:
    image = io.BytesIO(os.urandom(1 << 20))
    (node.images / "x-x86_64.raw").write_bytes(image.getvalue())
    done = node.create("/dev/full")
    assert (done.returncode, "is a character device" in last_line(done)) == (1, True)


def test_closed_standard_descriptors_do_not_become_the_disk(node: Node, disk: Path) -> None:
    data = os.urandom(3 << 20)
    (node.images / "x-x86_64.raw").write_bytes(data)
    command = [*node.command("create", "-i", "i", "-b", str(disk), "-s", str(disk) + "2")]
    disk.with_name(disk.name + "2").write_bytes(b"\xff" * SIZE)
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert disk.read_bytes()[: len(data)] == data


def hide(module: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment in which the module is not installed."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(f"raise ModuleNotFoundError('gone', name='{module}')")
    return {"PYTHONPATH": str(site)}


@pytest.mark.parametrize(
    ("module", "package", "mode"),
    [("parted", "pyparted", "w:gz"), ("libarchive", "libarchive-c", "w:xz")],
)
def test_a_missing_package_is_a_sentence(
    node: Node, disk: Path, tmp_path: Path, module: str, package: str, mode: Literal["w:gz", "w:xz"]
) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="tarball", SWAP="no")
    with tarfile.open(node.images / "x-x86_64.tar.gz", mode) as archive:
        archive.addfile(tarfile.TarInfo("etc"))
    os.truncate(disk, 128 << 20)
    before = disk.read_bytes()
    done = node.create(disk, **hide(module, tmp_path))
    assert done.returncode == 1
    assert f" needs {package}, " in last_line(done)
    assert f"python3-{package.removeprefix('py')}" in last_line(done)
    assert disk.read_bytes() == before


def test_a_disk_image_needs_no_package(node: Node, disk: Path, tmp_path: Path) -> None:
    data = os.urandom(512)
    (node.images / "x-x86_64.raw").write_bytes(data)
    hidden = hide("parted", tmp_path) | hide("libarchive", tmp_path)
    done = node.create(disk, **hidden)
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes()[:512] == data


def test_a_relative_path_and_no_current_directory(node: Node, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from ganeti_os.main import run_verb; "
    code += "run_verb('create', argv=['-i', 'x', '-b', 'disk', '-s', 'swap'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "'disk' is a relative path, and the current directory is gone" in last_line(done)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("instances/inst1.example.org", "ADDRESS=192.0.2.300", "inst1.example.org:1: ADDRESS is '192.0.2.300'"),
        ("subnets/lan", "NETMASK=255.0.255.0", "lan:1: NETMASK is '255.0.255.0'"),
    ],
)
def test_network_files_are_checked_before_the_disk_is_touched(
    node: Node, disk: Path, name: str, text: str, words: str
) -> None:
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    networks = node.directory / "etc/ganeti/instance-image/networks"
    for path, lines in (("instances/inst1.example.org", "ADDRESS=192.0.2.3\nSUBNET=lan"), (name, text)):
        (networks / path).parent.mkdir(parents=True, exist_ok=True)
        (networks / path).write_text(lines)
    refused(node, disk, words)


def test_user_data_that_is_a_fifo_is_not_waited_for(node: Node, disk: Path, tmp_path: Path) -> None:
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    os.mkfifo(tmp_path / "user-data")
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", CLOUD_USER_DATA=str(tmp_path / "user-data"))
    refused(node, disk, "user-data: CLOUD_USER_DATA is not a regular file")


@pytest.mark.parametrize("name", ["CUSTOMIZE_DIR", "NETWORKS_DIR"])
def test_a_directory_that_the_settings_misspell_is_told(node: Node, disk: Path, name: str) -> None:
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", **{name: "/etc/gaenti/x"})
    done = node.create(disk)
    assert done.returncode == 0
    assert f"warning: /etc/gaenti/x: the directory in {name} does not exist on this node" in done.stderr
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw")
    node.scripts.rmdir()
    assert "does not exist" not in node.create(disk).stderr


def test_a_full_log_does_not_change_the_outcome(node: Node, disk: Path) -> None:
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    disk.with_name("swap").write_bytes(bytes(SIZE))
    command = node.command("create", "-i", "i", "-b", str(disk), "-s", str(disk.with_name("swap")))
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, cwd=ROOT, stderr=full, check=False).returncode == 0
    assert disk.read_bytes()[:512] == b"\0x" * 256
