# SPDX-License-Identifier: MIT
"""What is in use, compared with dumpe2fs' list of free blocks; e2fsck and debugfs check a copy of only that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import NotBelievedError, read_file_system
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.recovery import after_recovery
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import read_bytes
from pydiskimg.units import MIB, TIB
from pydiskimg.volumes.used import used_source
from tests.fixtures.ext_files import made_ext, some_files
from tests.fixtures.journals import JournalWriter, random_log
from tests.fixtures.programs import ANY_STATUS, Tool, run
from tests.fixtures.used_copy import copy_used

pytestmark = pytest.mark.oracle

COMPAT = 1 << 32  # with the journal's checksums of version 1, a compatible feature
FEATURES = (
    "-t ext2",
    "-t ext2 -r 0",
    "-t ext2 -O ^sparse_super,^resize_inode -b 1024",
    "-t ext2 -O meta_bg,^resize_inode -b 1024",
    "-t ext3",
    "-t ext3 -b 4096",
    "-t ext4 -b 1024",
    "-t ext4 -b 2048",
    "-t ext4 -b 4096",
    "-t ext4 -b 16384",
    "-t ext4 -b 65536",
    "-t ext4 -I 128",
    "-t ext4 -I 1024",
    "-t ext4 -g 8192 -b 4096",
    "-t ext4 -G 2 -b 1024",
    "-t ext4 -G 128 -b 1024",
    "-t ext4 -E packed_meta_blocks=1",
    "-t ext4 -E lazy_itable_init=0,lazy_journal_init=0",
    "-t ext4 -E num_backup_sb=0 -O sparse_super2",
    "-t ext4 -E num_backup_sb=1 -O sparse_super2 -b 1024",
    "-t ext4 -O sparse_super2 -b 1024",
    "-t ext4 -O ^64bit -b 1024",
    "-t ext4 -O ^flex_bg -b 1024",
    "-t ext4 -O ^extent,^64bit -b 1024",
    "-t ext4 -O ^has_journal",
    "-t ext4 -O ^metadata_csum",
    "-t ext4 -O ^metadata_csum,uninit_bg -b 1024",
    "-t ext4 -O ^metadata_csum,uninit_bg,^64bit -b 1024",
    "-t ext4 -O meta_bg,^resize_inode -b 1024",
    "-t ext4 -O meta_bg,^resize_inode,^flex_bg -b 1024",
    "-t ext4 -O meta_bg,^resize_inode,^metadata_csum,uninit_bg -b 1024",
    "-t ext4 -O bigalloc -b 4096 -C 65536",
    "-t ext4 -O bigalloc -b 1024 -C 2048",
    "-t ext4 -O bigalloc -b 1024 -C 16384",
    "-t ext4 -O bigalloc,meta_bg,^resize_inode -b 1024 -C 4096",
    "-t ext4 -O bigalloc,^metadata_csum,uninit_bg -C 32768",
    "-t ext4 -O mmp",
    "-t ext4 -O quota,project",
    "-t ext4 -O metadata_csum_seed",
    "-t ext4 -O encrypt,casefold,verity",
    "-t ext4 -O ea_inode,inline_data,large_dir",
    "-t ext4 -O orphan_file",
    "-t ext4 -O stable_inodes,fast_commit",
)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return some_files(tmp_path_factory.mktemp("contents"), 60)


def fields_of(tool: Tool, path: Path) -> tuple[int, int, int, set[int]]:
    """Block size, blocks in a cluster, blocks, and the blocks that dumpe2fs calls free."""
    lines = run(tool("dumpe2fs"), path).splitlines()
    named = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ":" in line}
    block_size, blocks = int(named["Block size"]), int(named["Block count"])
    cluster = int(named.get("Cluster size", block_size)) // block_size
    free: set[int] = set()
    for line in lines:
        if line.startswith("  Free blocks: "):
            for part in filter(None, line.split(": ")[1].replace(" ", "").split(",")):
                first, _, last = part.partition("-")
                # Of clusters it names the first block only.
                free.update(range(int(first), min(blocks, int(last or first) // cluster * cluster + cluster)))
    return block_size, cluster, blocks, free


def judge(tool: Tool, path: Path, copy: Path) -> None:
    """Exactly what dumpe2fs calls free is left out, and a copy without it is a sound file system."""
    block_size, _, blocks, free = fields_of(tool, path)
    with open_raw(path) as source:
        usage = ExtUsage(source)
        used = {block for start, end in usage.ranges() for block in range(start // block_size, -(-end // block_size))}
        assert usage.first_doubt is None
        assert set(range(blocks)) - used == free
        copy_used(used_source(source), copy)
    run(tool("e2fsck"), "-fn", copy)


@pytest.mark.parametrize("options", FEATURES)
def test_exactly_what_is_free(options: str, tmp_path: Path, contents: Path, tool: Tool) -> None:
    path = made_ext(tool, tmp_path / "disk", options, 100 * MIB, contents)
    if "quota" in options:  # mke2fs -d does not count
        run(tool("e2fsck"), "-fp", path, expect=ANY_STATUS)
    judge(tool, path, tmp_path / "copy")
    target = tmp_path / "out"
    target.mkdir()
    run(tool("debugfs"), "-R", f"rdump / {target}", tmp_path / "copy")
    for file in contents.rglob("file *"):
        assert (target / file.relative_to(contents)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("to", [1000 * MIB, 3000 * MIB, 60 * MIB])
@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext4", "-t ext3", "-t ext4 -O ^resize_inode", "-t ext2"])
def test_after_resize2fs(options: str, to: int, tmp_path: Path, contents: Path, tool: Tool) -> None:
    path = made_ext(tool, tmp_path / "disk", options, 100 * MIB, contents)
    if to > 100 * MIB:
        with path.open("r+b") as file:
            file.truncate(to)
    run(tool("e2fsck"), "-fp", path, expect=ANY_STATUS)
    run(tool("resize2fs"), path, f"{to // 1024}K")
    judge(tool, path, tmp_path / "copy")


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ("-t ext4 -b 1024", "-U random"),
        ("-t ext4", "-U 12345678-1234-5678-1234-567812345678 -L name"),
        ("-t ext4 -O metadata_csum_seed", "-U random"),
        ("-t ext4 -O ^metadata_csum,uninit_bg -b 1024", "-U random"),
        ("-t ext4 -b 1024 -O sparse_super2", "-U random"),
        ("-t ext3 -b 1024", "-U clear"),
        ("-t ext2 -b 1024", "-j"),
        ("-t ext4 -b 1024", "-O ^orphan_file,^has_journal"),
        ("-t ext4 -b 1024", "-O ^metadata_csum"),
        ("-t ext4 -b 1024 -O ^metadata_csum", "-O metadata_csum"),
        ("-t ext4 -b 1024 -O ^sparse_super,^resize_inode", "-O sparse_super"),
        ("-t ext2 -b 1024 -I 128", "-I 256"),
        ("-t ext4 -b 1024", "-m 0 -c 20 -i 10d -e panic -E stride=4"),
        ("-t ext2 -b 1024", "-O extents,uninit_bg,dir_index"),
    ],
)
def test_after_tune2fs(options: str, change: str, tmp_path: Path, contents: Path, tool: Tool) -> None:
    """What is changed in the superblock is changed in its copies, as far as they are compared."""
    path = made_ext(tool, tmp_path / "disk", options, 100 * MIB, contents)
    run(tool("e2fsck"), "-fp", path, expect=ANY_STATUS)
    run(tool("tune2fs"), *change.split(), path)
    # It asks for e2fsck then; version 1.47.2 leaves the file of orphans to that as well.
    if any(feature in change for feature in ("uninit_bg", "sparse_super", "metadata_csum")):
        run(tool("e2fsck"), "-fy", path, expect=ANY_STATUS)
    judge(tool, path, tmp_path / "copy")


def test_after_a_repair_from_a_copy(tmp_path: Path, contents: Path, tool: Tool) -> None:
    path = made_ext(tool, tmp_path / "disk", "-t ext4 -b 1024", 100 * MIB, contents)
    with path.open("r+b") as file:
        file.write(bytes(4096))
    run(tool("e2fsck"), "-fy", "-b", "8193", path, expect=ANY_STATUS)
    judge(tool, path, tmp_path / "copy")


@pytest.mark.parametrize(("options", "size"), [("-t ext4 -b 1024", TIB), ("-t ext4", 4 * TIB), ("-t ext3", TIB)])
def test_large_ones(options: str, size: int, tmp_path: Path, tool: Tool) -> None:
    path = made_ext(tool, tmp_path / "disk", f"{options} -E lazy_itable_init=1", size)
    with open_raw(path) as source:
        usage = ExtUsage(source)
        used = sum(end - start for start, end in usage.ranges())
    lines = run(tool("dumpe2fs"), "-h", path).splitlines()
    named = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ":" in line}
    assert size - used == int(named["Free blocks"]) * int(named["Block size"])
    assert usage.doubtful_groups == 0


# Blocks 9000 and up are free in the file systems below; debugfs writes whatever it is told to into the journal.
JOURNALS = (
    ("-t ext3", ""),
    ("-t ext4", "-c -v 3"),
    ("-t ext4", "-c -v 2"),
    ("-t ext4 -O ^metadata_csum", ""),
    ("-t ext4 -O ^64bit", "-c -v 3"),
    ("-t ext4 -O ^64bit", "-c -v 2"),
    ("-t ext4 -O ^64bit,^metadata_csum", ""),
    ("-t ext4 -O bigalloc -C 16384", "-c -v 3"),
)


@pytest.mark.parametrize(("options", "journal"), JOURNALS)
def test_a_journal_is_replayed_as_e2fsck_replays_it(options: str, journal: str, tmp_path: Path, tool: Tool) -> None:
    """Written twice, revoked, revoked and written again, beginning with the journal's magic; a transaction too few."""
    path = made_ext(tool, tmp_path / "disk", f"{options} -b 4096", 64 * MIB)
    block = tmp_path / "block"
    commands = [f"journal_open {journal}"]
    rng = random.Random(5)
    for number in range(12):
        data = tmp_path / f"block{number}"
        magic = bytes.fromhex("c03b3998") if number % 3 == 0 else b""
        data.write_bytes((magic + rng.randbytes(4096 * 5))[: 4096 * 5])
        first = 9000 + rng.randrange(30)
        commands.append(f"journal_write -b {','.join(map(str, range(first, first + 5)))} {data}")
        if number % 2:
            revoked = 9000 + rng.randrange(25)
            commands.append(f"journal_write -r {','.join(map(str, range(revoked, revoked + 6)))}")
    block.write_text("\n".join([*commands, "journal_close", ""]))
    written = run(tool("debugfs"), "-w", "-f", block, path)
    assert "rror" not in written, written
    with open_raw(path) as source:
        fs = read_file_system(source)
        assert Incompat.RECOVER in fs.geometry.features
        recovered, count = after_recovery(fs)
        assert count > 10
        found = read_bytes(recovered, 9000 * 4096, 40 * 4096)
        before = read_bytes(source, 9000 * 4096, 40 * 4096)
    run(tool("e2fsck"), "-p", path, expect=ANY_STATUS)
    with path.open("rb") as file:
        file.seek(9000 * 4096)
        after = file.read(40 * 4096)
    assert found == after != before


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
@pytest.mark.parametrize("features", [1, 3, 9, 11, 17, 19, 21, 1 | COMPAT, 7 | COMPAT])
def test_a_log_of_ours_is_replayed_as_e2fsck_replays_it(kind: str, features: int, tmp_path: Path, tool: Tool) -> None:
    """The logs of the unit tests, so that they are not only what we think a log is."""
    for seed in range(8):
        disk = MemoryDisk(8 * MIB)
        make_ext(disk, kind=kind, block_size=1024)
        first = (1, (1 << 32) - 2)[seed % 2]
        writer = JournalWriter(disk, features & ~COMPAT, bool(features & COMPAT), start=1 + seed * 140, first=first)
        random_log(writer, random.Random(seed), list(range(7000, 7008)), seed)
        path = tmp_path / "disk"
        path.write_bytes(disk.data)
        source, _ = after_recovery(read_file_system(disk))
        said = run(tool("e2fsck"), "-p", path, expect=ANY_STATUS)
        assert "recovering journal" in said
        with path.open("rb") as file:
            file.seek(7000 * 1024)
            assert read_bytes(source, 7000 * 1024, 8 * 1024) == file.read(8 * 1024)


