# SPDX-License-Identifier: MIT
"""What changes with files: quota files and orphans; and what an interrupted rename leaves without a journal."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import StorageError
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.units import KIB
from tests.fixtures.ext_contents import Found, contents_of
from tests.fixtures.judged_ext import disk_of, judged, prepared, repaired
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import LosingDisk, StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle


class Interrupted(NamedTuple):
    """A disk after an interruption, and the files before the change and after it."""

    disk: MemoryDisk
    before: dict[str, Found]
    after: dict[str, Found]


RENAMES: dict[str, tuple[str, str]] = {
    "in one directory": ("/old", "/new"),
    "in one directory over another": ("/old", "/other"),
    "in a directory of several blocks": (f"/dir/{3:030}", "/dir/" + "n" * 200),
    "of a directory": ("/empty", "/new"),
    "to another directory": ("/old", "/dir/new"),
    "to another directory over another": ("/old", f"/dir/{5:030}"),
}


@pytest.mark.parametrize("options", ["-t ext2 -b 1024", "-t ext4 -b 1024 -O ^has_journal"])
@pytest.mark.parametrize("name", RENAMES)
def test_a_rename_without_a_journal(tool: Tool, tmp_path: Path, options: str, name: str) -> None:
    """In one directory it is done or not done. To another one, a file may have both names after e2fsck -p. A name that
    it replaces may be missing. Each file that has a name is whole.
    """
    disk, (old, new) = prepared(tool, tmp_path, options), RENAMES[name]
    start, before = bytes(disk.data), contents_of(disk)
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        tree.rename(old, new)
    after, rng = contents_of(disk), random.Random(3)
    judged(tool, tmp_path, disk)
    both = {**before, new: before[old]}
    missing = {path: file for path, file in before.items() if path != new}
    allowed = [before, after]
    allowed += [both] * ("to another" in name) + [missing] * (new in before)
    for writes in range(counting.written):
        disk.data[:] = start
        losing = LosingDisk(disk, writes, 1 * KIB)
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            tree.rename(old, new)
        losing.lose(rng)
        found = without_links(repaired(tool, tmp_path, disk))
        assert found in [without_links(one) for one in allowed], f"after {writes} writes"


def without_links(files: dict[str, Found]) -> dict[str, Found]:
    return {path: file._replace(links=0) for path, file in files.items()}


@pytest.mark.parametrize("options", ["-t ext2 -b 1024", "-t ext4 -b 1024 -O ^has_journal"])
def test_a_directory_that_moves_without_a_journal_has_one_name_at_least(
    tool: Tool, tmp_path: Path, options: str
) -> None:
    """e2fsck -p may leave to e2fsck -y which of two names it keeps, or what the directory above it is."""
    disk = prepared(tool, tmp_path, options)
    with open_changed_tree(disk) as tree:
        tree.write("/empty/file", b"of the directory")
    start, rng = bytes(disk.data), random.Random(3)
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        tree.rename("/empty", "/dir/moved")
    path = tmp_path / "moved"
    for writes in range(counting.written):
        disk.data[:] = start
        losing = LosingDisk(disk, writes, 1 * KIB)
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            tree.rename("/empty", "/dir/moved")
        losing.lose(rng)
        path.write_bytes(disk.data)
        run(tool("e2fsck"), "-p", path, expect=(0, 1, 4))
        run(tool("e2fsck"), "-fy", path, expect=(0, 1))
        disk.data[:] = path.read_bytes()
        found = contents_of(disk)
        names = [name for name in ("/empty", "/dir/moved") if name in found]
        assert len(names) == 1
        assert found[f"{names[0]}/file"].contents == b"of the directory"


VALUES: dict[str, Callable[[ChangedTree], object]] = {
    "set": lambda tree: tree.set_attribute("/other", "user.large", b"v" * 20_000),
    "replaced": lambda tree: tree.set_attribute("/old", "user.large", b"v" * 20_000),
    "removed": lambda tree: tree.remove_attribute("/old", "user.large"),
    "removed with its file": lambda tree: tree.remove("/old"),
    "made with its file": lambda tree: tree.write("/new", b"new", attributes={"user.large": b"v" * 20_000}),
}


def values_interrupted(tool: Tool, directory: Path, block_size: int, name: str) -> Iterator[Interrupted]:
    """Yield what each number of writes leaves of a change of an attribute whose value is in an inode of its own."""
    disk = prepared(tool, directory, f"-t ext4 -b {block_size} -O ea_inode,^has_journal")
    if name != "made with its file":
        with open_changed_tree(disk) as tree:
            tree.remove_directory("/empty")  # 1 to 16 were in use
    start, before = bytes(disk.data), contents_of(disk)
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        VALUES[name](tree)
    judged(tool, directory, disk)
    after, rng = contents_of(disk), random.Random(5)
    for writes in range(counting.written):
        disk.data[:] = start
        losing = LosingDisk(disk, writes, block_size)
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            VALUES[name](tree)
        losing.lose(rng)
        yield Interrupted(disk, before, after)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_in_the_block_of_its_file_without_a_journal(tool: Tool, tmp_path: Path, name: str) -> None:
    """A block of the table has 16 inodes: both are there, or neither."""
    outcomes = set()
    for one in values_interrupted(tool, tmp_path, 4096, name):
        found = repaired(tool, tmp_path, one.disk)
        assert found in (one.before, one.after)
        outcomes.add(found == one.after)
    assert outcomes == {False, True}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_in_another_block_without_a_journal(tool: Tool, tmp_path: Path, name: str) -> None:
    """Of 4 inodes in a block: e2fsck -y may take attributes of the one file away, and all others are as they were."""
    path = tmp_path / "apart"
    for one in values_interrupted(tool, tmp_path, 1024, name):
        path.write_bytes(one.disk.data)
        run(tool("e2fsck"), "-p", path, expect=(0, 1, 4))
        run(tool("e2fsck"), "-fy", path, expect=(0, 1))
        one.disk.data[:] = path.read_bytes()
        judged(tool, tmp_path, one.disk)
        found = contents_of(one.disk)
        changes = {path for path in one.before.keys() | one.after.keys() if one.before.get(path) != one.after.get(path)}
        for name_found, file in found.items():
            if name_found in changes:
                whole = [files[name_found] for files in (one.before, one.after) if name_found in files]
                assert any(file._replace(attributes={}) == other._replace(attributes={}) for other in whole)
                assert any(file.attributes.items() <= other.attributes.items() for other in whole)
            elif not name_found.startswith("/lost+found"):
                assert file == one.before[name_found]


# The orphan file would be inode 12, and the numbers below others.
@pytest.mark.parametrize("options", ["-t ext4 -b 1024 -O ^orphan_file", "-t ext3 -b 1024"])
def test_what_a_crash_left_is_deleted_and_cut_first(tool: Tool, tmp_path: Path, options: str) -> None:
    """Interrupted after every number of writes e2fsck -p does the rest."""
    disk = prepared(tool, tmp_path, options)
    path = tmp_path / "orphans"
    path.write_bytes(disk.data)
    gone = "set_inode_field old links_count 0\nset_inode_field old dtime 13\nunlink old\n"
    cut = "set_inode_field other size 1500\nset_inode_field other dtime 15\n"
    directory = "set_inode_field empty links_count 0\nunlink empty\nset_inode_field / links_count 4\n"
    directory += "set_super_value last_orphan 12\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=gone + cut + directory)
    disk.data[:] = start = path.read_bytes()
    with open_changed_tree(disk) as tree:
        assert bytes(disk.data) == start, "nothing was written yet"
        tree.chmod("/other", 0o600)
    judged(tool, tmp_path, disk)
    after = contents_of(disk)
    assert {"/other", "/dir", "/lost+found"} == {path for path in after if path.count("/") == 1}
    assert after["/other"][4] == (b"other" * 900)[:1500]
    counting, rng = StoppingDisk(disk, 1 << 30), random.Random(5)
    disk.data[:] = start
    with open_changed_tree(counting) as tree:
        tree.chmod("/other", 0o600)
    for writes in range(counting.written):
        disk.data[:] = start
        losing = LosingDisk(disk, writes, 1 * KIB)
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            tree.chmod("/other", 0o600)
        losing.lose(rng)
        found = repaired(tool, tmp_path, disk, "-f")  # what looks clean is not looked into otherwise
        assert found.keys() == after.keys()
        assert found["/other"][4] == after["/other"][4]


def test_an_orphan_that_belongs_to_the_file_system_is_refused(tool: Tool, tmp_path: Path) -> None:
    disk = prepared(tool, tmp_path, "-t ext4 -b 1024 -O ^metadata_csum")
    path = tmp_path / "orphans"
    path.write_bytes(disk.data)
    run(tool("debugfs"), "-w", "-R", "set_super_value last_orphan 8", path)
    disk.data[:] = start = path.read_bytes()
    tree = open_changed_tree(disk)
    for _ in range(2):
        with pytest.raises(StorageError, match="its list of orphans has inode 8, which belongs to the file system"):
            tree.write("/new", b"")
    tree.close()
    assert bytes(disk.data) == start


QUOTAS = ["-t ext4 -b 1024 -O quota,project", "-t ext4 -b 4096 -O quota,^has_journal"]


@pytest.mark.parametrize("options", QUOTAS)
def test_quota_files_count_many_owners(tool: Tool, tmp_path: Path, options: str) -> None:
    """Entries fill several blocks of a quota file, and the file grows."""
    disk = disk_of(tool, tmp_path, f"{options} -E quotatype=usrquota:grpquota{':prjquota' * ('project' in options)}")
    rng = random.Random(1)
    with open_changed_tree(disk) as tree:
        for number in range(40):
            tree.write(f"/{number}", bytes(number * 300))
            tree.chown(f"/{number}", rng.getrandbits(32), number % 16)
        judged(tool, tmp_path, disk)
        for number in range(0, 40, 3):
            tree.remove(f"/{number}")
            tree.chown(f"/{number + 1}", 7, 7) if number + 1 < 40 else None
        tree.chown("/", 9, 9)
    judged(tool, tmp_path, disk)
