# SPDX-License-Identifier: MIT
"""Archives that try to write, link or change something outside of the directory they are unpacked into."""

from __future__ import annotations

import copy
import io
import os
import tarfile
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, DiskImageError
from pydiskimg.files.tar import extract
from tests.archive_trees import picture

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", data: bytes = b"", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.uid, info.gid = os.getuid(), os.getgid()
    info.size, info.mtime = len(data), 1_000_000_000
    return info, data


def file(name: str, data: bytes = b"written") -> Member:
    return member(name, data=data)


def directory(name: str, mode: int = 0o755) -> Member:
    return member(name, tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, link=target)


def fifo(name: str) -> Member:
    return member(name, tarfile.FIFOTYPE)


def pack(path: Path, members: list[Member], *, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def placed(members: list[Member], outside: Path) -> list[Member]:
    """Return copies of the members with the outside's path in their names."""
    copies = [(copy.copy(info), data) for info, data in members]
    for info, _ in copies:
        info.name = info.name.replace("{outside}", str(outside))
        info.linkname = info.linkname.replace("{outside}", str(outside))
    return copies


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must not change: beside the target, with a file that everybody may write."""
    path = tmp_path / "outside"
    (path / "etc").mkdir(parents=True)
    (path / "canary").write_text("alive")
    (path / "etc/passwd").write_text("root")
    return path


# The target is tmp_path/target, the canary tmp_path/outside/canary; {outside} is its directory's path.
REFUSED: dict[str, tuple[list[Member], str]] = {
    "parent": ([file("../outside/canary")], r'has "\.\." in it'),
    "parent in the middle": ([directory("a"), file("a/../../outside/canary")], r'has "\.\." in it'),
    "parent alone": ([directory("..", 0o777)], r'has "\.\." in it'),
    "absolute with parent": ([file("/../outside/canary")], r'has "\.\." in it'),
    "hard link to the parent's file": ([hard_link("x", "../outside/canary")], r'has "\.\." in it'),
    "hard link to an absolute file": ([hard_link("x", "{outside}/canary")], "does not exist"),
    "hard link through a symlink": ([symlink("s", "{outside}"), hard_link("x", "s/canary")], "does not exist"),
    "hard link to a directory": ([directory("d"), hard_link("x", "d")], "hard link to the directory d"),
    "hard link to the root": ([hard_link("x", ".")], "hard link to the directory"),
    "hard link to nothing": ([hard_link("x", "y")], "hard link to y, which does not exist"),
    "file through a symlink out": ([symlink("s", "../outside"), file("s/canary")], "leads nowhere inside the tree"),
    "file through an absolute symlink": ([symlink("s", "{outside}"), file("s/canary")], "leads nowhere"),
    "directory through a symlink out": ([symlink("s", "../outside"), directory("s/new")], "leads nowhere"),
    "two symlinks": ([symlink("a", "b/../.."), symlink("b", "."), file("a/outside/canary")], ""),
    "chain of symlinks": ([symlink("a", ".."), symlink("b", "a/outside"), file("b/canary")], "leads nowhere"),
    "circle of symlinks": ([symlink("a", "b"), symlink("b", "a"), file("a/x")], "loop of symlinks"),
    "FIFO as a parent": ([fifo("p"), file("p/x")], "parent in its path is not a directory"),
    "file as a parent": ([file("p"), file("p/x")], "parent in its path is not a directory"),
    "file in place of a full directory": ([directory("d"), file("d/x"), file("d")], "not empty"),
    "root is a file": ([file(".")], "the path of the directory that the archive is unpacked into"),
    "root is a symlink": ([symlink("./", "{outside}")], "the path of the directory"),
    "name that is too long": ([file("n" * 300)], "longer than the kernel accepts"),
    "path that is too long": ([file("n/" * 2500 + "x")], "longer than the kernel accepts"),
    "magic link": ([symlink("s", "/proc/self/root"), file("s{outside}/canary")], "leads nowhere"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_outside_changes(name: str, tmp_path: Path, outside: Path) -> None:
    members, reason = REFUSED[name]
    members = placed(members, outside)
    target = tmp_path / "target"
    target.mkdir()
    before, others = picture(outside), sorted(os.listdir(tmp_path))
    if name == "two symlinks":  # resolves inside, where the parents are made
        extract(pack(tmp_path / "evil.tar", members), str(target))
        assert (target / "outside/canary").read_text() == "written"
    else:
        with pytest.raises(ArchiveError, match=reason) as caught:
            extract(pack(tmp_path / "evil.tar", members), str(target))
        assert str(caught.value).startswith(f"{tmp_path}/evil.tar: entry ")
        assert caught.value.entry is not None
    assert picture(outside) == before
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "evil.tar"])


CONTAINED: dict[str, tuple[list[Member], dict[str, str]]] = {
    "absolute name": ([file("/etc/new")], {"etc/new": "written"}),
    "absolute name of the canary": ([file("{outside}/canary")], {"{outside}/canary": "written"}),
    "entry replaces a symlink": ([symlink("s", "{outside}/canary"), file("s")], {"s": "written"}),
    "directory replaces a symlink": (
        [symlink("s", "{outside}"), directory("s"), file("s/canary")],
        {"s/canary": "written"},
    ),
    "symlink with a parent inside": (
        [directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/x")],
        {"usr/lib/x": "written"},
    ),
    "absolute symlink inside": (
        [directory("usr/lib"), symlink("lib", "/usr/lib"), file("lib/x")],
        {"usr/lib/x": "written"},
    ),
    "symlink that climbs stays": ([directory("etc"), symlink("s", "../../../etc"), file("s/x")], {"etc/x": "written"}),
    "hard link to a symlink": ([symlink("s", "{outside}/canary"), hard_link("h", "s"), file("h")], {"h": "written"}),
    "hard link to itself": ([file("a"), hard_link("a", "a")], {"a": "written"}),
    "hard link twice": ([file("a"), hard_link("b", "a"), hard_link("b", "./a")], {"b": "written"}),
    "hard link to an absolute name": ([file("a"), hard_link("b", "/a")], {"b": "written"}),
    "duplicate": ([file("a", b"first"), file("a", b"2nd")], {"a": "2nd"}),
    "duplicate of a hard link": ([file("a", b"1"), hard_link("b", "a"), file("a", b"2")], {"a": "2", "b": "1"}),
    "FIFO replaced": ([fifo("p"), file("p")], {"p": "written"}),
    "empty directory replaced": ([directory("d"), file("d")], {"d": "written"}),
    "file replaced by a directory": ([file("d"), directory("d"), file("d/x")], {"d/x": "written"}),
    "unlistable directory": ([directory("d", 0o000), file("d/x")], {"d/x": "written"}),
    "read-only directory": ([directory("d", 0o555), directory("d/e", 0o555), file("d/e/x")], {"d/e/x": "written"}),
    "missing parents": ([file("a/b/c/d")], {"a/b/c/d": "written"}),
    "many missing parents": ([file("n/" * 300 + "x")], {"n/" * 300 + "x": "written"}),
    "dots": ([file("././a/./x")], {"a/x": "written"}),
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", CONTAINED)
def test_it_lands_inside(name: str, form: int, tmp_path: Path, outside: Path) -> None:
    members, expected = CONTAINED[name]
    target = tmp_path / "target"
    target.mkdir()
    before = picture(outside)
    extract(pack(tmp_path / "a.tar", placed(members, outside), form=form), str(target))
    if name == "unlistable directory":
        assert (target / "d").stat().st_mode & 0o7777 == 0
        (target / "d").chmod(0o700)
    assert picture(outside) == before
    for path, contents in expected.items():
        inside = path.replace("{outside}", str(outside)).lstrip("/")
        assert read(target, inside) == contents


def read(root: Path, path: str) -> str:
    """Read a file whose path may be longer than the kernel accepts at once together with root's."""
    fd = os.open(root, os.O_PATH)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)) as opened:
            return opened.read()
    finally:
        os.close(fd)