@pytest.mark.parametrize("features", [5 | COMPAT, 21], ids=["version 1", "version 3"])
def test_an_asynchronous_commit_that_was_faster_than_its_transaction(features: int, tmp_path: Path, tool: Tool) -> None:
    """The last transaction has its commit block and not all of the rest: the log ends before it."""
    disk = MemoryDisk(8 * MIB)
    make_ext(disk, kind="ext4", block_size=1024)
    writer = JournalWriter(disk, features & ~COMPAT, bool(features & COMPAT))
    writer.write({7000: b"1" * 1024, 7001: b"2" * 1024})
    writer.commit()
    torn = writer.position + (1 if features & COMPAT else 2)  # a copy; the commit block, which alone is checked
    writer.write({7000: b"3" * 1024})
    writer.commit()
    writer.close()
    disk.data[writer.at(torn) + 700] ^= 1
    path = tmp_path / "disk"
    path.write_bytes(disk.data)
    source, blocks = after_recovery(read_file_system(disk))
    assert "recovering journal" in run(tool("e2fsck"), "-p", path, expect=ANY_STATUS)
    assert blocks == 2
    assert read_bytes(source, 7000 * 1024, 2048) == b"1" * 1024 + b"2" * 1024
    with path.open("rb") as file:
        file.seek(7000 * 1024)
        assert file.read(2048) == b"1" * 1024 + b"2" * 1024


def test_a_journal_on_another_device(tmp_path: Path, tool: Tool) -> None:
    """It is not there, so the file system is believed only when it says that nothing is in it."""
    path = made_ext(tool, tmp_path / "disk", "-t ext4 -O ^has_journal", 64 * MIB)
    run(tool("debugfs"), "-w", "-R", "feature has_journal", path)
    run(tool("debugfs"), "-w", "-R", "set_super_value journal_dev 0x700", path)
    with open_raw(path) as source:
        assert list(ExtUsage(source).ranges())
    run(tool("debugfs"), "-w", "-R", "feature needs_recovery", path)
    with open_raw(path) as source, pytest.raises(NotBelievedError, match="its journal, on another device"):
        ExtUsage(source)
