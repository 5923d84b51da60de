# SPDX-License-Identifier: MIT
"""What a check finds, compared with e2fsck -fn: sound file systems of all features, and damaged ones."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check import ExtReport, FindingKind, check_ext
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.images.raw import open_raw
from pydiskimg.units import MIB
from tests.fixtures.ext_damage import damaged, full_of_metadata, metadata
from tests.fixtures.ext_files import made_ext
from tests.fixtures.ext_trees import all_kinds
from tests.fixtures.journals import JournalWriter
from tests.fixtures.limits import assert_sentence
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

FEATURES = (
    "-t ext2 -b 1024",
    "-t ext2 -r 0",
    "-t ext2 -O ^filetype,^sparse_super,^resize_inode -b 2048",
    "-t ext3 -b 1024 -O ^dir_index",
    "-t ext4 -b 1024",
    "-t ext4 -b 65536",
    "-t ext4 -I 1024 -b 4096",
    "-t ext4 -O ^64bit,^flex_bg,^metadata_csum,uninit_bg -b 1024",
    "-t ext4 -O ^extent,^64bit",
    "-t ext4 -O meta_bg,^resize_inode,inline_data -b 1024",
    "-t ext4 -O bigalloc -b 1024 -C 16384",
    "-t ext4 -E num_backup_sb=1 -O sparse_super2 -b 1024",
    "-t ext4 -O metadata_csum_seed,orphan_file,quota,project,mmp -E quotatype=usrquota:grpquota:prjquota",
    "-t ext4 -O ea_inode,large_dir,casefold,encrypt,verity",
)
DAMAGED = {
    "extents": "-t ext4 -b 1024 -O ^metadata_csum,inline_data,ea_inode -I 256",
    "pointers": "-t ext3 -b 1024",
    "without a journal": "-t ext4 -b 1024 -O ^has_journal,^metadata_csum,^64bit",
    "checksums": "-t ext4 -b 1024",
    "old": "-t ext2 -b 1024 -O ^dir_index,^filetype",
}
ROUNDS = int(os.environ.get("PYDISKIMG_ROUNDS", "40"))
# What e2fsck -fn passes over: it reads a copy of what is damaged, or does not look there (docs/ext4.md).
_ONLY_OURS = {FindingKind.COPY}
_SILENT = ("trying backup blocks", "superblock checksum does not match")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return all_kinds(tmp_path_factory.mktemp("source"))


@pytest.mark.parametrize("options", FEATURES)
def test_what_mke2fs_makes_is_in_order(source: Path, tool: Tool, tmp_path: Path, options: str) -> None:
    image = made_ext(tool, tmp_path / "image", options, 48 * MIB, source)
    if "quota" in options:  # mke2fs -d does not count what it copies
        run(tool("e2fsck"), "-fy", image, expect=(0, 1))
    run(tool("e2fsck"), "-fn", image)
    with open_raw(image) as file:
        report = check_ext(file)
    assert report.is_clean, report.details
    assert report.notes == []


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_found_where_e2fsck_finds_some_and_nowhere_else(tool: Tool, tmp_path: Path, kind: str) -> None:
    image = full_of_metadata(tool, tmp_path, DAMAGED[kind])
    places = [place for place in metadata(image) if place[0] != layout.SUPERBLOCK_OFFSET]
    rng, path = random.Random(int(os.environ.get("PYDISKIMG_TEST_SEED", "7"))), tmp_path / "damaged"
    disk, found = MemoryDisk(0, name="disk"), set()
    disk.data = bytearray(image)
    assert check_ext(disk).is_clean
    for _ in range(ROUNDS):
        disk.data = damaged(image, places, rng, most=1)
        path.write_bytes(disk.data)
        judged = subprocess.run(
            [tool("e2fsck"), "-fn", path], capture_output=True, text=True, errors="replace", check=False
        )
        report = check_ext(disk)
        for _, text in report.details:
            assert_sentence(f"disk: {text}")
        said = judged.stdout + judged.stderr
        if judged.returncode:
            assert not report.is_clean, said
        elif not any(text in said for text in _SILENT):
            assert {*report.counts} <= _ONLY_OURS, report.details
        found.add(judged.returncode != 0)
    assert found == {False, True}


def checked(image: Path) -> ExtReport:
    with open_raw(image) as file:
        return check_ext(file)


@pytest.mark.parametrize(
    ("commands", "kind", "text"),
    [
        ("set_inode_field a links_count 3\n", FindingKind.LINK_COUNT, "inode 12: its link count is 3, expected 1"),
        ("set_inode_field a size 5000\nfreeb 20\n", FindingKind.BLOCK_BITMAP, "as free that are in use: 20"),
        (
            "setb 3000 2\n",
            FindingKind.LEAKED_BLOCKS,
            "as used that are not in use: 3000 to 3001",
        ),
        ("freei <12>\n", FindingKind.INODE_BITMAP, "group 0: its bitmap marks inodes as free that are in use: 12"),
        ("seti <50>\n", FindingKind.INODE_BITMAP, "as used that are not in use: 50"),
        ("set_inode_field a block[0] 90000\n", FindingKind.MAP, "inode 12: it names block 90000 of 4096"),
        (
            "set_inode_field a block[0] 3\n",
            FindingKind.SHARED,
            "block 3 of inode 12 is in use twice",
        ),
        (
            "set_inode_field a size 0\nset_inode_field large size 10\n",
            FindingKind.MAP,
            "inode 13: it has 10 bytes, and data in",
        ),
        ("set_inode_field a blocks 8\n", FindingKind.BLOCK_COUNT, "inode 12: it counts 8 blocks, expected 2"),
        ("clri a\n", FindingKind.ENTRY, "the entry 'a' names inode 12, which is free"),
        ("set_inode_field a mode 0120644\n", FindingKind.ENTRY, "the entry 'a' has the file type 1, expected 7"),
        ("unlink a\n", FindingKind.UNCONNECTED, "inode 12: it is in use, but no entry names it"),
        ("unlink d\n", FindingKind.UNCONNECTED, "inode 14: it is a directory without a name"),
        ("ln d lost+found/e\n", FindingKind.ENTRY, "'e' names the directory of inode 14, which already has a name"),
        ("set_inode_field <7> block[DIND] 5\n", FindingKind.RESIZE_INODE, "its resize inode does not hold the blocks"),
        (
            "set_bg 0 used_dirs_count 9\n",
            FindingKind.FREE_COUNT,
            "group 0: its descriptor counts 9 directories, expected 3",
        ),
        ("set_inode_field d size 1000\n", FindingKind.MAP, "inode 14: it is a directory of 1000 bytes"),
        ("set_inode_field a dtime 99999\n", FindingKind.INODE, "inode 12: it is in use and has a deletion time"),
    ],
)
def test_each_kind_has_its_sentence(tool: Tool, tmp_path: Path, commands: str, kind: FindingKind, text: str) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext2 -b 1024 -O ^dir_index", 4 * MIB)
    made = tmp_path / "made"
    made.write_bytes(b"x" * 300)
    large = tmp_path / "large"
    large.write_bytes(b"y" * 30_000)
    run(tool("debugfs"), "-w", "-f", "-", image, given=f"write {made} a\nwrite {large} large\nmkdir d\n")
    assert checked(image).is_clean
    run(tool("debugfs"), "-w", "-f", "-", image, given=commands)
    assert subprocess.run([tool("e2fsck"), "-fn", image], capture_output=True, check=False).returncode & 4
    report = checked(image)
    assert any(one == kind and text in sentence for one, sentence in report.details), report.details


def test_a_journal_is_replayed_in_memory_first(tool: Tool, tmp_path: Path) -> None:
    before = MemoryDisk(8 * MIB, name="disk")
    make_ext(before, kind="ext4", block_size=1024)
    path = tmp_path / "after"
    path.write_bytes(before.data)
    run(tool("debugfs"), "-w", "-f", "-", path, given="mkdir made\nwrite /etc/passwd made/passwd\n")
    after = path.read_bytes()
    writer = JournalWriter(before, layout.JOURNAL_CSUM_V3 | layout.JOURNAL_64BIT | layout.JOURNAL_HAS_REVOKE)
    changed = {at // 1024: after[at : at + 1024] for at in range(0, len(after), 1024)}
    blocks = {block: data for block, data in changed.items() if data != before.data[block * 1024 :][:1024]}
    writer.write(blocks)
    writer.commit()
    writer.close()
    stored = bytes(writer.disk.data)
    report = check_ext(writer.disk)
    assert report.is_clean, report.details
    assert report.replayed_blocks == len(blocks)
    assert report.notes == [f"it is checked with {len(blocks)} blocks of its journal replayed"]
    assert writer.disk.data == stored, "nothing was written"


def test_many_findings_of_a_kind_are_counted_and_the_first_are_told(tool: Tool, tmp_path: Path) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024", 8 * MIB)
    names = "".join(f"write /dev/null {number}\nset_inode_field {number} links_count 7\n" for number in range(90))
    run(tool("debugfs"), "-w", "-f", "-", image, given=names)
    report = checked(image)
    assert report.counts == {FindingKind.LINK_COUNT: 90}
    assert len(report.details) == 20
