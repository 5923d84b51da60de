# SPDX-License-Identifier: MIT
"""Multiple mount protection while a file system changes and gets another size; e2fsprogs judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.layout import MMP, MMP_CLEAN, MMP_FSCK
from pydiskimg.fs.ext4.shrink import minimum_size, shrink_ext
from pydiskimg.fs.ext4.superblock import superblock
from pydiskimg.records import Value
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext, some_files
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

SIZE, LARGER = 12 * MIB, 30 * MIB
FEATURES = [
    "-t ext4 -b 1024 -O mmp",
    "-t ext4 -b 1024 -O mmp,^metadata_csum,uninit_bg,^has_journal -g 1024",
    "-t ext4 -b 4096 -O mmp,metadata_csum_seed",
    "-t ext4 -b 1024 -O mmp,bigalloc,sparse_super2 -C 4096 -g 4096",
    "-t ext4 -b 1024 -O mmp,meta_bg,^resize_inode,^flex_bg -g 2048",
]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return some_files(tmp_path_factory.mktemp("contents"), 30)


def disk_of(tool: Tool, directory: Path, options: str, contents: Path | None = None, size: int = SIZE) -> MemoryDisk:
    path = made_ext(tool, directory / "image", options, size, contents)
    disk = MemoryDisk(LARGER)
    disk.data[:size] = path.read_bytes()
    return disk


def place(disk: MemoryDisk) -> int:
    fs = read_file_system(disk)
    return fs.superblock.number("s_mmp_block") * fs.geometry.block_size


def protection(disk: MemoryDisk) -> dict[str, Value]:
    return MMP.unpack(disk.data, place(disk))


def put_sequence(disk: MemoryDisk, sequence: int) -> None:
    fs, at = read_file_system(disk), place(disk)
    raw = bytearray(disk.data[at : at + MMP.size])
    MMP.put(raw, {"mmp_seq": sequence})
    if fs.checksums.active:
        MMP.put(raw, {"mmp_checksum": fs.checksums.mount_protection(bytes(raw))})
    disk.data[at : at + MMP.size] = raw


def move_to_the_end(disk: MemoryDisk) -> None:
    """Put the block where the file system becomes shorter: one that mke2fs would have put there."""
    transaction = Transaction(disk)
    fs = transaction.fs
    old = fs.superblock.number("s_mmp_block")
    new = transaction.blocks.allocate(fs.geometry.blocks - 3 * fs.geometry.cluster_blocks, 1)[0]
    transaction.put(new, fs.read(old))
    transaction.set_superblock({"s_mmp_block": new})
    transaction.free(*fs.geometry.cluster_of(old))
    transaction.commit()
    put_sequence(disk, MMP_CLEAN)


def judged(tool: Tool, directory: Path, disk: MemoryDisk, size: int | None = None) -> None:
    path = directory / "judged"
    path.write_bytes(bytes(disk.data)[:size])
    run(tool("e2fsck"), "-fn", path)
    assert "MMP is clean" in run(tool("dumpe2fs"), "-m", path)
    assert check_ext(Region(disk, 0, size or LARGER)).is_clean


@pytest.mark.parametrize("options", FEATURES)
def test_grown_and_made_smaller(tmp_path: Path, tool: Tool, contents: Path, options: str) -> None:
    disk = disk_of(tool, tmp_path, options, contents)
    before = contents_of(disk)
    growth = plan_ext_growth(disk)
    growth.write()
    judged(tool, tmp_path, disk)
    assert growth.size > 2 * SIZE
    move_to_the_end(disk)
    judged(tool, tmp_path, disk)
    far, minimum = place(disk), minimum_size(disk)
    assert far > LARGER - 2 * MIB
    size = shrink_ext(disk)
    assert (size, place(disk) < size) == (minimum, True)
    judged(tool, tmp_path, disk, size)
    assert contents_of(Region(disk, 0, size)) == before


def test_other_nodes_are_kept_away_from_the_first_write_to_the_close(tmp_path: Path, tool: Tool) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -O mmp", size=LARGER)
    start = bytes(disk.data)
    with open_changed_tree(disk) as tree:
        assert list(tree.names("/"))
        assert bytes(disk.data) == start
        tree.write("/file", b"contents")
        assert protection(disk)["mmp_seq"] == MMP_FSCK
        path = tmp_path / "held"
        path.write_bytes(disk.data)
        run(tool("dumpe2fs"), "-m", path, expect=(1,))  # not safe to mount
        assert "'tune2fs -f -E clear_mmp" in run(tool("e2fsck"), "-fy", path, expect=(8, 12))
        for use in (open_changed_tree, plan_ext_growth, shrink_ext):
            with pytest.raises(FileSystemError, match="is being checked or changed, or that"):
                use(disk)
    judged(tool, tmp_path, disk)


@pytest.mark.parametrize("change", [plan_ext_growth, shrink_ext, open_changed_tree])
def test_in_use(tmp_path: Path, tool: Tool, change: Callable[[MemoryDisk], object]) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -O mmp")
    put_sequence(disk, 7)
    start = bytes(disk.data)
    with pytest.raises(FileSystemError, match="its multiple mount protection says that its ext file system is in use"):
        change(disk)
    assert bytes(disk.data) == start


def test_a_node_that_takes_it_meanwhile(tmp_path: Path, tool: Tool) -> None:
    """Two nodes that read the block in the same moment: ours wrote first, and stops."""
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -O mmp", size=LARGER)
    tree = open_changed_tree(disk)
    tree.write("/first", b"there")
    put_sequence(disk, 99)
    said = "another node began to use its ext file system while it was changed"
    with pytest.raises(FileSystemError, match=said):
        tree.write("/second", b"not there")
    with pytest.raises(FileSystemError, match=said):
        tree.close()
    assert protection(disk)["mmp_seq"] == 99
    assert sorted(contents_of(disk)) == ["/first", "/lost+found"]


@pytest.mark.parametrize(
    ("sequence", "notes"),
    [
        (MMP_CLEAN, []),
        (MMP_FSCK, ["is being checked or changed, or that a check or change was interrupted"]),
        (7, ["is in use"]),
    ],
)
def test_a_check_tells_of_it(tmp_path: Path, tool: Tool, sequence: int, notes: list[str]) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -O mmp")
    put_sequence(disk, sequence)
    report = check_ext(disk)
    assert report.is_clean
    assert report.notes == [f"its multiple mount protection says that it {note}" for note in notes]


def test_damaged(tmp_path: Path, tool: Tool) -> None:
    for field, message in (("mmp_magic", "is not one of multiple"), ("mmp_time", "the checksum of its multiple")):
        disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -O mmp")
        disk.data[place(disk) + MMP.offsets[field]] ^= 1
        start = bytes(disk.data)
        for use in (open_changed_tree, plan_ext_growth, shrink_ext):
            with pytest.raises(FileSystemError, match=message):
                use(disk)
        assert bytes(disk.data) == start


def test_interrupted(tmp_path: Path, tool: Tool, contents: Path) -> None:
    """Some write is the last one; when the sequence was cleared, everything is there."""
    disk = disk_of(tool, tmp_path, FEATURES[0], contents, LARGER)
    move_to_the_end(disk)
    before, start = contents_of(disk), bytes(disk.data)
    path, writes, found = tmp_path / "stopped", 0, set[int | bytes]()
    while True:
        disk.data[:] = start
        try:
            shrink_ext(StoppingDisk(disk, writes))
        except StoppedError:
            found.add(protection(disk)["mmp_seq"])
            put_sequence(disk, MMP_CLEAN)
            try:
                with open_changed_tree(disk) as tree:
                    tree.chmod("/lost+found", 0o700)
            except FileSystemError as error:  # while the journal moved
                assert "change of its size was interrupted" in str(error)  # noqa: PT017 - most do not raise it
            without_feature(disk)
            path.write_bytes(disk.data)
            run(tool("e2fsck"), "-fp", path, expect=(0, 1))
            run(tool("e2fsck"), "-fn", path)
            disk.data[:] = path.read_bytes()
            assert contents_of(disk) == before
        else:
            break
        writes = writes * 2 + 5
    assert found == {MMP_CLEAN, MMP_FSCK}


def without_feature(disk: MemoryDisk) -> None:
    """e2fsck waits 11 seconds before it repairs a file system that has it."""
    fs = read_file_system(disk)
    features = {**fs.superblock.features.without(Incompat.MMP).fields, "s_mmp_block": 0}
    disk.data[1024:2048] = superblock(fs.superblock.fields | features, fs.checksums, 0)