def test_symlinks_that_were_there_before_do_not_lead_out(tmp_path: Path, outside: Path) -> None:
    target = tmp_path / "target"
    (target / "real").mkdir(parents=True)
    (target / "canary").symlink_to(outside / "canary")
    (target / "etc").symlink_to(outside / "etc")
    (target / "dir").symlink_to("/real")
    before = picture(outside)
    extract(pack(tmp_path / "a.tar", [file("canary"), file("dir/x")]), str(target))
    assert (target / "canary").read_text() == "written"
    assert (target / "real/x").read_text() == "written"
    with pytest.raises(ArchiveError, match="leads nowhere inside the tree"):
        extract(pack(tmp_path / "b.tar", [file("etc/passwd")]), str(target))
    assert picture(outside) == before


def test_a_directory_of_an_archive_replaces_a_symlink_to_one(tmp_path: Path) -> None:
    """As GNU tar does without --keep-directory-symlink; copying an overlay does otherwise."""
    target = tmp_path / "target"
    target.mkdir()
    extract(
        pack(tmp_path / "a.tar", [directory("real"), symlink("s", "real"), directory("s"), file("s/x")]), str(target)
    )
    assert not (target / "s").is_symlink()
    assert os.listdir(target / "real") == []


def test_a_directory_that_is_replaced_is_not_finished_twice(tmp_path: Path, outside: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    before = picture(outside)
    extract(pack(tmp_path / "a.tar", [directory("d", 0o700), symlink("d", str(outside))]), str(target))
    assert os.readlink(target / "d") == str(outside)
    assert picture(outside) == before


def test_a_symlink_that_changes_does_not_mislead_the_last_step(tmp_path: Path, outside: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    members = [directory("a"), directory("b/d", 0o711), symlink("s", "a"), directory("s/d", 0o700), symlink("s", "b")]
    with pytest.raises(ArchiveError, match="another program made a file of its path"):
        extract(pack(tmp_path / "a.tar", members), str(target))
    assert (target / "b/d").stat().st_mode & 0o777 != 0o700


def test_messages_have_no_control_characters(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    evil = "\x1b[2J\ninstalled without errors\u202e/.."
    with pytest.raises(ArchiveError) as caught:
        extract(pack(tmp_path / "a.tar", [file(evil)]), str(target))
    assert str(caught.value).isprintable()


def test_it_takes_a_descriptor_and_leaves_it_open(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
    try:
        done = extract(pack(tmp_path / "a.tar", [directory("."), file("x")]), fd)
        assert (done.entries, done.bytes) == (2, 7)
        assert os.listdir(f"/proc/self/fd/{fd}") == ["x"]
    finally:
        os.close(fd)


def test_no_descriptor_or_thread_stays_behind_a_failure(tmp_path: Path) -> None:
    import threading

    target = tmp_path / "target"
    target.mkdir()
    big = member("big", data=os.urandom(20 << 20))
    archive = pack(tmp_path / "a.tar", [file("../x"), big])
    before, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        with pytest.raises(DiskImageError):
            extract(archive, str(target))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


def test_progress_that_raises_stops_it(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    archive = pack(tmp_path / "a.tar", [member("big", data=os.urandom(5 << 20))])

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(archive, str(target), progress=stop)
