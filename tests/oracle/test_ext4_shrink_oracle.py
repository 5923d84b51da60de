# SPDX-License-Identifier: MIT
"""File systems that we made smaller: e2fsck judges, their files are compared, resize2fs says how small they can be."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError, DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.descriptors import descriptor_record, halves, locations, read_descriptor, read_descriptors
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.layout import SUPERBLOCK
from pydiskimg.fs.ext4.populate.populate import populate
from pydiskimg.fs.ext4.shrink import minimum_size, shrink_ext, tables
from pydiskimg.records import Value
from pydiskimg.regions.region import Region
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext
from tests.fixtures.journals import JournalWriter, random_log
from tests.fixtures.limits import assert_sentence, limits
from tests.fixtures.made_entries import FIXED, folder, hard_link, regular
from tests.fixtures.programs import Tool, run
from tests.fixtures.shrunk_ext import WITH_VALUES, everything, judged, with_values
from tests.fixtures.stopping_disk import LosingDisk, StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

SIZE = 40 * MIB
# What mke2fs is told, and whether resize2fs -M makes as little of it as we do within two percent.
FEATURES = {
    "-t ext2 -b 1024": True,
    "-t ext2 -r 0 -b 4096": True,
    "-t ext3 -b 1024": True,
    "-t ext3 -b 1024 -I 128 -g 2048": True,
    "-t ext4 -b 1024": False,
    "-t ext4 -b 4096": True,
    "-t ext4 -b 65536": True,
    "-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg -I 128": False,
    "-t ext4 -b 1024 -O ^flex_bg": True,
    "-t ext4 -b 1024 -O metadata_csum_seed,orphan_file": False,
    "-t ext4 -b 1024 -O ^has_journal": False,
    "-t ext4 -b 1024 -O meta_bg,^resize_inode": False,
    "-t ext2 -b 1024 -O meta_bg,^resize_inode,^sparse_super": True,
    "-t ext4 -b 1024 -g 1024": False,
    "-t ext4 -b 1024 -O ^resize_inode": False,
    "-t ext4 -b 1024 -E resize=300000": False,
    "-t ext4 -b 1024 -O sparse_super2 -g 2048": False,
    "-t ext4 -b 1024 -O quota,project -g 2048": False,
    "-t ext4 -b 1024 -O inline_data -g 1024": False,
    "-t ext4 -b 1024 -O ^flex_bg -g 4096 -E stride=300": True,
    # resize2fs refuses.
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 4096": False,
    "-t ext4 -b 4096 -O bigalloc,sparse_super2 -C 16384 -g 8192": False,
    "-t ext4 -b 1024 -O ^metadata_csum,bigalloc,^resize_inode -C 8192": False,
}


def filled(root: Path) -> Path:
    """Put files of many kinds below a directory."""
    rng = random.Random(1)
    for number in range(40):
        (root / f"directory {number % 7}").mkdir(exist_ok=True)
        (root / f"directory {number % 7}" / f"file {number}").write_bytes(rng.randbytes(rng.randrange(60000)))
    (root / "many").mkdir()
    for number in range(120):
        (root / "many" / f"{number} {'n' * 60}").write_bytes(rng.randbytes(rng.choice((0, 1, 900))))
    (root / "many" / "deep" / "deeper").mkdir(parents=True)
    os.link(root / "many" / f"1 {'n' * 60}", root / "hard")
    (root / "symlink").symlink_to("x" * 100)
    (root / "fast symlink").symlink_to("y")
    with (root / "sparse").open("wb") as file:
        file.seek(3 * MIB)
        file.write(rng.randbytes(5000))
    return root


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("contents"))


def disk_of(tool: Tool, directory: Path, options: str, contents: Path, size: int = SIZE) -> MemoryDisk:
    path = made_ext(tool, directory / "image", options, size, contents)
    if "quota" in options:  # mke2fs does not count the files that it puts there
        run(tool("e2fsck"), "-fy", path, expect=(0, 1))
    disk = MemoryDisk(size)
    disk.data[:] = path.read_bytes()
    return disk


@pytest.mark.parametrize("options", list(FEATURES))
def test_to_the_minimum_and_back(tmp_path: Path, tool: Tool, contents: Path, options: str) -> None:
    disk = disk_of(tool, tmp_path, options, contents)
    before, minimum = everything(disk), minimum_size(disk)
    for size in (23 * MIB + 5 * KIB, None):
        shrunk = shrink_ext(disk, size)
        assert shrunk <= (size or minimum)
        judged(tool, tmp_path, disk, shrunk)
        assert everything(Region(disk, 0, shrunk)) == before
    assert shrunk == minimum
    assert minimum_size(disk) <= shrunk
    theirs = tmp_path / "image"
    if FEATURES[options]:
        run(tool("resize2fs"), "-M", theirs)
        assert shrunk <= theirs.stat().st_size * 1.02 + 4 * 64 * KIB
    plan_ext_growth(disk).write()
    judged(tool, tmp_path, disk)
    assert everything(disk) == before


def test_no_smaller_than_the_minimum(tmp_path: Path, tool: Tool, contents: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024", contents)
    before, minimum = bytes(disk.data), minimum_size(disk)
    with pytest.raises(DoesNotFitError, match=f"cannot shrink to .* at least {minimum} bytes") as caught:
        shrink_ext(disk, minimum - 4096)
    assert caught.value.needed == minimum
    assert bytes(disk.data) == before
    assert shrink_ext(disk, SIZE * 2) == SIZE
    assert bytes(disk.data) == before


def test_what_is_refused(tmp_path: Path, tool: Tool, contents: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext2 -b 1024", contents)
    disk.data[1024 + SUPERBLOCK.offsets["s_state"]] = 0
    before = bytes(disk.data)
    with pytest.raises(FileSystemError, match="it was not unmounted cleanly"):
        shrink_ext(disk)
    assert bytes(disk.data) == before


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.sampled_from(
        (
            "-t ext4 -b 1024 -g 256 -N 16 -E resize=40000",
            "-t ext4 -b 1024 -g 256 -N 16 -O sparse_super2,meta_bg,^resize_inode",
            "-t ext4 -b 1024 -g 512 -N 32 -O bigalloc,sparse_super2,^has_journal -C 2048 -E resize=40000",
            "-t ext4 -b 1024 -g 512 -N 32 -O ^flex_bg,^metadata_csum,uninit_bg -E stride=50",
            "-t ext2 -b 1024 -g 512 -N 64",
        )
    ),
    old=st.integers(7000, 20000),
    sizes=st.lists(st.integers(0, 20000), min_size=1, max_size=3),
)
def test_any_sizes(tmp_path: Path, tool: Tool, options: str, old: int, sizes: list[int]) -> None:
    """Small groups: every remainder occurs, descriptors go away, and the reserve for them comes back."""
    path = tmp_path / "image"
    path.unlink(missing_ok=True)
    disk = MemoryDisk(old * KIB)
    disk.data[:] = made_ext(tool, path, options, old * KIB).read_bytes()
    for size in sizes:
        if size * KIB < minimum_size(disk):
            with pytest.raises(DoesNotFitError, match="cannot shrink to"):
                shrink_ext(disk, size * KIB)
        else:
            assert shrink_ext(disk, size * KIB) <= size * KIB
        judged(tool, tmp_path, disk)


def test_metadata_that_flex_bg_has_put_after_the_end(tmp_path: Path, tool: Tool, contents: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -g 2048", contents)
    before = contents_of(disk)
    transaction = Transaction(disk)
    for group in (0, 2):
        descriptor = read_descriptor(transaction.fs, group)
        fields: dict[str, Value] = {}
        for name, (_, block, count) in zip(
            tables.POINTERS, locations(transaction.fs.geometry, descriptor), strict=True
        ):
            start = tables.copied(transaction, 35 * KIB, block, count)
            fields |= halves(descriptor_record(transaction.fs.geometry), name, start)
        tables.point(transaction, group, fields)
    transaction.commit()
    transaction.close()
    judged(tool, tmp_path, disk)
    for size in (30 * MIB, None):
        shrunk = shrink_ext(disk, size)
        judged(tool, tmp_path, disk, shrunk)
        assert contents_of(disk) == before


STOPPED = [
    "-t ext4 -b 1024 -g 1024",
    "-t ext3 -b 1024 -g 2048 -I 128",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode,orphan_file -g 2048",
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 4096",
    "-t ext4 -b 1024 -O ^has_journal -g 1024",
    "-t ext2 -b 1024 -g 1024",
    WITH_VALUES["quota"],
]


def stopped(start: bytes, *, losing: bool) -> Iterator[MemoryDisk]:
    """Yield a disk for some of the writes after which it may end; the last has them all."""
    rng = random.Random(5)
    writes = 0
    while True:
        disk = MemoryDisk(len(start))
        disk.data[:] = start
        dying = LosingDisk(disk, writes, KIB) if losing else StoppingDisk(disk, writes)
        try:
            shrink_ext(dying)
        except StoppedError:
            if isinstance(dying, LosingDisk):
                dying.lose(rng)
            writes += rng.choice((1, 7, 17, 29, 43))
        else:
            dying.flush()
            yield disk
            return
        yield disk


@pytest.mark.parametrize("losing", [False, True])
@pytest.mark.parametrize("options", STOPPED)
def test_stopped_at_writes(tmp_path: Path, tool: Tool, options: str, *, losing: bool) -> None:
    """e2fsck -p finds all files in a file system of the old or a smaller size; without a journal e2fsck -y does."""
    has_journal = "ext2" not in options and "^has_journal" not in options
    if "ea_inode" in options:
        disk = with_values(tool, tmp_path, options)
    else:
        root = tmp_path / "root"
        root.mkdir()
        for number in range(30):
            (root / f"d{number % 5}").mkdir(exist_ok=True)
            (root / f"d{number % 5}" / f"file {number}").write_bytes(random.Random(number).randbytes(number * 700))
        disk = disk_of(tool, tmp_path, options, root, 10 * MIB)
    before, sizes = contents_of(disk), set()
    for dead in stopped(bytes(disk.data), losing=losing):
        path = judged(tool, tmp_path, dead, first="-fp" if has_journal else "-fy")
        checked = MemoryDisk(10 * MIB)
        checked.data[:] = path.read_bytes()
        assert contents_of(checked) == before
        sizes.add(minimum_size(checked))
    assert sizes


def test_inodes_that_keep_their_numbers(tmp_path: Path, tool: Tool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(100):
        (root / f"{number}").write_bytes(b"")
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -g 1024 -N 320 -O stable_inodes", root, 20 * MIB)
    run(tool("debugfs"), "-w", "-f", "-", tmp_path / "image", given="".join(f"rm {number}\n" for number in range(90)))
    disk.data[:] = (tmp_path / "image").read_bytes()
    before = bytes(disk.data)
    with pytest.raises(FileSystemError, match=r"inode \d+ .* must keep its number \(the feature stable_inodes\)"):
        shrink_ext(disk, 5 * MIB)
    assert bytes(disk.data) == before


def test_a_directory_that_the_journal_cannot_hold(tmp_path: Path, tool: Tool) -> None:
    """It is refused before anything is moved."""
    root = tmp_path / "root"
    (root / "z").mkdir(parents=True)
    for number in range(100):
        (root / f"a{number}").write_bytes(b"a" * 5000)
    for number in range(3600):
        os.link(root / "a0", root / "z" / f"{number:04}{'n' * 246}")
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -g 1024 -N 320 -O ^orphan_file -J size=1", root, 20 * MIB)
    # So that fewer inodes are in use than the directory's number says.
    commands = "".join(f"rm a{number}\n" for number in range(10, 100))
    run(tool("debugfs"), "-w", "-f", "-", tmp_path / "image", given=commands)
    disk.data[:] = (tmp_path / "image").read_bytes()
    before = contents_of(disk)
    data = bytes(disk.data)
    refusal = (
        r"inode 112 .* \(a directory of 1200 blocks, of which the journal holds 767 at a time\).* nothing was moved"
    )
    with pytest.raises(FileSystemError, match=refusal):
        shrink_ext(disk, 5 * MIB)
    assert disk.data == data
    judged(tool, tmp_path, disk)
    assert contents_of(disk) == before


@pytest.mark.parametrize("end", [30 * MIB, None])
def test_a_log_is_replayed_first(tmp_path: Path, tool: Tool, end: int | None) -> None:
    """Also where nothing has to move: what the log holds is where it belongs, as e2fsck puts it there."""
    disk = MemoryDisk(SIZE)
    disk.data[:] = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024", SIZE).read_bytes()
    blocks = [26000, 26001, 26500, 29000]  # in no file
    writer = JournalWriter(disk, 0x12, start=50, first=7)
    random_log(writer, random.Random(1), blocks, 4)
    assert writer.expected
    shrunk = shrink_ext(disk, end)
    judged(tool, tmp_path, disk, shrunk)
    for block, data in writer.expected.items():
        assert bytes(disk.data[block * KIB : (block + 1) * KIB]) == data


HOSTILE = {
    "extents": "-t ext4 -O ^metadata_csum,inline_data,ea_inode -b 1024 -g 512 -N 512",
    "pointers": "-t ext2 -b 1024 -g 512 -N 512",
}
NASTY = (0, 1, 2, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_metadata(tmp_path: Path, tool: Tool, kind: str) -> None:
    """A sentence, or a smaller file system; within time and memory."""
    root = tmp_path / "root"
    root.mkdir()
    for number in range(60):
        (root / f"d{number % 3}").mkdir(exist_ok=True)
        (root / f"d{number % 3}" / f"{'long ' * (number % 40)}{number}").write_bytes(b"%d" % number * number * 20)
    image = bytes(disk_of(tool, tmp_path, HOSTILE[kind], root, 4 * MIB).data)
    sound = MemoryDisk(4 * MIB)
    sound.data[:] = image
    fs = read_file_system(sound)
    ranges = [(1024, 1024), (fs.geometry.descriptor_block(0) * KIB, 512), (0, 200 * KIB)]
    ranges += [(descriptor.inode_table * KIB, 20 * 256) for descriptor in read_descriptors(fs)]
    rng = random.Random(int(os.environ.get("PYDISKIMG_TEST_SEED", "1")))
    ended = set()
    for _ in range(60):
        disk = MemoryDisk(4 * MIB, name="disk")
        disk.data[:] = image
        for _ in range(rng.choice((1, 1, 2, 5))):
            start, length = rng.choice(ranges)
            width = rng.choice((1, 2, 4, 8))
            at = start + rng.randrange(length // width) * width
            value = rng.choice(NASTY) if rng.random() < 0.5 else rng.getrandbits(64)
            disk.data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        with limits(2.0, 256 * MIB):
            ended.add(is_shrunk(disk))
    assert ended == {False, True}


def is_shrunk(disk: MemoryDisk) -> bool:
    try:
        return shrink_ext(disk) < disk.size
    except DiskImageError as error:
        assert_sentence(str(error))
        return False


@pytest.mark.parametrize("size", [17 * MIB, None])
def test_the_last_copy_of_sparse_super2_moves_to_the_last_group(
    tmp_path: Path, tool: Tool, contents: Path, size: int | None
) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -O sparse_super2 -g 2048", contents)
    before = contents_of(disk)
    with open_changed_tree(disk) as tree:  # what lies where the copy comes to be
        for number in range(8):
            tree.write(f"/more{number}", b"m" * 3 * MIB)
    shrink_ext(disk, 36 * MIB)
    with open_changed_tree(disk) as tree:
        for number in range(8):
            tree.remove(f"/more{number}")
    shrunk = shrink_ext(disk, size)
    path = judged(tool, tmp_path, disk, shrunk)
    assert contents_of(disk) == before
    last = (shrunk // KIB - 2) // 2048
    assert f"Backup block groups:      1 {last}" in run(tool("dumpe2fs"), "-h", path)
    start = 1 + last * 2048
    assert "Filesystem state:" in run(tool("dumpe2fs"), "-h", "-o", f"superblock={start}", "-o", "blocksize=1024", path)
    run(tool("e2fsck"), "-fy", "-b", str(start), "-B", "1024", path, expect=(0, 1))
    run(tool("e2fsck"), "-fn", path)
    copy = MemoryDisk(path.stat().st_size)
    copy.data[:] = path.read_bytes()
    assert contents_of(copy) == before


def test_a_directory_larger_than_the_journal_is_refused_before_anything_moves() -> None:
    """Its blocks have checksums by its number, and would all have to change at once."""
    disk = MemoryDisk(31 * MIB)
    files = (regular(f"{number:03}") for number in range(40))
    names = (hard_link(b"large/" + b"%06d" % number + b"n" * 240, b"000") for number in range(2500))
    populate(disk, [*files, folder("large"), *names], block_size=1024, bytes_per_inode=512 * KIB, **FIXED)
    with open_changed_tree(disk) as tree:
        number = tree.stat("/large").st_ino
        for file in range(1, 40):
            tree.remove(f"/{file:03}")
    before = bytes(disk.data)
    with pytest.raises(FileSystemError, match=f"inode {number} .*a directory of [0-9]* blocks, of which the journal"):
        shrink_ext(disk, 20 * MIB)
    assert disk.data == before
    assert shrink_ext(disk, 30 * MIB) <= 30 * MIB
