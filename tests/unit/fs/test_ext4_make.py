# SPDX-License-Identifier: MIT
"""What make_ext does to a disk: the order of its writes, what it costs, what it does not depend on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from pydiskimg.crc32c import crc32c
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DoesNotFitError, FileSystemError, StorageError
from pydiskimg.extents import Extent
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.features import FEATURES
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.protocols import Buffer, Disk, WritableBuffer
from pydiskimg.units import MIB, TIB
from tests.fixtures.limits import limits

ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")
MAGIC_AT = layout.SUPERBLOCK_OFFSET + layout.SUPERBLOCK.offsets["s_magic"]
MAGIC = layout.SUPERBLOCK_MAGIC.to_bytes(2, "little")
KINDS = ("ext2", "ext3", "ext4")


class RecordingDisk(MemoryDisk):
    """Remembers the kind and offset of every operation, and fails after some number of them."""

    def __init__(self, size: int, *, fill: int = 0, stop_after: int | None = None) -> None:
        super().__init__(size, fill=fill)
        self.reads_as_zero = False
        self.operations: list[tuple[str, int, int]] = []
        self.stop_after = stop_after

    def _record(self, what: str, offset: int = 0, length: int = 0) -> None:
        if len(self.operations) == self.stop_after:
            raise StorageError("out of order", errno=5, filename=self.name)
        self.operations.append((what, offset, length))

    def write(self, offset: int, data: Buffer) -> None:
        self._record("write", offset, len(data))
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._record("zero", offset, length)
        super().zero(offset, length)

    def flush(self) -> None:
        self._record("flush")


class SparseDisk(Disk):
    """A huge disk that keeps nothing but a count."""

    size: int
    reads_as_zero: bool
    name = "sparse"
    sector_size = 512

    def __init__(self, size: int) -> None:
        self.size = size
        self.reads_as_zero = False
        self.written = 0
        self.zeroed = 0

    def write(self, offset: int, data: Buffer) -> None:
        assert offset >= 0
        assert offset + len(data) <= self.size
        self.written += len(data)

    def zero(self, offset: int, length: int) -> None:
        assert offset >= 0
        assert 0 < length <= self.size - offset
        self.zeroed += length

    def flush(self) -> None:
        """Nothing is kept."""

    def drop_cache(self) -> None:
        """Nothing is kept."""

    def extents(self) -> Iterator[Extent]:
        raise AssertionError("a file system maker does not read")

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        raise AssertionError("a file system maker does not read")


def fixed(**options: Any) -> dict[str, Any]:
    return {"uuid": ONE, "hash_seed": ONE, "now": 1700000000, **options}


@pytest.mark.parametrize("kind", KINDS)
def test_the_old_magic_goes_first_and_the_new_one_comes_last(kind: str) -> None:
    disk = RecordingDisk(16 * MIB, fill=0xFF)
    make_ext(disk, kind=kind)
    covering = [
        (what, index)
        for index, (what, offset, length) in enumerate(disk.operations)
        if offset <= MAGIC_AT < offset + length
    ]
    last = len(disk.operations) - 1
    assert covering == [("zero", 0), ("write", last - 1)]
    assert [operation[0] for operation in disk.operations[-3:]] == ["flush", "write", "flush"]
    first_write = [what for what, _, _ in disk.operations].index("write")
    assert "flush" in [what for what, _, _ in disk.operations[:first_write]], (
        "the old signatures are gone for good before the first write"
    )
    assert disk.data[MAGIC_AT : MAGIC_AT + 2] == MAGIC


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_is_no_file_system(kind: str) -> None:
    complete = RecordingDisk(8 * MIB)
    make_ext(complete, kind=kind)
    for stop_after in range(1, len(complete.operations) - 1):
        disk = RecordingDisk(8 * MIB, stop_after=stop_after)
        disk.data[MAGIC_AT : MAGIC_AT + 2] = MAGIC
        with pytest.raises(StorageError, match="out of order"):
            make_ext(disk, kind=kind)
        assert disk.data[MAGIC_AT : MAGIC_AT + 2] != MAGIC


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_disk_held_does_not_matter(kind: str) -> None:
    """Every byte that is written or zeroed is the same on an empty disk and on one full of ones."""
    clean, dirty = RecordingDisk(24 * MIB), RecordingDisk(24 * MIB, fill=0xFF)
    assert make_ext(clean, kind=kind, **fixed()) == make_ext(dirty, kind=kind, **fixed())
    assert clean.operations == dirty.operations
    for _, offset, length in clean.operations:
        assert clean.data[offset : offset + length] == dirty.data[offset : offset + length]


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_reads_as_zero_is_not_zeroed_again(kind: str) -> None:
    disk = RecordingDisk(64 * MIB)
    disk.reads_as_zero = True
    info = make_ext(disk, kind=kind, **fixed())
    wiped = disk.operations.index(("flush", 0, 0))
    assert all(what != "zero" for what, _, _ in disk.operations[wiped:])
    zeroed = RecordingDisk(64 * MIB)
    assert make_ext(zeroed, kind=kind, **fixed()).free_blocks == info.free_blocks
    if kind != "ext4":  # its descriptors say whether the inode tables are known to be zero
        assert zeroed.data == disk.data


def descriptor_flags(disk: MemoryDisk, groups: int) -> list[int]:
    at = 2 * 1024
    size = layout.GROUP_DESCRIPTOR_64.size
    return [int(layout.GROUP_DESCRIPTOR_64.unpack(disk.data, at + size * group)["bg_flags"]) for group in range(groups)]


def test_inode_tables_are_left_to_the_kernel_only_where_they_may_hold_old_bytes() -> None:
    dirty, clean = MemoryDisk(64 * MIB, fill=0xFF), MemoryDisk(64 * MIB)
    make_ext(dirty)
    make_ext(clean)
    assert all(not flags & layout.INODE_ZEROED for flags in descriptor_flags(dirty, 8))
    assert all(flags & layout.INODE_ZEROED for flags in descriptor_flags(clean, 8))
    assert [bool(flags & layout.INODE_UNINIT) for flags in descriptor_flags(dirty, 8)] == [False, *[True] * 7]


def test_superblock_fields() -> None:
    disk = MemoryDisk(100 * MIB)
    info = make_ext(disk, **fixed(label="wurzel-ä", reserved_percent=1.5))
    fields = layout.SUPERBLOCK.unpack(disk.data, 1024)
    assert fields["s_uuid"] == ONE.bytes
    assert fields["s_volume_name"] == "wurzel-ä".encode().ljust(16, b"\0")
    assert fields["s_r_blocks_count_lo"] == 1536
    assert fields["s_mkfs_time"] == fields["s_wtime"] == fields["s_lastcheck"] == 1700000000
    assert fields["s_free_blocks_count_lo"] == info.free_blocks
    assert fields["s_inodes_count"] == info.inodes
    assert fields["s_checksum"] == crc32c(disk.data[1024 : 1024 + 0x3FC])
    assert (info.kind, info.label, info.block_size, info.size) == ("ext4", "wurzel-ä", 1024, 100 * MIB)
    assert info.bytes_written == disk.bytes_written
    backup = layout.SUPERBLOCK.unpack(disk.data, (1 + 8192) * 1024)
    changed = {name for name, value in fields.items() if backup[name] != value}
    assert changed == {"s_state", "s_block_group_nr", "s_checksum"}


def test_times_after_2038() -> None:
    disk = MemoryDisk(8 * MIB)
    now = (1 << 32) + 5
    make_ext(disk, now=now, uuid=ONE)
    fields = layout.SUPERBLOCK.unpack(disk.data, 1024)
    assert (fields["s_mkfs_time"], fields["s_mkfs_time_hi"]) == (5, 1)
    table = int(layout.GROUP_DESCRIPTOR_64.unpack(disk.data, 2048)["bg_inode_table_lo"])
    at = table * 1024 + (layout.ROOT_INODE - 1) * layout.INODE_SIZE
    inode = layout.INODE.unpack(disk.data, at)
    assert (inode["i_mtime"], inode["i_mtime_extra"]) == (5, 1)
    raw = bytearray(disk.data[at : at + layout.INODE_SIZE])
    layout.INODE.put(raw, {"i_checksum_lo": 0, "i_checksum_hi": 0})
    checksums = Checksums(FEATURES["ext4"], ONE.bytes)
    checksums.inode(checksums.for_inode(layout.ROOT_INODE), raw)
    assert raw == disk.data[at : at + layout.INODE_SIZE]


def test_a_large_inode_has_the_high_half_of_its_checksum() -> None:
    """i_extra_isize has two bytes, and in an inode of 512 bytes it may be 256 or more."""
    inode = bytearray(512)
    layout.INODE.put(inode, {"i_extra_isize": 256})
    Checksums(FEATURES["ext4"], ONE.bytes).inode(layout.ROOT_INODE, inode)
    assert layout.INODE.unpack(inode)["i_checksum_hi"] != 0


@pytest.mark.parametrize(
    ("size", "options", "text"),
    [
        (64 * MIB, {"label": "seventeen letters"}, r"the label 'seventeen letters' has 17 bytes"),
        (64 * MIB, {"label": "äääääääää"}, "has 18 bytes; a label has at most 16"),
        (64 * MIB, {"label": "a\0b"}, "no zero byte"),
        (64 * MIB, {"now": -1}, "the time -1 is outside"),
        (64 * MIB, {"now": 1 << 34}, "is outside of 0 to 15032385535"),
        (64 * MIB, {"kind": "btrfs"}, "'btrfs' is not a kind"),
        (64 * MIB, {"block_size": 3000}, "3000 is not a block size"),
        (4 * MIB, {}, "at least 8388608"),
    ],
)
def test_a_refusal_writes_nothing(size: int, options: dict[str, Any], text: str) -> None:
    disk = RecordingDisk(size, fill=0xFF)
    with pytest.raises((FileSystemError, DoesNotFitError), match=f"^memory: .*{text}.*; nothing was written$"):
        make_ext(disk, **options)
    assert disk.operations == []


def test_random_identity() -> None:
    first, second = MemoryDisk(8 * MIB), MemoryDisk(8 * MIB)
    before = int(time.time())
    assert make_ext(first).uuid != make_ext(second).uuid
    fields = [layout.SUPERBLOCK.unpack(disk.data, 1024) for disk in (first, second)]
    assert fields[0]["s_hash_seed"] != fields[1]["s_hash_seed"]
    assert before <= int(fields[0]["s_mkfs_time"]) <= int(time.time())


def test_one_tebibyte_costs_16_mib() -> None:
    disk = SparseDisk(TIB)
    info = make_ext(disk)
    assert info.bytes_written == disk.written <= 16.2 * MIB
    assert disk.zeroed < 1.01 * 1024 * MIB, "the journal and the places of old signatures"


@pytest.mark.parametrize(("kind", "size"), [("ext4", 16 * TIB), ("ext3", 16 * TIB - 4096)])
def test_16_tebibytes_in_bounded_memory(kind: str, size: int) -> None:
    disk = SparseDisk(size)
    with limits(60):
        info = make_ext(disk, kind=kind)
    assert info.blocks == size // 4096
