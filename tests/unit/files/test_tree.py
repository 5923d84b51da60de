# SPDX-License-Identifier: MIT
"""MountedTree over plain directories, most of them hostile."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import MountedTree, open_mounted_tree
from pydiskimg.files.tree import OutsideTreeError, Tree

SECRET = b"the host's own\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The directory with the guest's root, and files that must not be reachable from the guest."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_bytes(SECRET)
    (tmp_path / "guest/etc").mkdir(parents=True)
    (tmp_path / "guest/etc/shadow").write_bytes(b"the guest's\n")
    return tmp_path


@pytest.fixture
def root(host: Path) -> Path:
    return host / "guest"


@pytest.fixture
def tree(host: Path, root: Path) -> Iterator[MountedTree]:
    with open_mounted_tree(root) as opened:
        yield opened
    assert (host / "etc/shadow").read_bytes() == SECRET
    assert sorted(os.listdir(host)) == ["etc", "guest"]
    assert os.listdir(host / "etc") == ["shadow"]


def test_is_a_tree(tree: MountedTree) -> None:
    as_tree: Tree = tree
    as_tree.write("/etc/hostname", b"guest\n")
    assert as_tree.read("/etc/hostname") == b"guest\n"
    assert list(as_tree.list("/etc")) == ["hostname", "shadow"]


def test_where_a_symlink_leads_is_read_and_not_followed(tree: MountedTree, root: Path) -> None:
    (root / "link").symlink_to("/../../etc/shadow")
    assert tree.readlink("/../link") == "/../../etc/shadow"
    for path, number in (("/etc/shadow", errno.EINVAL), ("/none", errno.ENOENT)):
        with pytest.raises(StorageError) as caught:
            tree.readlink(path)
        assert caught.value.errno == number


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("etc/passwd", "../../../../etc/shadow"),
        ("etc/passwd", "/etc/shadow"),
        ("etc/passwd", "/../../etc/shadow"),
        ("etc/passwd", "shadow"),
        ("etc/passwd", "/etc/../../../etc/./shadow"),
    ],
)
def test_symlinks_end_inside(tree: MountedTree, root: Path, link: str, target: str) -> None:
    (root / link).symlink_to(target)
    assert tree.read("/etc/passwd") == b"the guest's\n"
    tree.write("/etc/passwd", b"written")
    assert (root / "etc/shadow").read_bytes() == b"written"
    tree.replace("/etc/passwd", b"replaced")
    assert (root / "etc/shadow").read_bytes() == b"replaced"
    assert (root / link).is_symlink()
    assert stat.S_ISREG(tree.stat("/etc/passwd").st_mode)
    assert stat.S_ISLNK(tree.stat("/etc/passwd", follow_symlinks=False).st_mode)


def test_directories_that_are_symlinks(tree: MountedTree, root: Path) -> None:
    (root / "self").symlink_to("/")
    (root / "up").symlink_to("../../../..")
    assert tree.read("/self/up/self/etc/shadow") == b"the guest's\n"
    tree.write("/up/up/etc/new", b"new")
    assert (root / "etc/new").read_bytes() == b"new"
    assert tree.list("/up") == ["etc", "self", "up"]
    assert [path for path, _ in tree.walk("/self")] == [
        f"/self/{name}" for name in ("etc", "etc/new", "etc/shadow", "self", "up")
    ]


def test_path_with_dots_stays_inside(tree: MountedTree) -> None:
    assert tree.read("/../../etc/shadow") == b"the guest's\n"
    with pytest.raises(FileNotFoundError):
        tree.read("/../guest/etc/shadow")


def test_dangling_symlink_is_made_where_it_points(tree: MountedTree, root: Path) -> None:
    (root / "run").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/first")
    (root / "run/first").symlink_to("/run/second")
    tree.write("/etc/resolv.conf", b"nameserver ::1\n")
    assert (root / "run/second").read_bytes() == b"nameserver ::1\n"
    (root / "etc/lost").symlink_to("/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="/etc/lost"):
        tree.write("/etc/lost", b"")
    assert not tree.exists("/etc/lost")


OPERATIONS: dict[str, Callable[[MountedTree, str], object]] = {
    "read": lambda tree, path: tree.read(path),
    "write": lambda tree, path: tree.write(path, b"x"),
    "replace": lambda tree, path: tree.replace(path, b"x"),
    "list": lambda tree, path: tree.list(path),
    "walk": lambda tree, path: list(tree.walk(path)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_loops_of_symlinks(tree: MountedTree, root: Path, operation: str) -> None:
    (root / "a").symlink_to("/b")
    (root / "b").symlink_to("a")
    for path in ("/a", "/a/x"):
        with pytest.raises(OutsideTreeError, match=f"^{path} in the guest's tree"):
            OPERATIONS[operation](tree, path)
        assert not tree.exists(path)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "file"])
def test_wrong_kinds_are_refused_without_waiting(tree: MountedTree, root: Path, operation: str, kind: str) -> None:
    place = root / "etc/thing"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        os.mknod(place, stat.S_IFSOCK | 0o600)
    elif kind == "directory":
        place.mkdir()
    else:
        place.touch()
    if (kind == "directory") == (operation in ("list", "walk")) and kind in ("directory", "file"):
        OPERATIONS[operation](tree, "/etc/thing")
        return
    with pytest.raises(StorageError, match=r"it is not a (regular file|directory)$"):
        OPERATIONS[operation](tree, "/etc/thing")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/nul\0byte", StorageError),
        ("/\ud800", StorageError),
        ("/" + "x" * 300, StorageError),
        ("/" + "x/" * 3000, StorageError),
        ("/missing/file", FileNotFoundError),
        ("/etc/shadow/file", FileNotFoundError),
        ("etc/shadow", ValueError),
        ("", ValueError),
    ],
)
def test_impossible_paths(tree: MountedTree, operation: str, path: str, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        OPERATIONS[operation](tree, path)


def test_magic_links_are_not_followed() -> None:
    with open_mounted_tree("/proc/self") as tree:
        for path in ("/root/etc/passwd", "/cwd", "/exe", "/fd/0"):
            with pytest.raises(OutsideTreeError):
                tree.read(path)
            assert not tree.exists(path)
        assert stat.S_ISLNK(tree.stat("/exe", follow_symlinks=False).st_mode)


def test_limit(tree: MountedTree, root: Path) -> None:
    (root / "big").write_bytes(b"12345")
    assert tree.read("/big", limit=5) == b"12345"
    with pytest.raises(StorageError, match=r"/big in the guest's tree .* is larger than the 4 bytes") as caught:
        tree.read("/big", limit=4)
    assert caught.value.errno == errno.EFBIG
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StorageError):
        tree.read("/sparse")


def test_write_keeps_the_file_and_new_ones_have_the_mode(tree: MountedTree, root: Path) -> None:
    old = root / "etc/shadow"
    old.chmod(0o640)
    before = old.stat()
    tree.write("/etc/shadow", b"short")
    after = old.stat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, 5)
    mask = os.umask(0o077)
    try:
        tree.write("/etc/new", b"new")
        tree.write("/etc/script", b"#!", mode=0o755)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((root / "etc/new").stat().st_mode) == 0o644
    assert stat.S_IMODE((root / "etc/script").stat().st_mode) == 0o755
    assert sorted(os.listdir(root / "etc")) == ["new", "script", "shadow"]


def test_hard_links_keep_their_contents(tree: MountedTree, root: Path) -> None:
    os.link(root / "etc/shadow", root / "copy")
    tree.write("/etc/shadow", b"new")
    assert (root / "copy").read_bytes() == b"the guest's\n"
    assert (root / "etc/shadow").read_bytes() == b"new"


def test_replace_is_one_step_with_mode_and_attributes(tree: MountedTree, root: Path) -> None:
    old = root / "etc/shadow"
    old.chmod(0o4751)
    os.setxattr(old, "user.note", b"kept")
    with old.open("rb") as reader:
        tree.replace("/etc/shadow", b"new")
        assert reader.read() == b"the guest's\n"
    assert (old.read_bytes(), stat.S_IMODE(old.stat().st_mode)) == (b"new", 0o4751)
    assert os.getxattr(old, "user.note") == b"kept"
    assert os.listdir(root / "etc") == ["shadow"]
    with pytest.raises(FileNotFoundError):
        tree.replace("/etc/missing", b"")


def test_failed_replace_leaves_the_old_file(tree: MountedTree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for function in ("rename", "fsync", "fchown"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(StorageError, match=r"/etc/shadow .*: cannot be replaced: No space left"):
                tree.replace("/etc/shadow", b"new")
        assert (root / "etc/shadow").read_bytes() == b"the guest's\n"
        assert os.listdir(root / "etc") == ["shadow"]


def test_file_systems_without_nameless_files(tree: MountedTree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", without)
    tree.replace("/etc/shadow", b"new")
    tree.write("/etc/other", b"other")
    assert {name: (root / "etc" / name).read_bytes() for name in os.listdir(root / "etc")} == {
        "shadow": b"new",
        "other": b"other",
    }


def test_names_that_are_not_utf8(tree: MountedTree, root: Path) -> None:
    name = b"\xff\xfe name"
    with open(os.path.join(os.fsencode(root), name), "wb") as file:
        file.write(b"odd")
    (listed,) = set(tree.list("/")) - {"etc"}
    assert listed.encode("utf-8", "surrogateescape") == name
    assert tree.read(f"/{listed}") == b"odd"
    assert f"/{listed}" in [path for path, _ in tree.walk()]
    with pytest.raises(StorageError) as caught:
        tree.list(f"/{listed}")
    assert str(caught.value).isprintable()


def test_walk_is_sorted_and_does_not_follow(tree: MountedTree, root: Path) -> None:
    (root / "a-b").touch()
    (root / "a").mkdir()
    (root / "a/link").symlink_to("/etc")
    (root / "a/z").mkdir()
    (root / "a/z/file").write_bytes(b"123")
    found = dict(tree.walk())
    assert list(found) == ["/a", "/a/link", "/a/z", "/a/z/file", "/a-b", "/etc", "/etc/shadow"]
    assert found["/a/z/file"].st_size == 3
    assert stat.S_ISLNK(found["/a/link"].st_mode)


def nest(top: Path, name: str, levels: int) -> None:
    """Make nested directories, deeper than a path can be long."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)


