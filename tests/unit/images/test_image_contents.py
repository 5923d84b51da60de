# SPDX-License-Identifier: MIT
"""A file that is not a disk image is refused by its kind before anything is written; unknown contents are copied."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.swap import make_swap
from pydiskimg.images.contents import Sort, file_contents
from tests.fixtures.node import Node, last_line
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.streams import written

MIB = 1 << 20
OLD = b"\xff" * (4 * MIB)
SUFFIXES = {"qemu": ".img", "raw": ".raw", "qcow2": ".qcow2", "tarball": ".tar.gz", "dump": "-root.dump"}
PAGE = b"<html><body>404 Not Found</body></html>\n"


def disk_bytes() -> bytes:
    disk = MemoryDisk(2 * MIB)
    make_swap(disk)
    data = bytearray(disk.size)
    disk.read_into(0, data)
    return bytes(data)


def tar_bytes(form: int = tarfile.GNU_FORMAT, name: str = "disk.raw") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        member = tarfile.TarInfo(name)
        member.size = len(OLD)
        tar.addfile(member, io.BytesIO(OLD))
    return made.getvalue()


def zip_bytes() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("disk.raw", OLD[:MIB])
    return made.getvalue()


def dump_bytes() -> bytes:
    return bytes(24) + (60012).to_bytes(4, "little") + bytes(1000)


def qcow2_bytes() -> bytes:
    return written(BytesSource(disk_bytes()))


PACKED = ("tarball", "qemu", "raw", "qcow2")  # test_packed_image.py

# Contents, what is said of them, and the types of image that they are.
KINDS = {
    "page": (PAGE, "text that begins with '<html><body>404", ()),
    "long page": (PAGE * 100, "text that begins with '<html>", ()),
    "utf-16 page": (("\ufeff" + PAGE.decode() * 100).encode("utf-16-le"), "text that begins with '<html>", ()),
    "latin-1 page": (b"<p>nicht verf\xfcgbar</p>" * 100, "text that begins with '<p>", ()),
    "blanks": (b" \r\n" * 400, "text that begins with 'blanks'", ()),
    "script": (b"#!/bin/sh\nexec tail\n" + bytes(range(256)) * 10, "a script", ()),
    "zip": (zip_bytes(), "a zip archive", ()),
    "tar": (tar_bytes(), "a tar archive", ("tarball",)),
    "gzip": (gzip.compress(disk_bytes()), "compressed with gzip", PACKED),
    "xz": (lzma.compress(disk_bytes()), "compressed with xz", PACKED),
    "lzma": (lzma.compress(disk_bytes(), format=lzma.FORMAT_ALONE), "compressed with lzma", ("tarball",)),
    "bzip2": (bz2.compress(disk_bytes()), "compressed with bzip2", PACKED),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(999), "compressed with zstd", PACKED),
    "vmdk": (b"KDMV" + bytes(9999), "a VMDK image", ()),
    "vhdx": (b"vhdxfile" + bytes(9999), "a VHDX image", ()),
    "vdi": (bytes(64) + b"\x7f\x10\xda\xbe" + bytes(9999), "a VDI image", ()),
    "qed": (b"QED\0" + bytes(9999), "a QED image", ()),
    "dmg": (bytes(9999) + b"koly" + bytes(508), "an Apple disk image (DMG)", ()),
    "dump": (dump_bytes(), "a dump(8) of a file system", ("dump",)),
    "qcow2": (qcow2_bytes(), "a qcow2 image", ("qcow2", "qemu")),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(9999), "a program (ELF)", ()),
}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "the disk"
    path.write_bytes(OLD)
    return path


def put(node: Node, image_type: str, data: bytes, **settings: str) -> Path:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE=image_type, **settings)
    path = node.images / f"x-x86_64{SUFFIXES[image_type]}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("image_type", "kind"), [(name, kind) for kind in KINDS for name in SUFFIXES if name not in KINDS[kind][2]]
)
def test_another_file_is_named_and_nothing_is_written(node: Node, disk: Path, image_type: str, kind: str) -> None:
    data, what, _ = KINDS[kind]
    path = put(node, image_type, data)
    done = node.create(disk, INSTANCE_HV_kernel_path="/vmlinuz")
    assert (done.returncode, disk.read_bytes() == OLD) == (1, True), done.stderr
    assert f"{path}: is {what}" in last_line(done)
    assert ", expected a " in last_line(done)
    assert last_line(done).endswith("; nothing was written")


@pytest.mark.parametrize("kind", ["page", "zip", "tar", "qcow2"])
def test_nomount_changes_nothing_about_it(node: Node, disk: Path, kind: str) -> None:
    put(node, "raw", KINDS[kind][0], NOMOUNT="yes")
    done = node.create(disk)
    assert (done.returncode, disk.read_bytes() == OLD) == (1, True), done.stderr
    assert KINDS[kind][1] in last_line(done)


@pytest.mark.parametrize("kind", ["long page", "zip", "tar", "xz", "vmdk", "qcow2"])
def test_another_file_inside_a_qcow2(node: Node, disk: Path, kind: str) -> None:
    data = KINDS[kind][0]
    path = put(node, "qemu", written(BytesSource(data + bytes(-len(data) % 512))))
    done = node.create(disk)
    assert (done.returncode, disk.read_bytes() == OLD) == (1, True), done.stderr
    assert f"{path}: is {KINDS[kind][1]}" in last_line(done)
    assert "expected a disk; " in last_line(done)


@pytest.mark.parametrize("size", [1, 511])
def test_less_than_a_sector(node: Node, disk: Path, size: int) -> None:
    path = put(node, "raw", bytes(size))
    done = node.create(disk)
    assert (done.returncode, disk.read_bytes() == OLD) == (1, True), done.stderr
    assert f"{path}: has {size} bytes; a disk has at least one sector, 512 bytes" in last_line(done)


WARNING = "warning: {}: no partition table, file system or boot sector was found in it; it is copied unchanged"


UNKNOWN = {"zeros": bytes(MIB), "unknown": b"\xe9\x01" + bytes(range(256)) * 16, "0xff": OLD}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_copied_with_a_warning(node: Node, disk: Path, data: bytes) -> None:
    path = put(node, "raw", data, NOMOUNT="yes")
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert WARNING.format(path) in done.stderr
    assert disk.read_bytes()[: len(data)] == data


def boot_sector(start: bytes) -> bytes:
    return (start + bytes(510))[:510] + b"\x55\xaa" + bytes(8192)


ISO = bytes(32 << 10) + b"\x01CD001\x01" + bytes(4096)
BSD_LABEL = bytes(512) + bytes.fromhex("57455682") + bytes(8192)
LUKS = b"LUKS\xba\xbe\0\2" + bytes(160) + b"a2c5a4ab-2a44-4f3e-b9d4-0a3a4b9f5a10" + bytes(8192)


@pytest.mark.parametrize(
    "data",
    [
        disk_bytes(),
        boot_sector(b""),
        boot_sector(b"\x1f\x9d"),  # what a disk's boot code may begin with, and compress(1) does
        boot_sector(b"#!"),
        boot_sector(b"\x5d\0\0"),
        ISO,
        BSD_LABEL,
        LUKS,
    ],
    ids=["swap", "boot", "compress?", "script?", "lzma?", "iso", "bsd", "luks"],
)
def test_a_disk_is_taken_in_silence(node: Node, disk: Path, data: bytes) -> None:
    put(node, "qemu", data, IDENTITY="no")
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert disk.read_bytes()[: len(data)] == data


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["disk.raw", "#!", "070701", "LZIP", "ü" * 40])
def test_a_tar_is_one_whatever_its_first_name_begins_with(form: int, name: str) -> None:
    found = file_contents(BytesSource(tar_bytes(form, name)))
    assert found is not None
    assert found.sort is Sort.TAR


def test_a_tar_whose_checksum_is_wrong_is_none() -> None:
    data = bytearray(tar_bytes())
    data[100] ^= 1
    assert file_contents(BytesSource(bytes(data))) is None
