# SPDX-License-Identifier: MIT
"""probe() on superblocks built here: what no maker writes, and what a hostile guest may."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.crc32c import crc32c
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.layout import SUPERBLOCK
from pydiskimg.fs.fat import BOOT_SECTOR, ENTRY, FAT32_BOOT_SECTOR
from pydiskimg.fs.luks import LUKS2
from pydiskimg.fs.probe import FileSystemKind, btrfs, probe, xfs
from pydiskimg.fs.probe.kind import label_text

MIB = 1 << 20
UUID = bytes(range(1, 17))
UUID_TEXT = "01020304-0506-0708-090a-0b0c0d0e0f10"


def disk(*parts: tuple[int, bytes], size: int = 2 * MIB) -> MemoryDisk:
    made = MemoryDisk(size)
    for offset, data in parts:
        made.write(offset, data)
    return made


def ext(**fields: int | bytes) -> bytes:
    counts = {"s_inodes_count": 1, "s_blocks_count_lo": 9, "s_blocks_per_group": 8192, "s_inodes_per_group": 8}
    return SUPERBLOCK.pack(**{"s_magic": 0xEF53, "s_uuid": UUID, "s_volume_name": b"root", **counts, **fields})


@pytest.mark.parametrize(
    "fields", [{"s_inodes_count": 0}, {"s_blocks_count_lo": 0}, {"s_inodes_per_group": 0}, {"s_log_block_size": 7}]
)
def test_a_magic_alone_is_no_ext(fields: dict[str, int]) -> None:
    assert probe(disk((1024, ext()))) is not None
    assert probe(disk((1024, ext(**fields)))) is None


def swap(page: int = 4096, signature: bytes = b"SWAPSPACE2", version: bytes = b"\1\0\0\0") -> list[tuple[int, bytes]]:
    header = version + b"\x09\0\0\0" + bytes(4) + UUID + b"swap".ljust(16, b"\0")
    return [(1024, header), (page - 10, signature)]


def btrfs_superblock(csum_type: int = 0) -> bytes:
    fields: dict[str, int | bytes] = {
        "fsid": UUID,
        "bytenr": btrfs.OFFSET,
        "magic": btrfs.MAGIC,
        "csum_type": csum_type,
        "label": b"root",
    }
    body = btrfs.SUPERBLOCK.pack(**fields)[32:]
    return (crc32c(body) ^ 0xFFFFFFFF).to_bytes(4, "little") + bytes(28) + body


def xfs_superblock(version: int = 4, **changes: int) -> bytes:
    numbers = {"sb_blocksize": 4096, "sb_dblocks": 1000, "sb_rextsize": 1, "sb_agblocks": 250, "sb_agcount": 4}
    numbers |= {"sb_sectsize": 512, "sb_inodesize": 512, "sb_blocklog": 12, "sb_sectlog": 9, "sb_inodelog": 9}
    numbers |= {"sb_inopblog": 3, "sb_imax_pct": 25, "sb_versionnum": version} | changes
    head = xfs.SUPERBLOCK.pack(sb_magicnum=b"XFSB", sb_uuid=UUID, sb_fname=b"root", **numbers)
    sector = bytearray(head.ljust(512, b"\0"))
    if version == 5:
        sector[224:228] = (crc32c(bytes(sector)) ^ 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(sector)


def fat_boot_sector(bits: int = 16, **changes: int) -> bytes:
    numbers = {"BPB_BytsPerSec": 512, "BPB_SecPerClus": 1, "BPB_RsvdSecCnt": 1, "BPB_NumFATs": 2, "BPB_Media": 0xF8}
    numbers |= {"BS_BootSig": 0x29, "BS_VolID": 0xABCD1234}
    if bits == 32:
        numbers |= {"BPB_TotSec32": 4096, "BPB_FATSz32": 32, "BPB_RootClus": 2}
    else:
        numbers |= {"BPB_RootEntCnt": 512, "BPB_TotSec16": 4096, "BPB_FATSz16": 16}
    record = FAT32_BOOT_SECTOR if bits == 32 else BOOT_SECTOR
    return record.pack(BS_jmpBoot=b"\xeb\x3c\x90", Signature_word=b"\x55\xaa", **(numbers | changes))


def directory_entry(name: bytes, attributes: int, cluster: int = 0) -> bytes:
    return ENTRY.pack(DIR_Name=name.ljust(11), DIR_Attr=attributes, DIR_FstClusLO=cluster)


def luks(version: int) -> bytes:
    return LUKS2.pack(magic=b"LUKS\xba\xbe", version=version, label=b"label", uuid=UUID_TEXT.encode())


KNOWN = {
    "ext2": disk((1024, ext())),
    "ext3": disk((1024, ext(s_feature_compat=0x4))),
    "ext4": disk((1024, ext(s_feature_compat=0x4, s_feature_incompat=0x40))),
    "xfs": disk((0, xfs_superblock())),
    "btrfs": disk((65536, btrfs_superblock())),
    "swap": disk(*swap()),
    "swsuspend": disk(*swap(signature=b"S1SUSPEND\0")),
    "crypto_LUKS": disk((0, luks(2))),
    "vfat": disk((0, fat_boot_sector())),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_types(name: str) -> None:
    found = probe(KNOWN[name])
    assert found is not None
    assert found.type == name
    assert found.uuid == ("ABCD-1234" if name == "vfat" else UUID_TEXT)


@pytest.mark.parametrize("page", [4096, 8192, 16384, 32768, 65536])
@pytest.mark.parametrize("version", [b"\1\0\0\0", b"\0\0\0\1"])
def test_swap_of_every_page_size_and_byte_order(page: int, version: bytes) -> None:
    assert probe(disk(*swap(page, version=version))) == FileSystemKind("swap", UUID_TEXT, "swap")


def test_swap_that_is_none() -> None:
    assert probe(disk(*swap(version=b"\2\0\0\0"))) is None
    assert probe(disk(*swap(signature=b"SWAPSPACE3"))) is None
    assert probe(disk(*swap(), (0, bytes.fromhex("edc302e99856e50c")))) == FileSystemKind(
        "swsuspend", UUID_TEXT, "swap"
    )
    assert probe(disk(*swap(signature=b"SWAP-SPACE"))) == FileSystemKind("swap")
    assert probe(disk(*swap(), size=9 * 4096)) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"s_feature_incompat": 0x8}, None),  # a journal device
        ({"s_feature_incompat": 0x4}, None),  # a journal to replay, and none there
        ({"s_feature_ro_compat": 0x8}, "ext4"),
        ({"s_feature_ro_compat": 0x8, "s_flags": 0x4}, None),  # ext4dev
        ({"s_feature_ro_compat": 0x400}, None),  # checksum wrong
    ],
)
def test_ext_features(fields: dict[str, int], expected: str | None) -> None:
    found = probe(disk((1024, ext(**fields))))
    assert (found and found.type) == expected


def test_checksums_are_checked() -> None:
    assert probe(disk((0, xfs_superblock(5)))) == FileSystemKind("xfs", UUID_TEXT, "root")
    for good, offset in ((xfs_superblock(5), 0), (btrfs_superblock(), 65536)):
        for at in (300, 400):
            bad = bytearray(good)
            bad[at] ^= 1
            assert probe(disk((offset, bytes(bad)))) is None
    # Other kinds of checksum are the kernel's to check.
    assert probe(disk((65536, btrfs_superblock(1))))


@pytest.mark.parametrize(
    "changes",
    [
        {"sb_blocksize": 0},
        {"sb_blocklog": 200},
        {"sb_agcount": 0},
        {"sb_dblocks": 1 << 60},
        {"sb_dblocks": 10},
        {"sb_rextsize": 0},
        {"sb_imax_pct": 101},
    ],
)
def test_xfs_with_impossible_numbers(changes: dict[str, int]) -> None:
    assert probe(disk((0, xfs_superblock(**changes)))) is None


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1023, 1100, 2047, 4096, 40960, 65536, 69631])
@pytest.mark.parametrize("name", KNOWN)
def test_small_sources(name: str, size: int) -> None:
    small = MemoryDisk(size)
    small.data[:] = KNOWN[name].data[:size]
    found = probe(small)
    assert found is None or found.type == name


def test_partition_tables_are_no_file_systems() -> None:
    mbr = bytearray(512)
    mbr[0:2] = b"\xeb\x63"  # GRUB's boot code begins with a jump too
    mbr[446:462] = bytes.fromhex("80 20 21 00 83 fe ff ff 00 08 00 00 00 f8 ff 00")
    mbr[510:512] = b"\x55\xaa"
    assert probe(disk((0, bytes(mbr)))) is None
    assert probe(disk((0, bytes(mbr)), (512, b"EFI PART"))) is None
    assert probe(MemoryDisk(MIB, fill=0xFF)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"BPB_BytsPerSec": 0},
        {"BPB_BytsPerSec": 513},
        {"BPB_BytsPerSec": 8192},
        {"BPB_SecPerClus": 0},
        {"BPB_SecPerClus": 3},
        {"BPB_RsvdSecCnt": 0},
        {"BPB_NumFATs": 0},
        {"BPB_Media": 0},
        {"BPB_FATSz16": 0},
        {"BPB_FATSz16": 0xFFFF},
        {"BPB_TotSec16": 0},
    ],
)
def test_bpb_that_describes_no_fat(changes: dict[str, int]) -> None:
    assert probe(disk((0, fat_boot_sector(**changes)))) is None


def test_vfat_label_is_the_root_directorys() -> None:
    entries = [
        directory_entry(b"\xe5GONE", 0x08),
        directory_entry(b"A\0B\0", 0x0F),
        directory_entry(b"FILE", 0x20, 5),
        directory_entry(b"LABEL", 0x08),
        directory_entry(b"SECOND", 0x08),
    ]
    assert probe(disk((0, fat_boot_sector()), (33 * 512, b"".join(entries)))) == FileSystemKind(
        "vfat", "ABCD-1234", "LABEL"
    )
    unnamed = directory_entry(b"NO NAME", 0x08)
    assert probe(disk((0, fat_boot_sector()), (33 * 512, unnamed))) == FileSystemKind("vfat", "ABCD-1234")


def test_fat32_root_directory_is_followed() -> None:
    table, data = 512, (1 + 64) * 512
    full = b"".join(directory_entry(b"FILE", 0x20, 9) for _ in range(16))
    chain = bytes(8) + (7).to_bytes(4, "little") + bytes(16) + (0x0FFFFFF8).to_bytes(4, "little")
    parts = [(0, fat_boot_sector(32)), (table, chain), (data, full), (data + 5 * 512, directory_entry(b"FAR", 0x08))]
    assert probe(disk(*parts)) == FileSystemKind("vfat", "ABCD-1234", "FAR")


@pytest.mark.parametrize("root", [0, 1, 2, 5000, 0xFFFFFFFF])
def test_fat32_chain_that_never_ends(root: int) -> None:
    table = b"".join(index.to_bytes(4, "little") for index in range(4096))  # each cluster is followed by itself
    found = probe(disk((0, fat_boot_sector(32, BPB_RootClus=root)), (512, table)))
    assert found == FileSystemKind("vfat", "ABCD-1234")


@pytest.mark.parametrize(
    "entry", [directory_entry(b"FILE", 0x20), directory_entry(b"\xe5GONE", 0x08)], ids=["files", "deleted"]
)
def test_fat32_root_directory_as_large_as_none_may_be(entry: bytes) -> None:
    """A table has room for a thousand partitions, and each may have clusters of 512 KiB, a hundred in a circle."""
    boot = fat_boot_sector(
        32, BPB_BytsPerSec=4096, BPB_SecPerClus=128, BPB_RsvdSecCnt=1, BPB_NumFATs=1, BPB_FATSz32=1, BPB_TotSec32=512
    )
    hostile = disk((0, boot), (4096 + 8, (2).to_bytes(4, "little")), (8192, entry * (512 * 32)))
    start = time.process_time()
    for _ in range(5):
        assert probe(hostile) == FileSystemKind("vfat", "ABCD-1234")
    assert time.process_time() - start < 1


def test_fat_larger_than_its_source() -> None:
    huge = fat_boot_sector(
        32,
        BPB_SecPerClus=128,
        BPB_BytsPerSec=4096,
        BPB_TotSec32=0xFFFFFFFF,
        BPB_FATSz32=0x100000,
        BPB_RootClus=0xFFFFFF,
    )
    tracemalloc.start()
    try:
        assert probe(disk((0, huge))) == FileSystemKind("vfat", "ABCD-1234")
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_fat32_needs_its_info_sector() -> None:
    boot = fat_boot_sector(32, BPB_FSInfo=6)
    assert probe(disk((0, boot)))  # all zero is let pass
    assert probe(disk((0, boot), (6 * 512, b"RRaA"), (6 * 512 + 484, b"rrAa")))
    assert probe(disk((0, boot), (6 * 512, b"junk"))) is None
    assert probe(disk((0, fat_boot_sector(32, BPB_FSInfo=0xFFFF)))) is None


def test_two_file_systems_are_refused() -> None:
    with pytest.raises(FileSystemError, match="memory: has the signatures of swap and ext2"):
        probe(disk((1024, ext()), *swap(65536)[1:], (1024, b"\1\0\0\0\x09")))


def test_container_hides_what_is_inside() -> None:
    found = probe(disk((1024, ext()), (0, luks(1))))
    assert found == FileSystemKind("crypto_LUKS", UUID_TEXT)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"root\0junk", "root"),
        (b"  two  words \0", "  two  words"),
        (b"\0\0", None),
        (b"   ", None),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\\b", "a\\x5cb"),
        ("\u202eevil\n\x1b[2J".encode(), "\\xe2\\x80\\xaeevil\\x0a\\x1b[2J"),
        ("größe".encode(), "größe"),
    ],
)
def test_labels_are_safe(raw: bytes, text: str | None) -> None:
    assert label_text(raw) == text


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(KNOWN)),
    edits=st.lists(st.tuples(st.integers(0, 70_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
def test_mutations_give_an_answer(name: str, edits: list[tuple[int, bytes]]) -> None:
    start = 65536 if name == "btrfs" else 1024 if name.startswith(("ext", "sw")) else 0
    made = MemoryDisk(2 * MIB)
    made.data[:] = KNOWN[name].data
    for offset, data in edits:
        made.write(start + offset % 4096 if offset % 3 else offset, data)
    try:
        found = probe(made)
    except FileSystemError:  # two signatures
        return
    if found is not None:
        assert (found.label or "x").isprintable()
        assert (found.uuid or "x").isprintable()


@settings(max_examples=100)
@given(st.binary(max_size=5000))
def test_noise_gives_an_answer(noise: bytes) -> None:
    made = MemoryDisk(len(noise))
    made.data[:] = noise
    probe(made)