def test_walk_of_many_and_of_deep(tree: MountedTree, root: Path) -> None:
    (root / "many").mkdir()
    for number in range(2500):
        (root / f"many/{number:04}").touch()
    assert len(list(tree.walk("/many"))) == 2500
    (root / "deep").mkdir()
    nest(root / "deep", "d", 600)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)  # the depth of a tree must not become depth of calls
    try:
        found = list(tree.walk("/deep"))
    finally:
        sys.setrecursionlimit(limit)
    assert len(found) == 600
    assert found[-1][0] == "/deep" + "/d" * 600


def test_walk_beyond_what_a_path_can_say(tree: MountedTree, root: Path) -> None:
    (root / "long").mkdir()
    nest(root / "long", "x" * 250, 20)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StorageError, match="File name too long"):
        list(tree.walk())
    assert len(os.listdir("/proc/self/fd")) == before


def test_walk_while_things_change(tree: MountedTree, root: Path) -> None:
    for number in range(50):
        (root / f"{number:02}").mkdir()
        (root / f"{number:02}/file").touch()
    seen = []
    for path, _ in tree.walk():
        seen.append(path)
        if path == "/10":  # what comes later was listed already
            os.unlink(root / "20/file")
            (root / "20").rmdir()
            os.unlink(root / "30/file")
            (root / "30").rmdir()
            (root / "30").symlink_to("/etc")
    assert "/29/file" in seen
    assert not [path for path in seen if path.startswith(("/20/", "/30/"))]


