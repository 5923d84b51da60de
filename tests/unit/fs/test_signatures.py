# SPDX-License-Identifier: MIT
"""Whether a disk may have contents: by magic only, at each place of a magic, and never in noise."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import StorageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.known_signatures import KNOWN, TABLES, TAKES_OVER, Signature, known_by_size
from pydiskimg.fs.signatures import stranger, table_trace, trace
from pydiskimg.fs.swap import make_swap
from pydiskimg.protocols import Source, WritableBuffer
from pydiskimg.units import GIB, KIB, MIB, TIB

ALL = (*TAKES_OVER, *KNOWN, *TABLES)


class Made(Source):
    """A Source of any size: filler, or noise that depends on the offset, and some bytes of its own."""

    name: str
    size: int

    def __init__(self, size: int, parts: Mapping[int, bytes] | None = None, *, fill: int = 0, noise: int = 0) -> None:
        self.name, self.size = "made", size
        self.reads: list[tuple[int, int]] = []
        self._parts, self._fill, self._noise = parts or {}, fill, noise

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        length = len(buffer)
        assert 0 <= offset <= self.size - length
        self.reads.append((offset, length))
        data = bytearray(
            random.Random(f"{self._noise} {offset}").randbytes(length) if self._noise else bytes((self._fill,)) * length
        )
        for at, part in self._parts.items():
            for index, byte in enumerate(part):
                if 0 <= at + index - offset < length:
                    data[at + index - offset] = byte
        buffer[:] = data


def seen(source: Made) -> str | None:
    return trace(source) or table_trace(source)


PLACES = {
    "ext": (1024 + 0x38, b"\x53\xef", "ext2, ext3 or ext4 (its signature is at byte 1024)"),
    "btrfs": (65536 + 64, b"_BHRfS_M", "btrfs (its signature is at byte 65600)"),
    "btrfs, second": (64 * MIB + 64, b"_BHRfS_M", "btrfs"),
    "btrfs, third": (256 * GIB + 64, b"_BHRfS_M", "btrfs"),
    "xfs": (0, b"XFSB", "XFS"),
    "xfs, group": (512, b"XAGF", "XFS"),
    "xfs, inodes of 4 KiB sectors": (8192, b"XAGI", "XFS"),
    "xfs log": (5 * 512, b"\xfe\xed\xba\xbe", "an external log of XFS"),
    "swap": (4086, b"SWAPSPACE2", "a swap area"),
    "swap, large pages": (65526, b"SWAP-SPACE", "a swap area"),
    "hibernated": (4086, b"S1SUSPEND", "a swap area"),
    "lvm2": (3 * 512, b"LABELONE", "an LVM physical volume"),
    "lvm2 metadata": (4100, b" LVM2 x[5A%r0N*>", "an LVM physical volume"),
    "lvm1": (0, b"HM\2\0", "an LVM physical volume"),
    "luks": (0, b"LUKS\xba\xbe", "LUKS"),
    "luks2, second": (4 * MIB, b"SKUL\xba\xbe", "LUKS"),
    "drbd 8": (TIB - 4096 + 60, b"\x83\x74\x02\x6b", "DRBD"),
    "drbd 9": (TIB - 4096 + 60, b"\x83\x74\x02\x6d", "DRBD"),
    "drbd, external": (60, b"\x83\x74\x02\x6d", "DRBD"),
    "bcachefs": (2 * MIB + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"), "bcachefs"),
    "bcachefs, last": (TIB - MIB + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"), "bcachefs"),
    "f2fs": (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    "f2fs, second": (5120, b"\x10\x20\xf5\xf2", "F2FS"),
    "nilfs2, last": (TIB - 4096 + 4, b"\0\0\x34\x34", "NILFS2"),
    "hfs+": (1024, b"H+\0\4", "HFS+"),
    "hfs+, last": (TIB - 1024, b"H+\0\4", "HFS+"),
    "ntfs, last": (TIB - 512, b"\xeb\x52\x90NTFS    ", "NTFS"),
    "exfat, copy": (12 * 512, b"\xeb\x76\x90EXFAT   ", "exFAT"),
    "fat": (0x36, b"FAT12   ", "FAT"),
    "fat, copy": (6 * 512 + 0x52, b"FAT32   ", "FAT"),
    "to go": (0, b"\xeb\x58\x90MSWIN4.1", "FAT or BitLocker To Go"),
    "zfs, uberblock": (256 * KIB + 128 * KIB + 7 * KIB, (0x00BAB10C).to_bytes(8, "little"), "ZFS"),
    "zfs, last uberblock": (TIB - KIB, (0x00BAB10C).to_bytes(8, "big"), "ZFS"),
    "udf, anchor": (256 * 2048, b"\2\0\2\0" + bytes(8) + b"\0\1\0\0", "UDF"),
    "udf, last anchor": (TIB - 2048, b"\2\0\3\0\x77\0", "UDF"),
    "ocfs2, copy": (16 * GIB, b"OCFSV2", "OCFS2"),
    "ext journal": (4096, b"\xc0\x3b\x39\x98\0\0\0\4", "a journal of ext3 or ext4"),
    "ddf": (TIB - 257 * 512, b"\xde\x11\xde\x11", "a member of a RAID (DDF)"),
    "md 0.90 of another machine": (TIB - 64 * KIB, b"\xa9\x2b\x4e\xfc", "a member of a RAID (md 0.90)"),
    "via": (TIB - 512, b"\x55\xaa\1", "a member of a RAID (VIA)"),
    "gpt": (4096, b"EFI PART", "a GPT"),
    "gpt, backup": (TIB - 512, b"EFI PART", "a GPT"),
    "sun": (508, b"\xda\xbe", "a Sun label"),
    "sgi": (0, b"\x0b\xe5\xa9\x41", "an SGI label"),
    "boot sector": (510, b"\x55\xaa", "a boot sector or partition table"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_signature_is_enough(name: str) -> None:
    offset, mark, what = PLACES[name]
    assert (seen(Made(TIB, {offset: mark})) or "").startswith(what)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096, 65536])
@pytest.mark.parametrize("group", [1, 3, 5, 7, 9])
def test_backups_of_ext(block_size: int, group: int) -> None:
    start = group * min(8 * block_size, 65528) * block_size + (1024 if block_size == 1024 else 0)
    log = (block_size.bit_length() - 11).to_bytes(4, "little")
    assert seen(Made(TIB, {start + 0x18: log, start + 0x38: b"\x53\xef"})) == (
        f"ext2, ext3 or ext4 (its signature is at byte {start})"
    )
    assert seen(Made(TIB, {start + 0x38: b"\x53\xef"})) == (
        None if block_size > 1024 else f"ext2, ext3 or ext4 (its signature is at byte {start})"
    ), "two bytes alone are noise there"


@pytest.mark.parametrize("fill", [0, 0xFF, 0xA5, 0x55, 0x34])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, 65 * KIB, MIB + 17, 64 * MIB, 3 * TIB + 4608])
def test_what_is_filled_holds_nothing(size: int, fill: int) -> None:
    assert (seen(Made(size, fill=fill)), stranger(Made(size, fill=fill))) == (None, None)


def test_noise_is_hardly_ever_refused() -> None:
    """Each byte of a mark must be hit: the sum is the most that the probability can be."""
    rows = [*ALL, *known_by_size(TIB)]
    assert sum(256.0 ** -sum(len(mark) for _, mark in row.marks) for row in rows) < 1 / 20000
    assert [seed for seed in range(1, 101) if seen(Made(TIB, noise=seed))] == []


def test_a_few_reads_on_a_huge_disk() -> None:
    source = Made(8 * 1024 * TIB)
    assert seen(source) is None
    assert len(source.reads) < 200
    assert sum(length for _, length in source.reads) < 4 * MIB


@pytest.mark.parametrize("make", [lambda disk: make_ext(disk, block_size=1024), make_swap])
def test_what_we_make_leaves_no_other_signature(make: object) -> None:
    """The places that are wiped first include all where a stranger is looked for."""
    assert callable(make)
    disk = MemoryDisk(9 * MIB)
    for row in TAKES_OVER:
        start = row.start(disk.size)
        if start is not None:
            for at, mark in row.marks:
                disk.data[start + at : start + at + len(mark)] = mark
    assert stranger(disk)
    make(disk)
    assert stranger(disk) is None


def test_rows_say_something_that_zeros_do_not() -> None:
    assert all(isinstance(row, Signature) and any(any(mark) for _, mark in row.marks) for row in ALL)


class Unreadable(Made):
    """Its second superblock of btrfs lies on a bad sector."""

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        if offset <= 64 * MIB + 64 < offset + len(buffer):
            message = f"{self.name}: cannot be read at byte {offset}: Input/output error"
            raise StorageError(message, errno=5, filename=self.name)
        super().read_into(offset, buffer)


def test_errors_of_reading_pass() -> None:
    with pytest.raises(StorageError, match="made: cannot be read at byte 67108928"):
        trace(Unreadable(TIB))
