# SPDX-License-Identifier: MIT
"""File systems of mke2fs whose files we change: e2fsck judges after every change, also after an interruption."""

from __future__ import annotations

import errno
import os
import random
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError, StorageError
from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4.change import groups
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.inode_fields import largest_file
from pydiskimg.units import KIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext
from tests.fixtures.judged_ext import FEATURES, SIZE, disk_of, judged, prepared, repaired
from tests.fixtures.made_entries import entry, folder, hard_link, regular, sparse, symlink
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import FailingDisk, LosingDisk, StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

Change = Callable[[ChangedTree], None]


DIRECTORIES = st.sampled_from(["/", "/d", "/d/e"])
NAMES = st.sampled_from(["a", "b", "c" * 100, "d", "e", "f" * 255])
VALUE_SIZES = st.sampled_from([0, 3, 50, 300, 700, 5000, 30_000])
SIZES = st.one_of(st.sampled_from([0, 1, 59, 60, 100, 1023, 1024, 5000]), st.integers(0, 60_000))


class Changes(RuleBasedStateMachine):
    """A file system and a model of it: files by path, as (mode, contents, attributes); two paths may be one file."""

    tool: Tool

    @initialize(options=st.sampled_from(FEATURES), seed=st.integers(0, 1 << 32), kept=st.sampled_from([0, 512]))
    def make(self, options: str, seed: int, kept: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(groups, "_KEPT_GROUPS", kept)
        self.directory, self.options = tempfile.TemporaryDirectory(), options
        self.disk = disk_of(self.tool, Path(self.directory.name), options)
        self.rng = random.Random(seed)
        self.tree = open_changed_tree(self.disk)
        self.model: dict[str, list[Any]] = {}

    def path(self, directory: str, name: str) -> str:
        return f"{directory.rstrip('/')}/{name}"

    def expected(self, path: str, *, can: bool, change: Callable[[], object]) -> bool:
        """Make a change that the model says is possible, or see that it is refused."""
        if can:
            change()
            return True
        with pytest.raises(OSError):  # noqa: PT011 - whose number depends on what is there
            change()
        return False

    def is_directory(self, path: str) -> bool:
        return path == "/" or (path in self.model and stat.S_ISDIR(self.model[path][0]))

    def is_file(self, path: str) -> bool:
        return path in self.model and stat.S_ISREG(self.model[path][0])

    @rule(directory=DIRECTORIES, name=NAMES, size=SIZES)
    def write(self, directory: str, name: str, size: int) -> None:
        path, data = self.path(directory, name), self.rng.randbytes(size)
        if path in self.model and stat.S_ISLNK(self.model[path][0]):
            return  # what it leads to would be made
        can = self.is_directory(directory) and (path not in self.model or self.is_file(path))
        if not self.expected(path, can=can, change=lambda: self.tree.write(path, data, mode=0o640)):
            return
        old = self.model.get(path)
        mode, attributes = (old[0], dict(old[2])) if old else (stat.S_IFREG | 0o640, {})
        self.model[path] = [mode, data, attributes]

    @rule(directory=DIRECTORIES, name=st.sampled_from(["d", "e"]))
    def make_directory(self, directory: str, name: str) -> None:
        path = self.path(directory, name)
        can = self.is_directory(directory) and path not in self.model
        if self.expected(path, can=can, change=lambda: self.tree.make_directory(path, mode=0o750)):
            self.model[path] = [stat.S_IFDIR | 0o750, b"", {}]

    @rule(directory=DIRECTORIES, name=NAMES, size=st.sampled_from([1, 59, 60, 300]))
    def symlink(self, directory: str, name: str, size: int) -> None:
        path, target = self.path(directory, name), "t" * size
        can = self.is_directory(directory) and path not in self.model
        if self.expected(path, can=can, change=lambda: self.tree.symlink(path, target)):
            self.model[path] = [stat.S_IFLNK | 0o777, target.encode(), {}]

    @rule(directory=DIRECTORIES, name=NAMES)
    def remove(self, directory: str, name: str) -> None:
        path = self.path(directory, name)
        can = path in self.model and not self.is_directory(path)
        if self.expected(path, can=can, change=lambda: self.tree.remove(path)):
            del self.model[path]

    @rule(directory=DIRECTORIES, name=st.sampled_from(["d", "e"]))
    def remove_directory(self, directory: str, name: str) -> None:
        path = self.path(directory, name)
        can = self.is_directory(path) and not any(other.startswith(path + "/") for other in self.model)
        if self.expected(path, can=can, change=lambda: self.tree.remove_directory(path)):
            del self.model[path]

    @rule(directory=DIRECTORIES, name=NAMES, new_directory=DIRECTORIES, new_name=NAMES)
    def rename(self, directory: str, name: str, new_directory: str, new_name: str) -> None:
        old, new = self.path(directory, name), self.path(new_directory, new_name)
        can = old in self.model and self.is_directory(new_directory)
        if can and self.is_directory(old):
            inside = any(other.startswith(new + "/") for other in self.model)
            can = not new.startswith(old + "/") and (new not in self.model or (self.is_directory(new) and not inside))
            can = can or new == old
        elif can:
            can = not self.is_directory(new)
        if not self.expected(old, can=can, change=lambda: self.tree.rename(old, new)) or old == new:
            return
        if self.model.get(new) is self.model[old]:  # two names of one file: rename(2) leaves both
            return
        for path in [path for path in self.model if path == old or path.startswith(old + "/")]:
            self.model[new + path[len(old) :]] = self.model.pop(path)

    @rule(directory=DIRECTORIES, name=NAMES, new_directory=DIRECTORIES, new_name=NAMES)
    def link(self, directory: str, name: str, new_directory: str, new_name: str) -> None:
        old, new = self.path(directory, name), self.path(new_directory, new_name)
        can = (
            old in self.model
            and not self.is_directory(old)
            and self.is_directory(new_directory)
            and new not in self.model
        )
        if self.expected(old, can=can, change=lambda: self.tree.link(old, new)):
            self.model[new] = self.model[old]

    @rule(directory=DIRECTORIES, name=NAMES, size=SIZES, more=SIZES)
    def resize(self, directory: str, name: str, size: int, more: int) -> None:
        path, data = self.path(directory, name), self.rng.randbytes(more)
        if self.is_file(path):
            self.tree.truncate(path, size)
            self.tree.append(path, data)
            self.model[path][1] = self.model[path][1][:size].ljust(size, b"\0") + data

    @rule(directory=DIRECTORIES, name=NAMES, key=st.sampled_from("ab"), size=VALUE_SIZES)
    def set_attribute(self, directory: str, name: str, key: str, size: int) -> None:
        path, value = self.path(directory, name), self.rng.randbytes(size)
        if not (self.is_file(path) or (self.is_directory(path) and path != "/")):
            return
        try:
            self.tree.set_attribute(path, "user." + key, value)
        except StorageError as error:
            if error.errno == errno.EOPNOTSUPP:
                assert "-r 0" in self.options
                return
            assert error.errno == errno.ENOSPC  # noqa: PT017
            assert len(value) + sum(map(len, self.model[path][2].values())) > 600
            assert "ea_inode" not in self.options
        else:
            self.model[path][2]["user." + key] = value

    @rule(directory=DIRECTORIES, name=NAMES, key=st.sampled_from("ab"))
    def remove_attribute(self, directory: str, name: str, key: str) -> None:
        path = self.path(directory, name)
        if path in self.model and f"user.{key}" in self.model[path][2]:
            self.tree.remove_attribute(path, f"user.{key}")
            del self.model[path][2][f"user.{key}"]

    @rule(directory=DIRECTORIES, name=NAMES, mode=st.integers(0, 0o7777))
    def chmod(self, directory: str, name: str, mode: int) -> None:
        path = self.path(directory, name)
        if self.is_file(path) or (self.is_directory(path) and path != "/" and not mode & 0o2000):
            self.tree.chmod(path, mode)
            self.model[path][0] = stat.S_IFMT(self.model[path][0]) | mode

    @rule(directory=DIRECTORIES, name=NAMES, uid=st.integers(0, 1 << 31), gid=st.sampled_from([0, 5, 70_000]))
    def chown(self, directory: str, name: str, uid: int, gid: int) -> None:
        path = self.path(directory, name)
        if path in self.model:
            self.tree.chown(path, uid, gid, follow_symlinks=False)

    @rule(directory=DIRECTORIES, count=st.integers(1, 60), is_kept=st.booleans())
    def many(self, directory: str, count: int, *, is_kept: bool) -> None:
        if not self.is_directory(directory):
            return
        paths = [self.path(directory, f"{'n' * 20}{number}") for number in range(count)]
        self.tree.write_files(directory, [(path.rpartition("/")[2], b"of many") for path in paths])
        for path in paths:
            self.model[path] = [stat.S_IFREG | 0o644, b"of many", {}]
        with self.tree.together():
            for path in paths if not is_kept else ():
                self.tree.remove(path)
                del self.model[path]

    @rule(items=st.lists(st.tuples(DIRECTORIES, NAMES, st.sampled_from("fsdpl"), SIZES), min_size=1, max_size=8))
    def put(self, items: list[tuple[str, str, str, int]]) -> None:
        self.tree.put([entry for item in items for entry in self.entries(*item)])

    def entries(self, directory: str, name: str, kind: str, size: int) -> Iterator[Entry]:
        """Yield an entry that is possible, which the model has then."""
        path, mode = self.path(directory, name), 0o600 + size % 64
        has_more = any(other.startswith(path + "/") for other in self.model)
        if not self.is_directory(directory) or (kind != "d" and self.is_directory(path) and has_more):
            return
        old = self.model.get(path)
        if kind == "l":
            first = next((one for one in sorted(self.model) if one != path and not self.is_directory(one)), None)
            if first is not None:
                self.model[path] = self.model[first]
                yield hard_link(path, first)
        elif kind == "d":
            attributes = old[2] if old and self.is_directory(path) else {}
            self.model[path] = [stat.S_IFDIR | mode, b"", attributes]
            yield folder(path, mode)
        elif kind == "s":
            self.model[path] = [stat.S_IFLNK | 0o777, b"t" * (size % 900 + 1), {}]
            yield symlink(path, self.model[path][1])
        else:
            data = self.rng.randbytes(size) if kind == "f" else b""
            self.model[path] = [(stat.S_IFREG if kind == "f" else stat.S_IFIFO) | mode, data, {}]
            yield regular(path, data, mode=mode) if kind == "f" else entry(path, stat.S_IFIFO, mode)

    @rule(directory=DIRECTORIES, name=NAMES)
    def remove_tree(self, directory: str, name: str) -> None:
        path = self.path(directory, name)
        can = path in self.model and self.is_directory(directory)
        if self.expected(path, can=can, change=lambda: self.tree.remove_tree(path)):
            self.model = {one: found for one, found in self.model.items() if not f"{one}/".startswith(path + "/")}

    @invariant()
    def is_right(self) -> None:
        if not hasattr(self, "tree"):
            return
        found = contents_of(self.disk)
        del found["/lost+found"]
        assert {path: [*one[:1], *one[4:]] for path, one in found.items()} == self.model
        judged(self.tool, Path(self.directory.name), self.disk)

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.patch.undo()
            with self.directory:
                self.tree.close()
                judged(self.tool, Path(self.directory.name), self.disk)


def test_random_changes(tool: Tool) -> None:
    machine = type("ToolChanges", (Changes,), {"tool": staticmethod(tool)})
    count = int(os.environ.get("PYDISKIMG_EXAMPLES", "0"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=count or 12,
            stateful_step_count=15,
            deadline=None,
            derandomize=not count,  # the suite tries the same ones each time; others when they are asked for
            suppress_health_check=list(HealthCheck),
        ),
    )


NEW = random.Random(2).randbytes(20_000)


# What changes in one step also where there is no journal.
SINGLE: dict[str, Change] = {
    "write a new file": lambda tree: tree.write("/new", NEW),
    "write in place": lambda tree: tree.write("/old", NEW),
    "append": lambda tree: tree.append("/old", NEW),
    "truncate": lambda tree: tree.truncate("/old", 1234),
    "make a directory": lambda tree: tree.make_directory("/new"),
    "make a symlink": lambda tree: tree.symlink("/new", "t" * 100),
    "remove": lambda tree: tree.remove("/old"),
    "remove a directory": lambda tree: tree.remove_directory("/empty"),
    "write into a full directory": lambda tree: tree.write("/dir/new", b""),
    "change an attribute": lambda tree: tree.set_attribute("/old", "user.a", b"c" * 400),
}
JOURNALED: dict[str, Change] = {
    **SINGLE,
    "rename": lambda tree: tree.rename("/old", "/dir/new"),
    "rename over another": lambda tree: tree.rename("/old", "/other"),
    "move a directory": lambda tree: tree.rename("/empty", "/dir/empty"),
}


def several(tree: ChangedTree) -> None:
    with tree.together():
        tree.write("/other", NEW)
        tree.rename("/old", "/dir/new")
        tree.make_directory("/empty/d")
        tree.remove_directory("/empty/d")


JOURNALED["several together"] = several
LARGE_VALUES: dict[str, Change] = {
    "set a large attribute": lambda tree: tree.set_attribute("/other", "user.large", NEW),
    "remove a large attribute": lambda tree: tree.remove_attribute("/old", "user.large"),
    "remove with a large attribute": lambda tree: tree.remove("/old"),
    "change the owner": lambda tree: tree.chown("/old", 70_000, 5),
}
JOURNALED |= LARGE_VALUES
WITH_VALUES = "-t ext4 -b 1024 -O ea_inode,quota"
CASES = [
    *(("-t ext4 -b 1024", name) for name in JOURNALED if name not in LARGE_VALUES),
    *((WITH_VALUES, name) for name in LARGE_VALUES),
    *(("-t ext3 -b 1024", name) for name in ("write a new file", "several together")),
    *(("-t ext2 -b 1024", name) for name in SINGLE),
    *(("-t ext4 -b 1024 -O ^has_journal", name) for name in SINGLE),
]


@pytest.mark.parametrize(("options", "name"), CASES)
def test_an_interruption_leaves_the_old_or_the_new(tool: Tool, tmp_path: Path, options: str, name: str) -> None:
    """After every number of writes, with what was not flushed lost in part, and in any order."""
    disk, change = prepared(tool, tmp_path, options), JOURNALED[name]
    start, before = bytes(disk.data), contents_of(disk)
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        change(tree)
    after, rng = contents_of(disk), random.Random(3)
    assert after != before
    outcomes = set()
    for writes in range(counting.written):
        disk.data[:] = start
        losing = LosingDisk(disk, writes, 1 * KIB)
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            change(tree)
        losing.lose(rng)
        found = repaired(tool, tmp_path, disk)
        assert found in (before, after), f"after {writes} writes"
        outcomes.add(found == after)
    assert outcomes == {False, True}


@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext4 -b 1024 -O ^has_journal"])
def test_an_error_in_the_middle_of_several_changes(tool: Tool, tmp_path: Path, options: str) -> None:
    """The disk works again afterwards: a change that may not be in force is not continued."""
    disk = prepared(tool, tmp_path, options)
    start, before = bytes(disk.data), contents_of(disk)
    counting = FailingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        two_files(tree)
        count = counting.written
    after, outcomes = contents_of(disk), set()
    for writes in range(count):
        disk.data[:] = start
        is_later_done = False
        with open_changed_tree(FailingDisk(disk, writes)) as tree:
            with pytest.raises(StorageError, match="cannot write: Input/output error"):
                two_files(tree)
            with suppress(FileSystemError):
                tree.write("/later", b"later")
                is_later_done = True
        found = repaired(tool, tmp_path, disk)
        is_later_there = found.pop("/later", None) is not None
        assert is_later_there == is_later_done
        assert found in (before, after), f"after {writes} writes"
        outcomes.add((found == before, is_later_done))
    assert outcomes == {(True, True), (True, False), (False, False)}


def two_files(tree: ChangedTree) -> None:
    with tree.together():
        tree.write("/dir/one", b"1" * 3000)
        tree.write("/dir/two", b"2" * 3000)


def test_removing_many_leaves_no_inode_that_looks_like_garbage(tool: Tool, tmp_path: Path) -> None:
    """e2fsck clears a block of inodes if most of them look wrong, and it also checks those of removed files."""
    disk = disk_of(tool, tmp_path, "-t ext4 -b 4096")
    with open_changed_tree(disk) as tree:
        tree.write_files("/", [(str(number), b"contents") for number in range(60)])
        for number in range(60):
            if number % 4:
                tree.remove(f"/{number}")
    judged(tool, tmp_path, disk)


@pytest.mark.parametrize("feature", ["read-only", "mmp"])
def test_what_is_not_changed_is_named_before_the_first_write(tool: Tool, tmp_path: Path, feature: str) -> None:
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024", SIZE)
    run(tool("tune2fs"), "-O", feature, path)
    disk = MemoryDisk(SIZE)
    disk.data[:] = path.read_bytes()
    if feature == "mmp":  # in use: its block says so
        at = disk.data.index(bytes.fromhex("504d4d00504d4dff"), 4096)
        disk.data[at + 4 : at + 8] = (1).to_bytes(4, "little")
    start = bytes(disk.data)
    with pytest.raises(FileSystemError, match="multiple mount" if feature == "mmp" else f"feature {feature} are not"):
        open_changed_tree(disk)
    assert bytes(disk.data) == start


def removed_and_filled(tree: ChangedTree) -> None:
    with tree.together():
        tree.remove("/kept")
        tree.write("/large", bytes(SIZE))


def test_a_full_file_system_says_so_and_stays_as_it_was(tool: Tool, tmp_path: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -N 64")
    with open_changed_tree(disk) as tree:
        tree.write("/kept", b"kept")
        before = contents_of(disk)
        with pytest.raises(StorageError, match="no block is free") as caught:
            tree.write("/large", bytes(SIZE))
        assert (caught.value.errno, "/large" in str(caught.value)) == (errno.ENOSPC, True)
        assert contents_of(disk) == before
        with pytest.raises(StorageError, match="no inode is free"):
            tree.write_files("/", [(str(number), b"") for number in range(64)])
        with pytest.raises(StorageError, match="no block is free"):
            removed_and_filled(tree)
        assert tree.read("/kept") == b"kept"
    judged(tool, tmp_path, disk)


def test_what_a_call_has_done_is_durable_when_it_returns(tool: Tool, tmp_path: Path) -> None:
    disk = prepared(tool, tmp_path, "-t ext4 -b 1024")
    changes: list[Change] = [JOURNALED[name] for name in ("write in place", "remove", "write a new file")]
    start, states = bytes(disk.data), [contents_of(disk)]
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        for change in changes:
            change(tree)
            states.append(contents_of(disk))
    rng, seen = random.Random(7), set()
    for writes in range(counting.written):
        disk.data[:] = start
        losing, done = LosingDisk(disk, writes, 1 * KIB), 0
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            for change in changes:
                change(tree)
                done += 1
        losing.lose(rng)
        state = states.index(repaired(tool, tmp_path, disk))
        assert done <= state <= done + 1
        seen.add(state)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("options", ["-t ext2 -b 1024", "-t ext3 -b 2048", "-t ext4 -b 1024", "-t ext4 -b 4096"])
def test_a_file_becomes_as_long_as_its_map_can_have_it_and_no_longer(tool: Tool, tmp_path: Path, options: str) -> None:
    disk = disk_of(tool, tmp_path, options + " -O ^has_journal")
    features, size = read_file_system(disk).geometry.features, int(options.rpartition(" ")[2])
    with open_changed_tree(disk) as tree:
        tree.write("/file", b"some")
        most = largest_file(features, size)
        tree.truncate("/file", most)
        for longer in (most + 1, 1 << 40 if "-t ext4" not in options else 1 << 45):
            with pytest.raises(StorageError, match="more than a file can have here") as caught:
                tree.truncate("/file", longer)
            assert caught.value.errno == errno.EFBIG
        with pytest.raises(StorageError, match="more than a file can have here"):
            tree.append("/file", b"x")
        with pytest.raises(StorageError, match="more than a file can have here"):
            tree.put([sparse("file", most + 1, [(0, b"x")])])
        assert tree.stat("/file").st_size == most
    judged(tool, tmp_path, disk)