def test_file_swapped_for_a_symlink_while_it_is_used(tree: MountedTree, root: Path, host: Path) -> None:
    """A process in the guest swaps the file at path as fast as it can: nothing outside is read, written or made."""
    stop = threading.Event()
    target = root / "etc/file"

    def swap() -> None:
        os.mkfifo(root / "fifo")
        os.symlink("../../etc/shadow", root / "link")
        os.symlink("/proc/self/root/etc/passwd", root / "magic")
        (root / "plain").write_bytes(b"plain")
        while not stop.is_set():
            for name in ("fifo", "link", "magic", "plain"):
                os.link(root / name, root / "next", follow_symlinks=False)
                os.rename(root / "next", target)
                if os.path.lexists(root / "next"):  # both names are one file already
                    os.unlink(root / "next")

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: dict[str, int] = {}
    try:
        for round_number in range(3000):
            operation = ("read", "write", "replace")[round_number % 3]
            try:
                value = OPERATIONS[operation](tree, "/etc/file")
                assert value in (None, b"plain", b"x", b"the guest's\n", b"")
                outcome = "done"
            except (FileNotFoundError, StorageError) as error:
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        stop.set()
        thread.join()
    assert outcomes.get("done"), outcomes
    assert outcomes.get("StorageError"), outcomes


