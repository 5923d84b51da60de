# SPDX-License-Identifier: MIT
"""What a former instance wrote is not on the new one's disk: WIPE, on a file, a device, and one that cannot discard."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.block_devices import block_device, device_without_discard, filled_file
from tests.fixtures.judges import partitions
from tests.fixtures.node import Node
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.streams import written

pytestmark = pytest.mark.root
MIB = 1 << 20
SIZE = 40 * MIB
SECRET = b"\xa5"
KEPT = "are not wiped: zeros would have to be written"


@pytest.fixture(params=["file", "device", "device that frees nothing"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, bool]]:
    """A disk full of what a former instance wrote, and whether blocks of it can be freed."""
    path = filled_file(tmp_path / "disk", SIZE, fill=SECRET)
    if request.param == "file":
        yield str(path), True
    elif request.param == "device":
        with block_device(path) as device:
            yield device, True
    else:
        with device_without_discard(path) as device:
            yield device, False


def image(size: int) -> bytes:
    """A disk of size bytes, none of them SECRET's or zero, with a boot sector."""
    data = (bytes(range(1, 0xA5)) * (size // 0xA4 + 1))[:size]
    return data[:510] + b"\x55\xaa" + data[512:]


def node(tmp_path: Path, **settings: str) -> Node:
    return Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", **{"IMAGE_TYPE": "raw", **settings})


def check(disk: tuple[str, bool], data: bytes, *, wiped: bool, log: str) -> None:
    with open(disk[0], "rb") as file:
        found = file.read()
    end = max(len(data), MIB)
    assert found[: len(data)] == data
    assert found[-MIB:] == bytes(MIB)
    rest = found[end:-MIB]
    assert rest.count(b"\0" if wiped else SECRET) == len(rest)
    assert found[len(data) : end] == bytes(end - len(data))
    assert (KEPT in log) is (not wiped), log


@pytest.mark.parametrize("size", [512, MIB, 3 * MIB + 512, 3 * MIB + 4096, SIZE - MIB - 512, SIZE])
def test_after_a_smaller_image(tmp_path: Path, disk: tuple[str, bool], size: int) -> None:
    made = node(tmp_path)
    (made.images / "x-x86_64.raw").write_bytes(image(size))
    done = made.create(disk[0])
    assert done.returncode == 0, done.stderr
    if size < SIZE:
        check(disk, image(size), wiped=disk[1], log=done.stderr)
    else:
        assert Path(disk[0]).read_bytes() == image(size)
        assert KEPT not in done.stderr


@pytest.mark.parametrize("wipe", ["yes", "no", "auto"])
@pytest.mark.parametrize("verb", ["create", "import"])
def test_the_setting(tmp_path: Path, disk: tuple[str, bool], wipe: str, verb: str) -> None:
    made, data = node(tmp_path, WIPE=wipe), image(3 * MIB + 512)
    source = made.images / "x-x86_64.raw"
    source.write_bytes(data)
    if verb == "create":
        done = made.create(disk[0])
        log, status = done.stderr, done.returncode
    else:
        source.write_bytes(written(BytesSource(data)))
        restored = made.restore(disk[0], source)
        log, status = restored.stderr.decode(), restored.returncode
    assert status == 0, log
    wiped = wipe == "yes" or (wipe == "auto" and disk[1])
    check(disk, data, wiped=wiped, log=log if wipe != "no" else KEPT)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_after_a_smaller_backup_that_ends_with_zeros(tmp_path: Path, disk: tuple[str, bool], form: str) -> None:
    made, data = node(tmp_path), image(2 * MIB) + bytes(3 * MIB)
    backup = tmp_path / "backup"
    backup.write_bytes(data if form == "raw" else written(BytesSource(data)))
    done = made.restore(disk[0], backup, OSP_IMPORT_FORMAT=form)
    assert done.returncode == 0, done.stderr
    check(disk, data, wiped=disk[1], log=done.stderr.decode())


def tarball(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name in ("etc", "boot"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        member = tarfile.TarInfo("etc/fstab")
        tar.addfile(member, io.BytesIO())


@pytest.mark.parametrize("wipe", ["yes", "auto", "no"])
def test_free_blocks_of_new_file_systems(tmp_path: Path, disk: tuple[str, bool], wipe: str) -> None:
    made = node(tmp_path, IMAGE_TYPE="tarball", BOOT_SIZE="10", SWAP_SIZE="8", WIPE=wipe)
    tarball(made.images / "x-x86_64.tar.gz")
    done = made.create(disk[0])
    assert done.returncode == 0, done.stderr
    wiped = wipe == "yes" or (wipe == "auto" and disk[1])
    assert (SECRET * 512 in Path(disk[0]).read_bytes()) is not wiped
    assert len(partitions(disk[0])) == 3
    for part in partitions(disk[0])[::2]:
        command = ["e2fsck", "-fn", f"{disk[0]}?offset={part['offset']}"]
        judged = subprocess.run(command, capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("image_type", ["raw", "tarball"])
def test_the_disk_that_becomes_swap(tmp_path: Path, image_type: str) -> None:
    made = node(tmp_path, IMAGE_TYPE=image_type, BOOT_SIZE="10")
    tarball(made.images / "x-x86_64.tar.gz")
    (made.images / "x-x86_64.raw").write_bytes(image(MIB))
    disk, swap = (filled_file(tmp_path / name, SIZE, fill=SECRET) for name in ("sda", "sdb"))
    done = made.run("create", "-i", "inst1.example.org", "-b", str(disk), "-s", str(swap))
    assert done.returncode == 0, done.stderr
    assert SECRET * 512 not in swap.read_bytes()
    assert swap.read_bytes()[4086:4096] == b"SWAPSPACE2"


def test_a_partition_that_grows_holds_nothing_of_before(tmp_path: Path, disk: tuple[str, bool]) -> None:
    small = tmp_path / "small"
    small.write_bytes(bytes(20 * MIB))
    subprocess.run(["sfdisk", "-q", str(small)], input=b"label: gpt\nstart=2048\n", check=True)
    command = ["mkfs.ext4", "-q", "-E", f"offset={MIB}", str(small), "18M"]
    subprocess.run(command, check=True, capture_output=True)
    made = node(tmp_path, GROW="yes")
    done = made.restore(disk[0], small)
    assert done.returncode == 0, done.stderr
    assert (SECRET * 512 in Path(disk[0]).read_bytes()) is not disk[1]
    (part,) = partitions(disk[0])
    assert part["offset"] + part["length"] > SIZE - 2 * MIB
    judged = subprocess.run(["e2fsck", "-fn", f"{disk[0]}?offset={MIB}"], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout
