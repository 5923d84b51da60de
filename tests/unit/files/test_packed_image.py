# SPDX-License-Identifier: MIT
"""Disk images in .xz, .gz, .zst and .bz2: installed while they are decompressed, and refused where they are invalid."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pydiskimg.errors import ArchiveError, DiskImageError
from pydiskimg.files.tar import open_packed
from pydiskimg.images import looks_like
from pydiskimg.images.raw import open_raw
from tests.fixtures.node import Node, last_line
from tests.fixtures.qcow2_images import BytesSource, Craft
from tests.fixtures.streams import written

MIB = 1 << 20
SIZE = 8 * MIB
OLD = b"\xff" * SIZE
Compress = Callable[[bytes], bytes]
COMPRESSIONS: dict[str, Compress] = {
    "gz": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": zstandard.ZstdCompressor(1, write_checksum=True).compress,  # as the program zstd does
    "bz2": lambda data: bz2.compress(data, 1),
}


def disk_bytes(size: int = 6 * MIB) -> bytes:
    """A disk with a boot sector, data here and there, and zeros."""
    data = bytearray(size)
    data[: 512 * 3] = os.urandom(512 * 3)
    data[446:512] = bytes(64) + b"\x55\xaa"
    data[MIB + 100 : MIB + 100_000] = os.urandom(99_900)
    data[-4096:] = os.urandom(4096)
    return bytes(data)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node", IMAGE_NAME="", IDENTITY="no", GROW="no")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "the disk"
    path.write_bytes(OLD)
    return path


def put(node: Node, name: str, data: bytes, **settings: str) -> Path:
    """Make an image with the name in the settings file, and nothing else."""
    node.configure(**{"IMAGE_NAME": name, "IDENTITY": "no", "GROW": "no", **settings})
    path = node.images / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("inside", ["raw", "qcow2"])
def test_what_is_inside_comes_onto_the_disk(node: Node, disk: Path, ending: str, inside: str) -> None:
    data = disk_bytes()
    held = data if inside == "raw" else written(BytesSource(data))
    put(node, f"debian-13-genericcloud-amd64.{inside}.{ending}", COMPRESSIONS[ending](held))
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes() == data + bytes(SIZE - len(data))
    assert f"({inside}, compressed" in done.stderr


def test_imported_by_the_type_that_is_set(node: Node, disk: Path) -> None:
    put(node, "x.gz", gzip.compress(written(BytesSource(disk_bytes()))), IMAGE_TYPE="raw")
    done = node.create(disk)
    assert "holds, decompressed, a qcow2 image, expected a disk; IMAGE_TYPE=qcow2 installs it" in last_line(done)
    put(node, "x.gz", gzip.compress(disk_bytes()), IMAGE_TYPE="qcow2")
    done = node.create(disk)
    assert "x.gz: its content is not a qcow2 disk image; IMAGE_TYPE=qemu accepts any" in last_line(done)
    assert disk.read_bytes() == OLD


def tar_bytes() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))
    return made.getvalue()


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        (b"", "is the image of a disk of 0 bytes"),
        (b"x\0" * 100, "has 200 bytes; a disk has at least one sector"),
        (b"<html><body>", "holds, decompressed, text that begins with '<html>"),
        (lzma.compress(bytes(9999)), "is compressed with xz, expected a disk; decompress it with: xz -d"),
        (tar_bytes(), "holds, decompressed, a tar archive, expected a disk; IMAGE_TYPE=tarball installs it"),
        (b"KDMV" + bytes(9999), "holds, decompressed, a VMDK image, expected a disk"),
        (b"QFI\xfb\0\0\0\x03", "qcow2"),
    ],
)
def test_another_file_inside(node: Node, disk: Path, inside: bytes, words: str) -> None:
    put(node, "x.img.gz", gzip.compress(inside))
    done = node.create(disk)
    assert (done.returncode, disk.read_bytes() == OLD) == (1, True), done.stderr
    assert f"{node.images}/x.img.gz: {words}" in last_line(done) or words == "qcow2"


@pytest.mark.parametrize("fault", ["cut", "flipped"])
@pytest.mark.parametrize(
    ("ending", "inside"), [*((ending, "raw") for ending in COMPRESSIONS), ("xz", "qcow2"), ("zst", "qcow2")]
)
def test_damage_leaves_a_disk_that_begins_with_zeros(
    node: Node, disk: Path, ending: str, fault: str, inside: str
) -> None:
    data = disk_bytes()[: 3 * MIB] + os.urandom(2 * MIB)
    packed = bytearray(COMPRESSIONS[ending](data if inside == "raw" else written(BytesSource(data))))
    if fault == "cut":
        del packed[-1000:]
    else:
        packed[-5000] ^= 0x10
    put(node, f"x.img.{ending}", bytes(packed))
    done = node.create(disk)
    assert done.returncode == 1
    assert f"{node.images}/x.img.{ending}: the " in last_line(done)
    found = disk.read_bytes()
    if inside == "raw":
        assert found[:MIB] == bytes(MIB)
        assert found[-MIB:] == bytes(MIB)
    else:
        assert found == OLD


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_bomb_of_zeros_does_not_fit(node: Node, disk: Path, ending: str) -> None:
    bomb = COMPRESSIONS[ending](disk_bytes()[:512] + bytes(64 * MIB))
    assert len(bomb) < MIB
    put(node, f"x.img.{ending}", bomb)
    done = node.create(disk)
    assert done.returncode == 1
    assert f"is full after {SIZE} bytes, and {node.images}/x.img.{ending} has more" in last_line(done)
    assert disk.read_bytes()[:MIB] == bytes(MIB)
    assert disk.stat().st_size == SIZE


def test_a_described_disk_that_does_not_fit_is_refused_before_anything_is_written(node: Node, disk: Path) -> None:
    data = bytearray(disk_bytes())
    data[446:462] = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    put(node, "x.img.gz", gzip.compress(bytes(data)))
    done = node.create(disk)
    assert "x.img.gz needs 537919488 bytes (513 MiB), the disk has" in last_line(done)
    assert disk.read_bytes() == OLD


def test_a_qcow2_of_a_larger_disk_is_refused_before_it_is_unpacked(node: Node, disk: Path) -> None:
    put(node, "x.qcow2.gz", gzip.compress(Craft(cluster_bits=16, size=SIZE + 512).build()))
    done = node.create(disk)
    assert "x.qcow2.gz needs 8389120 bytes" in last_line(done)
    assert disk.read_bytes() == OLD


def test_a_qcow2_file_is_not_larger_than_its_disk_can_make_it(node: Node, disk: Path) -> None:
    image = Craft(size=MIB).build()
    put(node, "x.qcow2.zst", zstandard.compress(image + bytes(80 * MIB), 1))
    done = node.create(disk)
    assert "x.qcow2.zst: contains a qcow2 of more than 65.1 MiB for a disk of 1 MiB" in last_line(done), done.stderr
    assert disk.read_bytes() == OLD


def test_no_file_has_a_name_meanwhile(node: Node, disk: Path) -> None:
    put(node, "x.qcow2.gz", gzip.compress(written(BytesSource(disk_bytes()))))
    assert node.create(disk).returncode == 0
    assert os.listdir(node.images) == ["x.qcow2.gz"]


def test_other_compressions_are_named(node: Node, disk: Path) -> None:
    put(node, "x.img.lz4", b"\x04\x22\x4d\x18" + bytes(100))
    done = node.create(disk)
    assert "x.img.lz4: is compressed with lz4, expected a raw or qcow2 disk image" in last_line(done)


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_read_from_front_to_back(tmp_path: Path, ending: str) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "x"
    path.write_bytes(COMPRESSIONS[ending](data))
    with open_packed(path) as packed:
        assert packed.peek(10) == data[:10]
        assert packed.peek(200_000) == data[:200_000]
        assert packed.position == 0
        assert packed.read(7) == data[:7]
        buffer = bytearray(250_000)
        assert packed.read_into(memoryview(buffer)) == len(buffer)
        assert buffer == data[7:250_007]
        assert packed.position == 250_007
        assert packed.read_into(memoryview(buffer)) == 300_000 - 250_007
        assert packed.read(1) == b""
        assert packed.peek(5) == b""
        assert packed.consumed == path.stat().st_size


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DiskImageError, match="cannot open: No such file"), open_packed(tmp_path / "x"):
        pass


def tarball(files: dict[str, bytes], mode: str = "w:xz", form: int = tarfile.GNU_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "mode", "form", "inside"),
    [
        ("debian-13-genericcloud-amd64.tar.xz", "w:xz", tarfile.GNU_FORMAT, "disk.raw"),
        ("gce.tar.gz", "w:gz", tarfile.PAX_FORMAT, "disk.raw"),
        ("x.tar", "w", tarfile.USTAR_FORMAT, "./image.img"),
        ("x.tbz2", "w:bz2", tarfile.GNU_FORMAT, "debian.qcow2"),
    ],
)
def test_a_tarball_of_a_disk_image(node: Node, disk: Path, name: str, mode: str, form: int, inside: str) -> None:
    data = disk_bytes()
    held = written(BytesSource(data)) if inside.endswith("qcow2") else data
    put(node, name, tarball({inside: held}, mode, form))
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes() == data + bytes(SIZE - len(data))


def test_a_tarball_of_two_disk_images(node: Node, disk: Path) -> None:
    put(node, "x.tar.gz", tarball({"disk.raw": disk_bytes(), "other.raw": b"x"}, "w:gz"))
    done = node.create(disk)
    assert "x.tar.gz: other.raw: is in the archive besides a disk image; expected only that" in last_line(done)
    assert disk.read_bytes()[:MIB] == bytes(MIB)


def test_a_tarball_of_a_disk_image_that_is_cut_off(node: Node, disk: Path) -> None:
    put(node, "x.tar", tarball({"disk.raw": disk_bytes()}, "w")[: 4 * MIB])
    done = node.create(disk)
    assert (done.returncode, disk.read_bytes()[:MIB]) == (1, bytes(MIB))
    assert "x.tar" in last_line(done)


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_mutated_files_end_in_an_error_or_in_the_same_bytes(tmp_path: Path, ending: str) -> None:
    data = b"".join(bytes([number]) * number * 50 for number in range(1, 100))
    good = COMPRESSIONS[ending](data)
    rng = random.Random(ending)
    path = tmp_path / "x"
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            match rng.randrange(3):
                case 0:
                    bad[rng.randrange(len(bad))] = rng.randrange(256)
                case 1:
                    del bad[rng.randrange(1, len(bad)) :]
                case _:
                    bad += rng.randbytes(20)
        path.write_bytes(bad)
        with open_raw(path) as file:
            looks = looks_like(file)
        # Other beginnings do not count as compressed; the file is refused by its name; a bzip2 has 14 bytes or more.
        if looks is None or len(bad) < 14:
            continue
        with open_packed(path) as packed:
            try:
                found = b"".join(iter(lambda: packed.read(1 << 16), b""))
            except DiskImageError:
                continue
            assert found == data


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_name_that_says_compressed_is_believed(node: Node, disk: Path, ending: str) -> None:
    """A damaged header must not make a disk of compressed bytes."""
    packed = bytearray(COMPRESSIONS[ending](disk_bytes()))
    packed[1] ^= 0xFF
    path = put(node, f"x.img.{ending}", bytes(packed))
    done = node.create(disk)
    assert (done.returncode, disk.read_bytes() == OLD) == (1, True), done.stderr
    assert f"{path}: does not begin like a compressed file, although its name ends in .{ending}" in last_line(done)


def test_a_name_that_does_not_say_that_it_is_compressed_is_told(node: Node, tmp_path: Path) -> None:
    put(node, "x.img", gzip.compress(disk_bytes()))
    done = node.create(tmp_path / "disk", INSTANCE_NAME="inst1.example.org")
    assert "warning: " in done.stderr
    assert (
        "x.img: is compressed with gzip, although its name does not say so; its contents are installed" in done.stderr
    )


def read_all(path: Path) -> bytes:
    with open_packed(path) as packed:
        return b"".join(iter(lambda: packed.read(MIB), b""))


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("length", [0, 1, 2, 5, 8, 14])
def test_a_file_of_several_streams_is_whole_or_refused(tmp_path: Path, ending: str, length: int) -> None:
    """Parallel compressors make such files; a stream that was cut in its header has been taken for the end."""
    parts = [b"a" * 100_000, os.urandom(50_000)]
    first, second = map(COMPRESSIONS[ending], parts)
    path = tmp_path / f"image.{ending}"
    path.write_bytes(first + second)
    assert read_all(path) == b"".join(parts)
    path.write_bytes(first + (second[:length] or b"X" + second[1:]))
    with pytest.raises(ArchiveError):
        read_all(path)