def test_close_twice_and_missing_root(tmp_path: Path) -> None:
    tree = open_mounted_tree(tmp_path)
    tree.close()
    tree.close()
    for path in (tmp_path / "missing", Path("/etc/passwd")):
        with pytest.raises(StorageError, match=str(path)):
            open_mounted_tree(path)


def test_a_directory_is_made_with_its_mode_and_nothing_outside(tree: MountedTree, root: Path) -> None:
    (root / "link").symlink_to("/../..")
    old = os.umask(0o077)
    try:
        tree.make_directory("/link/etc/new", mode=0o751)
    finally:
        os.umask(old)
    assert (root / "etc/new").stat().st_mode & 0o7777 == 0o751
    with pytest.raises(FileExistsError, match=r"^/etc/new in the guest's tree .*: a file of this name already exists$"):
        tree.make_directory("/etc/new")
    with pytest.raises(FileNotFoundError):
        tree.make_directory("/missing/new")


def test_a_name_is_taken_away_and_not_what_it_leads_to(tree: MountedTree, root: Path) -> None:
    (root / "etc/link").symlink_to("shadow")
    os.mkfifo(root / "etc/fifo")
    tree.remove("/etc/link")
    tree.remove("/etc/fifo")
    assert os.listdir(root / "etc") == ["shadow"]
    with pytest.raises(FileNotFoundError):
        tree.remove("/etc/link")
    with pytest.raises(StorageError, match="it is a directory"):
        tree.remove("/etc")
    with pytest.raises(StorageError, match="names a directory"):
        tree.remove("/")


def test_a_symlink_is_made_and_never_over_anything(tree: MountedTree, root: Path) -> None:
    tree.symlink("/etc/link", "/etc/shadow")
    assert (root / "etc/link").readlink() == Path("/etc/shadow")
    assert tree.read("/etc/link") == b"the guest's\n"
    with pytest.raises(FileExistsError):
        tree.symlink("/etc/shadow", "/elsewhere")


def test_a_new_file_gets_attributes_and_an_old_one_keeps_its_own(tree: MountedTree) -> None:
    tree.write("/etc/new", b"", attributes={"user.kind": b"first"})
    tree.write("/etc/new", b"more", attributes={"user.kind": b"second"})
    assert tree.attribute("/etc/new", "user.kind") == b"first"
    assert tree.attribute("/etc/new", "user.other") is None
    tree.make_directory("/etc/dir", attributes={"user.kind": b"dir"})
    assert tree.attribute("/etc/dir", "user.kind") == b"dir"
