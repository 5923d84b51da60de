# SPDX-License-Identifier: MIT
"""File systems that we grew, beside what resize2fs makes of a copy; e2fsck judges, also after an interruption."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.layout import SUPERBLOCK
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.images.open_disk import open_disk
from pydiskimg.regions.region import Region
from pydiskimg.units import GIB, KIB, MIB
from tests.fixtures.ext_files import made_ext, sized, some_files
from tests.fixtures.growing import digest
from tests.fixtures.journals import JournalWriter, random_log
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

# What mke2fs is told, and whether resize2fs makes the same of it.
FEATURES = {
    "-t ext2 -b 1024": True,
    "-t ext2 -b 4096": True,
    "-t ext2 -r 0 -b 4096": True,
    "-t ext3 -b 1024": True,
    "-t ext3 -b 1024 -I 128": True,
    "-t ext4 -b 1024": True,
    "-t ext4 -b 2048": True,
    "-t ext4 -b 4096": True,
    "-t ext4 -b 65536": True,
    "-t ext4 -b 1024 -O ^64bit": True,
    "-t ext4 -b 1024 -O ^metadata_csum": True,
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg": True,
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit -I 128": True,
    "-t ext4 -b 1024 -O ^flex_bg": True,
    "-t ext4 -b 1024 -O metadata_csum_seed": True,
    "-t ext4 -b 1024 -O orphan_file": True,
    "-t ext4 -b 1024 -O ^has_journal": True,
    "-t ext4 -b 1024 -O meta_bg,^resize_inode": True,
    "-t ext4 -b 1024 -O meta_bg,^resize_inode,^metadata_csum,uninit_bg": True,
    "-t ext2 -b 1024 -O meta_bg,^resize_inode,^sparse_super": True,
    "-t ext4 -b 1024 -N 64": True,
    "-t ext4 -b 1024 -g 1024": True,
    "-t ext4 -b 1024 -i 1024": True,
    # resize2fs moves files to make room for descriptors; we put them into the new groups, as the kernel does.
    "-t ext4 -b 1024 -O ^resize_inode": False,
    "-t ext2 -b 1024 -O ^resize_inode": False,
    "-t ext2 -b 1024 -O ^resize_inode,^sparse_super": False,
    "-t ext4 -b 1024 -E resize=300000": False,
    "-t ext3 -b 1024 -g 1024 -E resize=40000": False,
    # resize2fs 1.47 frees a block too many where the copy was, if that is in group 1.
    "-t ext4 -b 1024 -O sparse_super2": False,
    "-t ext4 -b 1024 -O sparse_super2 -E resize=300000": False,
    "-t ext4 -b 1024 -O sparse_super2,meta_bg,^resize_inode": False,
    # resize2fs 1.47 refuses, and with -f counts blocks for clusters.
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 4096": False,
    "-t ext4 -b 4096 -O bigalloc,sparse_super2 -C 16384 -g 8192": False,
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,bigalloc -C 8192": False,
    "-t ext4 -b 1024 -O ^metadata_csum,bigalloc,^resize_inode -C 8192": False,
}
COUNTS = ("Block count", "Inode count", "Free inodes", "Reserved block count")
SIZES = (
    (20 * MIB, 21 * MIB),  # within the last group
    (20 * MIB, 24 * MIB + 9 * KIB),  # a group of hardly anything
    (16 * MIB + 1 * KIB, 100 * MIB),
    (50 * MIB, 1500 * MIB),
)
IGNORED = re.compile(
    r"^(Journal sequence|Journal checksum|Checksum|Last (write|checked) time|.*time|Lifetime writes):?"
)


def copied(path: Path, name: str) -> Path:
    target = path.with_name(name)
    run("cp", "--sparse=always", path, target)
    return target


def grown(path: Path, size: int) -> int:
    with open_disk(sized(path, size), writable=True) as disk:
        growth = plan_ext_growth(disk)
        growth.write()
    return growth.size


def header(tool: Tool, path: Path) -> dict[str, str]:
    lines = [line.split(":", 1) for line in run(tool("dumpe2fs"), "-h", path).splitlines() if ":" in line]
    return {name: value.strip() for name, value in lines if not IGNORED.match(name)}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return some_files(tmp_path_factory.mktemp("contents"), 40)


def files(tool: Tool, path: Path, where: Path) -> str:
    run("rm", "-rf", where)
    where.mkdir()
    run(tool("debugfs"), "-R", f"rdump / {where}", path)
    return digest(where)


def same_as_resize2fs(tool: Tool, path: Path, size: int) -> None:
    other = copied(path, "other")
    run(tool("resize2fs"), sized(other, size))
    grown(path, size)
    run(tool("e2fsck"), "-fn", path)
    assert header(tool, path) == header(tool, other)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("options", [options for options, same in FEATURES.items() if same])
def test_what_resize2fs_makes(tmp_path: Path, tool: Tool, options: str, old: int, new: int) -> None:
    same_as_resize2fs(tool, made_ext(tool, tmp_path / "image", options, old), new)


@pytest.mark.parametrize("options", list(FEATURES))
def test_files_and_copies_stay_good(tmp_path: Path, tool: Tool, contents: Path, options: str) -> None:
    """Grown twice; then the copy of the superblock in an old group, and in a new one, leads to all of it."""
    path = made_ext(tool, tmp_path / "image", options, 20 * MIB, contents)
    before = files(tool, path, tmp_path / "files")
    for size in (45 * MIB, 800 * MIB):
        grown(path, size)
        run(tool("e2fsck"), "-fn", path)
        assert files(tool, path, tmp_path / "files") == before
    found = header(tool, path)
    block_size = int(found["Block size"])
    per_group, first = int(found["Blocks per group"]), int(found["First block"])
    # e2fsck looks for all descriptors in the last groups, too, where meta_bg begins behind the first.
    named = [int(number) for number in found.get("Backup block groups", "1 49").split()]
    for group in (1,) if "First meta block group" in found else named:
        copy = first + group * per_group
        if copy >= int(found["Block count"]):
            continue
        damaged = copied(path, "damaged")
        with damaged.open("r+b") as file:
            file.write(bytes(max(block_size, 2048)))
        run(tool("e2fsck"), "-fy", "-b", str(copy), "-B", str(block_size), damaged, expect=(0, 1))
        run(tool("e2fsck"), "-fn", damaged)
        assert files(tool, damaged, tmp_path / "files") == before
        assert header(tool, damaged)["Block count"] == found["Block count"]


@pytest.mark.parametrize(("old", "new"), SIZES[1:3])
@pytest.mark.parametrize("options", [options for options, same in FEATURES.items() if not same])
def test_as_large_as_by_resize2fs(tmp_path: Path, tool: Tool, options: str, old: int, new: int) -> None:
    """Where descriptors, copies or clusters lie, and with that what is free, may be another matter."""
    path = made_ext(tool, tmp_path / "image", options, old)
    other = copied(path, "other")
    run(tool("resize2fs"), "-f", sized(other, new))
    grown(path, new)
    run(tool("e2fsck"), "-fn", path)
    ours, theirs = header(tool, path), header(tool, other)
    assert [ours[name] for name in COUNTS] == [theirs[name] for name in COUNTS]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.sampled_from(
        (
            "-t ext4 -b 1024 -g 256 -N 16 -E resize=12000",
            "-t ext4 -b 1024 -g 256 -N 16 -O sparse_super2",
            "-t ext4 -b 1024 -g 256 -N 16 -O sparse_super2,meta_bg,^resize_inode",
            "-t ext4 -b 1024 -g 512 -N 32 -O bigalloc,sparse_super2 -C 2048 -E resize=12000",
            "-t ext4 -b 1024 -g 512 -N 32 -O bigalloc,meta_bg,^resize_inode,^metadata_csum,uninit_bg -C 4096",
        )
    ),
    old=st.integers(3000, 9000),
    sizes=st.lists(st.integers(1, 40000), min_size=1, max_size=3),
)
def test_any_sizes_are_good(tmp_path: Path, tool: Tool, options: str, old: int, sizes: list[int]) -> None:
    path = tmp_path / "image"
    with suppress(FileNotFoundError):
        path.unlink()
    made_ext(tool, path, options, old * KIB)
    size = old
    for more in sizes:
        size += more
        grown(path, size * KIB)
        run(tool("e2fsck"), "-fn", path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.sampled_from(
        ("-t ext4 -b 1024 -g 256 -N 16", "-t ext2 -b 1024 -g 512", "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 256")
    ),
    old=st.integers(2000, 9000),
    sizes=st.lists(st.integers(1, 40000), min_size=1, max_size=3),
)
def test_any_sizes(tmp_path: Path, tool: Tool, options: str, old: int, sizes: list[int]) -> None:
    """Small groups: a block of descriptors is crossed by every few MiB, and every remainder occurs."""
    path = tmp_path / "image"
    with suppress(FileNotFoundError):
        path.unlink()
    made_ext(tool, path, options, old * KIB)
    size = old
    for more in sizes:
        size += more
        same_as_resize2fs(tool, path, size * KIB)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_ours(tmp_path: Path, tool: Tool, kind: str, block_size: int) -> None:
    path = sized(tmp_path / "image", 2 * GIB)
    with open_disk(path, writable=True) as disk:
        make_ext(Region(disk, 0, 30 * MIB), kind=kind, block_size=block_size)
    same_as_resize2fs(tool, path, 2 * GIB)


def test_terabytes(tmp_path: Path, tool: Tool) -> None:
    """A table of hundreds of blocks out of the reserve, and none for more."""
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 4096", 2 * GIB)
    assert grown(path, 2 << 40) == 2 << 40
    run(tool("e2fsck"), "-fn", path)


def test_the_reserve_is_used_up(tmp_path: Path, tool: Tool) -> None:
    """All of it holds descriptors then, and the resize inode has given back its block."""
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -E resize=300000", 20 * MIB)
    reserved = int(header(tool, path)["Reserved GDT blocks"])
    assert grown(path, 3 * GIB) == 3 * GIB
    run(tool("e2fsck"), "-fn", path)
    found = header(tool, path)
    assert found["First meta block group"] == str(1 + reserved)
    assert "resize_inode" not in found["Filesystem features"]
    assert "Reserved GDT blocks" not in found
    assert "Blockcount: 0" in run(tool("debugfs"), "-R", "stat <7>", path)


STOPPED = {
    "-t ext4 -b 1024 -E resize=600000": (20 * MIB, 500 * MIB),
    "-t ext4 -b 4096": (20 * MIB, 500 * MIB),
    "-t ext3 -b 1024 -g 1024 -O uninit_bg -E resize=600000": (20 * MIB, 50 * MIB),
    "-t ext4 -b 1024 -O ^resize_inode": (20 * MIB, 500 * MIB),
    "-t ext4 -b 1024 -O meta_bg,^resize_inode": (20 * MIB, 200 * MIB),
    "-t ext2 -b 1024 -g 1024 -E resize=600000": (20 * MIB, 50 * MIB),
    "-t ext4 -O ^has_journal -b 1024 -E resize=600000": (20 * MIB, 500 * MIB),
    "-t ext4 -b 1024 -g 1024 -E resize=40000": (20 * MIB, 70 * MIB),
    "-t ext4 -b 1024 -O sparse_super2 -E resize=600000": (20 * MIB, 500 * MIB),
    "-t ext4 -b 1024 -O sparse_super2,meta_bg,^resize_inode": (16 * MIB + 1 * KIB, 40 * MIB),
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 8192 -E resize=600000": (20 * MIB, 50 * MIB),
}


def stopped_copies(path: Path, size: int) -> Iterator[Path]:
    """Yield a copy for each write after which growing may end; the last has them all."""
    writes = 0
    while True:
        copy = copied(path, "stopped")
        with open_disk(sized(copy, size), writable=True) as disk:
            dying = StoppingDisk(disk, writes)
            try:
                plan_ext_growth(dying).write()
            except StoppedError:
                writes += 1
            else:
                yield copy
                return
        yield copy


def is_marked(path: Path) -> bool:
    """True when the superblock says that something is to be done first."""
    with path.open("rb") as file:
        file.seek(1024)
        fields = SUPERBLOCK.unpack(file.read(1024))
    return bool(int(fields["s_feature_incompat"]) & Incompat.RECOVER) or not int(fields["s_state"]) & 1


@pytest.mark.parametrize("options", list(STOPPED))
def test_stopped_at_each_write(tmp_path: Path, tool: Tool, contents: Path, options: str) -> None:
    """The old or the new file system: by the journal alone or by growing again, else by e2fsck -y."""
    old, new = STOPPED[options]
    path = made_ext(tool, tmp_path / "image", options, old, contents)
    before = files(tool, path, tmp_path / "files")
    counts = [header(tool, path)["Block count"]]
    has_journal = "ext2" not in options and "^has_journal" not in options
    for copy in stopped_copies(path, new):
        if not is_marked(copy):
            run(tool("e2fsck"), "-fn", copy)
        if has_journal:
            again = copied(copy, "again")
            grown(again, new)
            run(tool("e2fsck"), "-fn", again)
        run(tool("e2fsck"), "-fp" if has_journal else "-fy", copy, expect=(0, 1))
        run(tool("e2fsck"), "-fn", copy)
        assert files(tool, copy, tmp_path / "files") == before
        counts.append(header(tool, copy)["Block count"])
    assert len(set(counts)) == 2
    assert counts == sorted(counts, key=int)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("incompat", [0, 0x12, 0x1])
def test_a_log_is_replayed_first(tmp_path: Path, tool: Tool, seed: int, incompat: int) -> None:
    """As e2fsck does it: what the log holds is in its place afterwards, whatever the growing wrote."""
    disk = MemoryDisk(24 * MIB)
    make_ext(Region(disk, 0, 20 * MIB), block_size=1024)
    rng = random.Random(seed)
    writer = JournalWriter(disk, incompat, start=rng.choice((1, 50, 1000)), first=rng.randrange(1, 1 << 20))
    random_log(writer, rng, [19000, 19001, 19500, 20000], 4)
    path = tmp_path / "image"
    path.write_bytes(disk.data)
    grown(path, 200 * MIB)
    run(tool("e2fsck"), "-fn", path)
    with path.open("rb") as file:
        for block, data in writer.expected.items():
            assert os.pread(file.fileno(), 1024, block * 1024) == data
    assert header(tool, path)["Block count"] == str(200 * 1024)
