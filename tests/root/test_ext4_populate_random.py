# SPDX-License-Identifier: MIT
"""Random entries in a file system that is filled and in a directory that the writer fills: one tree, one wording.

Below a directory the kernel decides what replaces what, where symlinks lead and what is refused.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.files.entry import Entry
from pydiskimg.files.writer import Wording, open_writer
from pydiskimg.fs.ext4.populate.populate import populate
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.units import MIB
from tests.fixtures.made_entries import FIXED, entry, folder, hard_link, regular, sparse, symlink
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff" * 9, b"n" * 255])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
DATA = st.tuples(st.integers(1, 20), st.integers(0, 3000)).map(lambda pair: bytes([pair[0]]) * pair[1])
ATTRIBUTES = st.dictionaries(
    st.sampled_from([b"user.a", b"security.b", b"trusted.c", b"com.apple.d"]), st.binary(max_size=200), max_size=3
)
IDS = st.sampled_from([0, 1, 65536, (1 << 32) - 2])
TARGETS = st.sampled_from([b"a", b"/b/c", b"..", b"../../c", b"x" * 59, b"x" * 60, b"n" * 255, b"a/./b/.."])


def device(path: bytes, kind: int, uid: int) -> Entry:
    return entry(path, kind, 0o640, device=(8, uid & 0xFFFF), uid=uid)


ENTRIES = st.one_of(
    st.builds(
        lambda path, data, xattrs, uid: regular(path, data, xattrs=xattrs, uid=uid), PATHS, DATA, ATTRIBUTES, IDS
    ),
    st.builds(lambda path, mode, xattrs: folder(path, mode, xattrs=xattrs), PATHS, st.integers(0, 0o7777), ATTRIBUTES),
    st.builds(lambda path, target, xattrs: symlink(path, target, xattrs=xattrs), PATHS, TARGETS, ATTRIBUTES),
    st.builds(hard_link, PATHS, PATHS),
    st.builds(lambda path, at, data: sparse(path, at + len(data), [(at, data)]), PATHS, st.integers(0, 1 << 20), DATA),
    st.builds(device, PATHS, st.sampled_from([stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK]), IDS),
)
Picture = dict[str, tuple[object, ...]]


def kept(entries: list[Entry], make: Callable[[list[Entry]], object]) -> tuple[list[int], list[str]]:
    """Return which of the entries can be made one after the other, and what is said of the others."""
    found: list[int] = []
    said = []
    for number in range(len(entries)):
        try:
            make([copy(entries[index]) for index in [*found, number]])
        except DiskImageError as error:
            said.append(str(error))
        else:
            found.append(number)
    return found, said


def filled(entries: list[Entry], kind: str) -> MemoryDisk:
    disk = MemoryDisk(8 * MIB)
    populate(disk, entries, **FIXED, kind=kind, wording=Wording("it"))
    return disk


def written(entries: list[Entry], target: str) -> None:
    """Make entries in a new directory, target/number of those that are there."""
    directory = os.path.join(target, str(len(os.listdir(target))))
    os.mkdir(directory)
    with open_writer(directory, Wording("it")) as writer:
        for one in entries:
            writer.make(one)
        writer.finish()


def picture_of(disk: MemoryDisk) -> Picture:
    found: Picture = {}
    with open_ext_tree(disk) as tree:
        for path, status in tree.walk("/"):
            is_link, is_file = stat.S_ISLNK(status.st_mode), stat.S_ISREG(status.st_mode)
            found[path.strip("/")] = (
                *shown(status),
                os.fsencode(tree.readlink(path)) if is_link else b"",
                tree.read(path, limit=4 * MIB) if is_file else b"",
                tree.attributes(path, follow_symlinks=False),
            )
    return {path: node for path, node in found.items() if path not in ("", "lost+found")}


def picture_below(top: str) -> Picture:
    found: Picture = {}
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            names = os.listxattr(path, follow_symlinks=False)
            found[os.path.relpath(path, top)] = (
                *shown(status),
                os.fsencode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else b"",
                Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b"",
                {name: os.getxattr(path, name, follow_symlinks=False) for name in names},
            )
    return found


def shown(status: os.stat_result) -> tuple[object, ...]:
    """What both have; a directory that no entry is for has the present as its time."""
    is_directory = stat.S_ISDIR(status.st_mode)
    own = (0, 0) if is_directory else (status.st_size, status.st_mtime_ns)
    return status.st_mode, status.st_uid, status.st_gid, status.st_nlink if not is_directory else 0, status.st_rdev, own


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRIES, max_size=10))
@example(entries=[sparse(b"a", 1, [(1, b"")])])
@example(entries=[folder(b"b", xattrs={b"user.a": b"x" * 200}), folder(b"b", xattrs={b"user.b": b"y"}), folder(b"b")])
def test_random_entries(kind: str, entries: list[Entry], tmp_path: Path, tool: Tool) -> None:
    for one in entries:
        one.contents = list(one.contents)
    with tempfile.TemporaryDirectory(dir=tmp_path) as target:
        ours, said = kept(entries, lambda some: filled(some, kind))
        theirs = kept(entries, lambda some: written(some, target))
        assert (ours, said) == theirs
        written([copy(entries[index]) for index in ours], target)
        disk = filled([copy(entries[index]) for index in ours], kind)
        last = str(max(map(int, os.listdir(target))))
        assert picture_of(disk) == picture_below(os.path.join(target, last))
    (tmp_path / "disk").write_bytes(disk.data)
    run(tool("e2fsck"), "-fn", tmp_path / "disk")
