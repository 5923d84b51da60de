# SPDX-License-Identifier: MIT
"""One writer for tarballs, dumps and directories: what it does alike for all, and what it keeps between entries."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, StorageError
from pydiskimg.files.acl import AclEntry, AclNames, read_below
from pydiskimg.files.copy import copy_directory
from pydiskimg.files.dump import open_dump
from pydiskimg.files.dump.entries import DumpEntries
from pydiskimg.files.entry import Entry
from pydiskimg.files.tar import extract
from pydiskimg.files.writer import Wording, open_writer
from pydiskimg.linux.openat2 import openat2
from tests.fixtures.dumps import Dir, dump, restored, small_tree
from tests.unit.files.test_archive_hostile import directory, file, pack, symlink


def unpack(work: Path, target: Path) -> None:
    extract(pack(work / "a.tar", [directory(".")]), str(target))


def restore(work: Path, target: Path) -> None:
    restored(dump({2: Dir()}), target)


def copy(work: Path, target: Path) -> None:
    (work / "source/d").mkdir(parents=True)
    copy_directory(str(work / "source"), str(target))


SOURCES = [unpack, restore, copy]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def refuse_to_remove(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "removexattr", refuse)


@pytest.mark.parametrize("source", SOURCES)
def test_an_acl_that_cannot_be_dropped_is_an_error(
    source: Callable[[Path, Path], None], tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_remove(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match=r"cannot be (unpacked|restored|copied): Input/output error") as caught:
        source(tmp_path, target)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("number", [errno.ENODATA, errno.EOPNOTSUPP])
@pytest.mark.parametrize("source", SOURCES)
def test_an_acl_that_is_not_there_needs_no_dropping(
    source: Callable[[Path, Path], None],
    number: int,
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_to_remove(monkeypatch, number)
    source(tmp_path, target)


def names_of_acls(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    try:
        AclNames(partial(read_below, fd)).number(b"group", b"adm")
    finally:
        os.close(fd)


def test_names_of_acls_are_never_read_from_a_fifo(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive may have one, or a device, in the place of the list; only a file is opened, and not just named."""
    opened: list[int] = []

    def noted(dir_fd: int, path: str, flags: int, *, resolve: int) -> int:
        opened.append(flags & os.O_PATH)
        return openat2(dir_fd, path, flags, resolve=resolve)

    monkeypatch.setattr("pydiskimg.files.acl.openat2", noted)
    (target / "etc").mkdir()
    os.mkfifo(target / "etc/group")
    with pytest.raises(ValueError, match="the tree's etc/group does not list it"):
        names_of_acls(target)
    assert opened == [os.O_PATH]


def test_names_of_acls_that_cannot_be_read(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("pydiskimg.files.acl.openat2", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        names_of_acls(target)


def test_a_symlink_that_was_replaced_leads_nowhere_any_more(tmp_path: Path, target: Path) -> None:
    """The directories that were opened last are kept open, by their paths."""
    members = [directory("d"), symlink("l", "d"), file("l/x"), file("l"), file("l/y")]
    with pytest.raises(ArchiveError, match=r"entry l/y: a parent in its path is not a directory"):
        extract(pack(tmp_path / "a.tar", members), str(target))
    assert os.listdir(target / "d") == ["x"]


def test_a_directory_that_was_replaced_is_not_written_into(tmp_path: Path, target: Path) -> None:
    members = [directory("a"), directory("a/b"), directory("c"), file("c/x"), symlink("a/b", "../c"), file("a/b/y")]
    extract(pack(tmp_path / "a.tar", members), str(target))
    assert sorted(os.listdir(target / "c")) == ["x", "y"]


def test_more_directories_than_are_kept_open(tmp_path: Path, target: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    members = [file(f"{number}/{name}") for name in ("x", "y") for number in range(150)]
    extract(pack(tmp_path / "a.tar", members), str(target))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert all(sorted(os.listdir(target / str(number))) == ["x", "y"] for number in range(150))


def test_a_dump_is_read_as_entries_without_a_writer() -> None:
    with open_dump(io.BytesIO(dump(small_tree())), "a.dump") as reader:
        found = {
            entry.path: (entry.kind, list(entry.names), entry.link, sum(len(data) for _, data in entry.contents))
            for entry in DumpEntries(reader, None)
        }
    assert found == {
        b"/": (stat.S_IFDIR, [], b"", 0),
        b"/etc": (stat.S_IFDIR, [], b"", 0),
        b"/hello": (stat.S_IFREG, [b"/etc/hello-too"], b"", 6),
        b"/etc/empty": (stat.S_IFREG, [], b"", 0),
        b"/sparse": (stat.S_IFREG, [], b"", 1028),
        b"/link": (stat.S_IFLNK, [], b"etc/empty", 0),
        b"/etc/\xff\n": (stat.S_IFIFO, [], b"", 0),
    }


def test_attributes_may_come_with_the_contents(target: Path) -> None:
    """As in a dump, which has them after the contents of a file."""
    xattrs: dict[bytes, bytes] = {}
    acls: dict[bytes, list[AclEntry]] = {}

    def contents() -> Iterator[tuple[int, memoryview]]:
        yield 0, memoryview(b"data")
        xattrs[b"user.late"] = b"value"

    entry = Entry(
        b"f", stat.S_IFREG, 0o444, os.geteuid(), os.getegid(), 0, 0, 4, xattrs=xattrs, acls=acls, contents=contents()
    )
    with open_writer(str(target), Wording("a")) as writer:
        writer.make(entry)
        writer.finish()
    assert os.getxattr(target / "f", "user.late") == b"value"
    assert stat.S_IMODE((target / "f").stat().st_mode) == 0o444
