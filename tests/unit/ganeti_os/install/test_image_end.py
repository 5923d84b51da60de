# SPDX-License-Identifier: MIT
"""An image that ends before its file systems do is refused; one that lacks only free bytes is not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ganeti_os.install.image_end import check_complete
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import InvalidImageError
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.units import MIB
from tests.fixtures.node import Node, last_line
from tests.fixtures.partition_tables import LINUX, entry, gpt, record

START, LENGTH = MIB, 8 * MIB
SIZE = START + LENGTH
FIRST, SECTORS = START // 512, LENGTH // 512


def image(*entries: bytes) -> bytes:
    """An MBR with these entries, and an ext4 from START to the end."""
    disk = MemoryDisk(LENGTH)
    make_ext(disk)
    return record(*entries).ljust(START, b"\0") + bytes(disk.data)


def check(data: bytes, size: int, *, after: bytes = b"") -> None:
    """Check the first size bytes of data; after them the disk has other bytes."""
    disk = MemoryDisk(SIZE + 4 * MIB, fill=0xFF)
    disk.write(0, data[:size] + after)
    check_complete(disk, size, "x.raw")


WHOLE = image(entry(LINUX, FIRST, SECTORS))


def test_a_whole_image(caplog: pytest.LogCaptureFixture) -> None:
    check(WHOLE, SIZE)
    check(WHOLE[START:], LENGTH)  # without a partition table
    check(WHOLE + bytes(MIB), SIZE + MIB)
    assert not caplog.messages


@pytest.mark.parametrize("size", [SIZE - 1, SIZE - 512, START + 4096, START + 2048])
def test_an_image_that_ends_within_its_file_system(size: int) -> None:
    reaches = f"the file system of partition 1 \\(ext4\\) reaches to byte {SIZE}; the image is truncated"
    with pytest.raises(InvalidImageError, match=f"^x.raw: ends at byte {size}, but {reaches}"):
        check(WHOLE, size)
    with pytest.raises(InvalidImageError, match=r"the file system of the whole disk \(ext4\) reaches to byte"):
        check(WHOLE[START:], size - START)


def test_a_gpt(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk(SIZE + MIB)
    disk.write(START, WHOLE[START:])
    gpt(disk, [(FIRST, FIRST + SECTORS - 1)], sectors=disk.size // 512)
    check(bytes(disk.data), disk.size)
    assert not caplog.messages
    with pytest.raises(InvalidImageError, match="ends at byte 5242880, but the file system of partition 1"):
        check(bytes(disk.data), 5 * MIB)


@pytest.mark.parametrize("size", [512, 4096, START])
def test_an_image_that_ends_before_its_first_partition(size: int) -> None:
    with pytest.raises(InvalidImageError, match=f"^x.raw: ends at byte {size}, before its first partition"):
        check(WHOLE, size, after=WHOLE[size:])  # a former instance's


def test_an_image_without_the_end_of_an_unknown_partition(caplog: pytest.LogCaptureFixture) -> None:
    check(image(entry(LINUX, FIRST, SECTORS), entry(LINUX, FIRST + SECTORS, 100 * MIB // 512)), SIZE)
    assert (
        "x.raw: has 9437184 bytes (9 MiB), but its partition table describes a disk of 114294784 bytes" in caplog.text
    )


@pytest.mark.parametrize(
    "entries", [(entry(LINUX, FIRST, 1 << 31),), (entry(0xEE, 1, SECTORS),), (entry(5, FIRST, 8),)]
)
def test_a_table_that_lies(entries: tuple[bytes, ...]) -> None:
    check(image(*entries), SIZE)


@pytest.mark.parametrize("name", ["x.raw", "x.raw.gz"])
def test_create_refuses_it(tmp_path: Path, name: str) -> None:
    node, disk = Node.make(tmp_path / "node", IMAGE_NAME=name), tmp_path / "disk"
    disk.write_bytes(b"\xff" * (SIZE + MIB))
    data = WHOLE[: SIZE - 2 * MIB]
    (node.images / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    done = node.create(disk)
    assert done.returncode == 1
    assert "reaches to byte 9437184; the image is truncated" in last_line(done)
    assert not disk.read_bytes()[:MIB].strip(b"\0\xff")
