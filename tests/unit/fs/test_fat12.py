# SPDX-License-Identifier: MIT
"""FAT12 volumes: what is made is read back, and what a guest may have made of one is read or refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.fat import BOOT_SECTOR
from pydiskimg.fs.fat12 import _checksum, make_fat12, read_fat12
from pydiskimg.fs.probe import probe

KIB = 1 << 10
SEED = {
    "meta-data": b"instance-id: x\n",
    "user-data": b"",
    "network-config": bytes(range(256)) * 9,
    "A name of 26 characters .x": b"1",
}
NAMES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60)


def memory(contents: bytes) -> MemoryDisk:
    disk = MemoryDisk(len(contents))
    disk.write(0, contents)
    return disk


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("size", [64 * KIB, 1004 * KIB, 1 << 20, 3 << 20])
def test_what_is_made_is_read_back(size: int, sector: int) -> None:
    volume = make_fat12(size, SEED, label="CIDATA", serial=0x1234ABCD, sector_size=sector, hidden_sectors=40)
    assert size - 8 * sector - (1 << 20 if size > 2 << 20 else 0) <= len(volume) <= size
    disk = memory(volume.ljust(size, b"\0"))
    assert read_fat12(disk) == SEED
    content = probe(disk)
    assert content is not None
    assert (content.type, content.label, content.uuid) == ("vfat", "CIDATA", "1234-ABCD")


@given(files=st.dictionaries(NAMES, st.binary(max_size=3000), max_size=12))
@settings(max_examples=50)
def test_any_files(files: dict[str, bytes]) -> None:
    assert read_fat12(memory(make_fat12(128 * KIB, files, label="X", serial=1))) == files


def test_equal_files_give_equal_bytes() -> None:
    assert make_fat12(1 << 20, SEED, label="X", serial=1) == make_fat12(1 << 20, SEED, label="X", serial=1)


def test_a_full_volume() -> None:
    empty = make_fat12(64 * KIB, {}, label="X", serial=1)
    room = len(empty) - (1 + 2 * empty[0x16] + 8) * 512
    files = {"all": b"x" * room}
    assert read_fat12(memory(make_fat12(64 * KIB, files, label="X", serial=1))) == files
    with pytest.raises(FileSystemError, match="do not fit on 65536 bytes"):
        make_fat12(64 * KIB, {"all": b"x" * (room + 1)}, label="X", serial=1)


def test_too_many_files() -> None:
    assert (
        len(read_fat12(memory(make_fat12(1 << 20, dict.fromkeys(map(str, range(63)), b"x"), label="X", serial=1))))
        == 63
    )
    with pytest.raises(FileSystemError, match="64 files do not fit in a root directory"):
        make_fat12(1 << 20, dict.fromkeys(map(str, range(64)), b"x"), label="X", serial=1)


@pytest.mark.parametrize("size", [0, 512, 4096])
def test_too_small(size: int) -> None:
    with pytest.raises(FileSystemError, match="too few"):
        make_fat12(size, {}, label="X", serial=1)


@pytest.mark.parametrize("name", ["", "\n", "ä", "x" * 261])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(FileSystemError, match="cannot be the name of a file; expected 1 to 260 characters"):
        make_fat12(1 << 20, {name: b""}, label="X", serial=1)


def test_short_names_directories_and_deleted_files() -> None:
    volume = bytearray(make_fat12(64 * KIB, {"a": b"1", "b": b"2"}, label="X", serial=1))
    root = 512 * (1 + 2 * volume[0x16])
    assert [volume[root + 32 * at + 11] for at in range(5)] == [0x08, 0x0F, 0x20, 0x0F, 0x20]
    volume[root + 32] = 0xE5  # the long name of a
    volume[root + 64 : root + 75] = b"FILE    TXT"
    assert read_fat12(memory(bytes(volume))) == {"file.txt": b"1", "b": b"2"}
    volume[root + 64 + 11] = 0x10
    assert read_fat12(memory(bytes(volume))) == {"b": b"2"}
    volume[root + 128] = 0xE5
    assert read_fat12(memory(bytes(volume))) == {}


def test_the_long_name_of_a_file_that_is_gone() -> None:
    """Software that knows short names only removes a file's own entry, and writes the next file's into its place."""
    volume = bytearray(make_fat12(64 * KIB, {"user-data": b"1", "meta-data": b"2"}, label="X", serial=1))
    root = 512 * (1 + 2 * volume[0x16])
    volume[root + 64 : root + 75] = b"FILE    TXT"
    assert read_fat12(memory(bytes(volume))) == {"file.txt": b"1", "meta-data": b"2"}


def _loop(volume: bytearray) -> None:
    volume[512 + 3 : 512 + 6] = b"\x02\x20\x00"  # cluster 2 is followed by itself
    root = 512 * (1 + 2 * volume[0x16])
    volume[root + 64 + 28 : root + 64 + 32] = (1 << 20).to_bytes(4, "little")


def _cut(volume: bytearray) -> None:
    root = 512 * (1 + 2 * volume[0x16])
    volume[root + 64 + 28 : root + 64 + 32] = (513).to_bytes(4, "little")


def _beyond(volume: bytearray) -> None:
    root = 512 * (1 + 2 * volume[0x16])
    volume[root + 64 + 26 : root + 64 + 28] = (0xF00).to_bytes(2, "little")


def _field(name: str, value: int) -> Callable[[bytearray], None]:
    return lambda volume: BOOT_SECTOR.put(volume, {name: value})


@pytest.mark.parametrize(
    "change",
    [
        *(_loop, _cut, _beyond),
        _field("BPB_BytsPerSec", 0),
        _field("BPB_BytsPerSec", 513),
        _field("BPB_SecPerClus", 0),
        _field("BPB_RsvdSecCnt", 0),
        _field("BPB_NumFATs", 0),
        _field("BPB_FATSz16", 0),
        _field("BPB_FATSz16", 0xFFFF),
        _field("BPB_RootEntCnt", 0),
        _field("BPB_RootEntCnt", 0xFFFF),
        _field("BPB_TotSec16", 0),
        _field("BPB_TotSec16", 0xFFFF),
    ],
)
def test_damage_is_refused(change: Callable[[bytearray], None]) -> None:
    volume = bytearray(make_fat12(64 * KIB, {"a": b"1"}, label="X", serial=1))
    change(volume)
    with pytest.raises(FileSystemError, match=r"^memory"):
        read_fat12(memory(bytes(volume)))


def test_any_damage_is_read_or_refused() -> None:
    good = make_fat12(64 * KIB, SEED, label="X", serial=1)
    random.seed(12)
    for _ in range(2000):
        volume = bytearray(good)
        for _ in range(random.randint(1, 8)):
            volume[random.randrange(512 * 20)] = random.randrange(256)
        try:
            found = read_fat12(memory(bytes(volume)))
        except FileSystemError:
            continue
        assert sum(map(len, found.values())) <= len(volume)


def test_a_large_volume_is_not_read() -> None:
    with pytest.raises(FileSystemError, match="expected at most"):
        read_fat12(MemoryDisk((8 << 20) + 1))


def test_a_directory_full_of_parts_of_one_name_is_read_in_a_step_for_each() -> None:
    volume = bytearray(make_fat12(2 << 20, {"a": b"x"}, label="X", serial=1).ljust(8 << 20, b"\0"))
    entries = 65520
    volume[0x11:0x15] = entries.to_bytes(2, "little") + bytes(2)
    volume[0x20:0x24] = (8100).to_bytes(4, "little")  # sectors: what is left for clusters are as many as in a FAT12
    root = (1 + 2 * volume[0x16]) * 512
    short = b"FILE       "
    part = b"\1" + b"A" * 10 + b"\x0f\0" + bytes([_checksum(short)]) + b"B" * 18
    file = short + b"\x20" + bytes(20)
    volume[root : root + entries * 32] = part * (entries - 1) + file
    begin = time.process_time()
    assert [len(name) for name in read_fat12(memory(bytes(volume)))] == [20 * 13]
    assert time.process_time() - begin < 1.5
