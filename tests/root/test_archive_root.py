# SPDX-License-Identifier: MIT
"""Owners, devices, capabilities, ACLs and every namespace of extended attributes, with GNU tar as the judge."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, NoSpaceError, StorageError
from pydiskimg.files.tar import extract
from tests.archive_trees import differences, odd_tree, picture, sparse_file, sparse_tree
from tests.fixtures.privileged_files import make_capable, set_acls, set_attributes, set_owners
from tests.fixtures.programs import Tool, run
from tests.fixtures.reachable import reachable_by_all

pytestmark = [pytest.mark.root, pytest.mark.oracle]

EVERYTHING = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")


def privileged_tree(tool: Tool, root: Path) -> None:
    """odd_tree() and what only root can make."""
    odd_tree(root)
    sparse_tree(root / "sparse")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 0))
    os.mknod(root / "large-numbers", stat.S_IFBLK | 0o660, os.makedev(4095, (1 << 20) - 1))
    os.chmod(root / "null", 0o666)
    os.chmod(root / "disk", 0o4660)
    set_owners(root, {"null": (0, 5), "empty": (4_000_000_000,) * 2})
    set_attributes(
        root,
        ("text", "user.with=equals%and%3Dpercent", b"a=b\n"),
        ("text", "user.grün-日本", "grün".encode()),
        ("text", "user.long", b"x" * 2000),
        ("read-only", "user.on-read-only", b"1"),
        ("directory", "trusted.overlay.opaque", b"y"),
        ("null", "trusted.on-device", b"6"),
        ("text", "security.test", b"7\0"),
    )
    make_capable(tool, root)
    set_acls(tool, root, file="text", device="null")
    run(tool("setfacl"), "-m", "u:71000:x", root / "capable")
    (root / "with-default/below").mkdir()
    run(tool("setfacl"), "-b", root / "with-default/below")
    (root / "with-default/below/plain").write_text("plain")


def test_names_in_acls_are_the_trees_own(tool: Tool, tmp_path: Path) -> None:
    """GNU tar writes ACLs with names; the number is that of the tree's own files, not of the host that unpacks."""
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    (tree / "etc").mkdir(parents=True)
    ours.mkdir()
    (tree / "etc/group").write_text("root:x:0:\nadm:x:4242:\nadm:x:4:\n")
    (tree / "etc/passwd").write_text("daemon:x:4343:4343::/:/bin/sh\n")
    (tree / "a-journal").mkdir()
    (tree / "a-file").write_text("")
    run(tool("setfacl"), "-m", "g:adm:rx,d:g:adm:rx", tree / "a-journal")
    run(tool("setfacl"), "-m", "u:daemon:rw", tree / "a-file")
    with_names = EVERYTHING[1:]  # GNU tar 1.34 writes them with --numeric-owner too
    run(tool("tar"), "-cf", tmp_path / "a.tar", *with_names, "--sort=name", "--format=pax", "-C", tree, ".")
    assert b"adm" in (tmp_path / "a.tar").read_bytes()
    extract(tmp_path / "a.tar", str(ours))
    shown = subprocess.run(
        [tool("getfacl"), "-cn", ours / "a-journal", ours / "a-file"], check=True, capture_output=True, text=True
    ).stdout
    assert "group:4242:r-x" in shown
    assert "default:group:4242:r-x" in shown
    assert "user:4343:rw-" in shown
    (tree / "etc/group").unlink()
    run(tool("tar"), "-cf", tmp_path / "b.tar", *with_names, "--format=pax", "-C", tree, ".")
    (ours / "etc/group").unlink()
    with pytest.raises(ArchiveError, match=r"its ACL names the group 'adm' without a number, and the tree's etc/group"):
        extract(tmp_path / "b.tar", str(ours))


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_everything_comes_out_as_it_was(tool: Tool, tmp_path: Path, umask: int) -> None:
    tree, ours, theirs = tmp_path / "tree", tmp_path / "ours", tmp_path / "theirs"
    for path in (tree, ours, theirs):
        path.mkdir()
    privileged_tree(tool, tree)
    archive = tmp_path / "a.tar.gz"
    run(tool("tar"), "-czf", archive, *EVERYTHING, "--format=pax", "--sparse", "-C", tree, ".")
    before = os.umask(umask)
    try:
        extract(archive, str(ours))
        run(tool("tar"), "-xpf", archive, *EVERYTHING, "-C", theirs)
    finally:
        os.umask(before)
    assert differences(ours, tree) == []
    # GNU tar 1.34 leaves the ACL that was inherited on what has none.
    assert [line for line in differences(ours, theirs) if "with-default/" not in line] == []


def test_bsdtar_packs_attributes_and_acls(tool: Tool, tmp_path: Path) -> None:
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    tree.mkdir()
    ours.mkdir()
    privileged_tree(tool, tree)
    archive = tmp_path / "a.tar"
    run(tool("bsdtar"), "-cf", archive, "--acls", "--xattrs", "--numeric-owner", "--format=pax", "-C", tree, ".")
    extract(archive, str(ours))
    assert [line for line in differences(ours, tree) if "before" not in line] == []


def test_it_replaces_what_is_there_and_keeps_directories(tool: Tool, tmp_path: Path) -> None:
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    tree.mkdir()
    ours.mkdir()
    privileged_tree(tool, tree)
    archive = tmp_path / "a.tar"
    run(tool("tar"), "-cf", archive, *EVERYTHING, "--format=pax", "--sparse", "-C", tree, ".")
    extract(archive, str(ours))
    first = picture(ours)
    extract(archive, str(ours))
    assert picture(ours) == first
    assert differences(ours, tree) == []


def test_extraction_as_another_user_says_what_it_needs(tool: Tool, tmp_path: Path) -> None:
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    tree.mkdir()
    ours.mkdir()
    (tree / "file").write_text("root's")
    run(tool("tar"), "-cf", tmp_path / "a.tar", "-C", tree, "file")
    os.chown(ours, 65534, 65534)
    reachable_by_all(ours)
    script = (
        "import os, sys\nfrom pydiskimg.files.tar import extract\nos.setgid(65534); os.setuid(65534)\n"
        "try: extract(sys.argv[1], sys.argv[2])\nexcept OSError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.tar"), str(ours)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == (
        f"{tmp_path}/a.tar: entry file: cannot be unpacked; restoring owners, devices and trusted attributes needs "
        "root: Operation not permitted\n"
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB and few inodes."""
    directory = tmp_path / "small"
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=200", "tmpfs", directory)
    yield directory
    run("umount", directory)


def test_a_full_file_system_is_named(tool: Tool, tmp_path: Path, small: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(3 << 20))
    run(tool("tar"), "-czf", tmp_path / "a.tar.gz", "-C", tree, ".")
    with pytest.raises(NoSpaceError, match=r"a\.tar\.gz: entry \./big: cannot write .*: No space left") as caught:
        extract(tmp_path / "a.tar.gz", str(small))
    assert caught.value.device == small.stat().st_dev


def test_no_inode_left_is_named(tool: Tool, tmp_path: Path, small: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for index in range(300):
        (tree / f"{index:03}").write_text("")
    run(tool("tar"), "-cf", tmp_path / "a.tar", "--sort=name", "-C", tree, ".")
    with pytest.raises(NoSpaceError, match=r"a\.tar: entry \./\d+: cannot be unpacked: No space left") as caught:
        extract(tmp_path / "a.tar", str(small))
    assert caught.value.device == small.stat().st_dev


def test_no_inode_left_for_a_directory_that_is_missing(tmp_path: Path, small: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for index in range(60):
            archive.addfile(tarfile.TarInfo(f"{index}/a/b/c/d/file"))
    with pytest.raises(
        NoSpaceError, match=r"a\.tar: entry \d+/a/b/c/d/file: cannot be unpacked: No space left"
    ) as caught:
        extract(tmp_path / "a.tar", str(small))
    assert caught.value.device == small.stat().st_dev


@pytest.fixture
def without_attributes(tmp_path: Path) -> Iterator[Path]:
    """A file system that has no extended attributes."""
    directory = tmp_path / "ramfs"
    directory.mkdir()
    run("mount", "-t", "ramfs", "ramfs", directory)
    yield directory
    run("umount", directory)


@pytest.mark.parametrize("name", ["security.capability", "security.test", "trusted.a", "system.posix_acl_access"])
def test_what_protects_the_system_is_never_left_out(
    tool: Tool, tmp_path: Path, without_attributes: Path, name: str
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_capable(tool, tree)
    os.setxattr(tree / "capable", "security.test", b"1")
    os.setxattr(tree / "capable", "trusted.a", b"1")
    run(tool("setfacl"), "-m", "u:71000:rw", tree / "capable")
    only = ["--acls"] if "acl" in name else ["--xattrs", f"--xattrs-include={name}"]
    run(tool("tar"), "-cf", tmp_path / "a.tar", *only, "--format=pax", "-C", tree, ".")
    sentence = rf"a\.tar: entry \./capable: cannot set the attribute {name} of \d+ bytes: Operation not supported"
    with pytest.raises(StorageError, match=sentence):
        extract(tmp_path / "a.tar", str(without_attributes))


def test_user_attributes_are_left_out_where_there_are_none(
    tool: Tool, tmp_path: Path, without_attributes: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("contents")
    os.setxattr(tree / "file", "user.a", b"1")
    run(tool("tar"), "-cf", tmp_path / "a.tar", "--xattrs", "--format=pax", "-C", tree, ".")
    done = extract(tmp_path / "a.tar", str(without_attributes))
    assert (done.left_out.count, done.left_out.first) == (1, "user.a of ./file")
    assert (without_attributes / "file").read_text() == "contents"


def test_attributes_larger_than_the_file_system_keeps_are_an_error(tool: Tool, tmp_path: Path) -> None:
    image, point = tmp_path / "image", tmp_path / "point"
    point.mkdir()
    image.touch()
    os.truncate(image, 8 << 20)
    run(tool("mke2fs"), "-q", "-b", "1024", image)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("file")
        member.pax_headers = {"SCHILY.xattr.user.big": "x" * 2000}
        archive.addfile(member)
    run(tool("mount"), "-o", "loop", image, point)
    try:
        with pytest.raises(
            ArchiveError, match=r"a\.tar: entry file: the attribute user\.big of 2000 bytes does not fit"
        ):
            extract(tmp_path / "a.tar", str(point))
    finally:
        run(tool("umount"), point)


def test_holes_are_kept(tool: Tool, tmp_path: Path) -> None:
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    tree.mkdir()
    ours.mkdir()
    sparse_file(tree / "huge", 1 << 40, [(0, 4096), (1 << 39, 4096)])
    run(tool("tar"), "-cSf", tmp_path / "a.tar", "-C", tree, ".")
    extract(tmp_path / "a.tar", str(ours))
    status = os.stat(ours / "huge")
    assert (status.st_size, status.st_blocks) == (1 << 40, os.stat(tree / "huge").st_blocks)


def test_the_locale_of_the_process_stays(tool: Tool, tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.uselocale.restype = ctypes.c_void_p
    libc.uselocale.argtypes = [ctypes.c_void_p]
    before = libc.uselocale(None)
    run(tool("tar"), "-cf", tmp_path / "a.tar", "-C", tmp_path, "--exclude=*", "--no-recursion", ".")
    (tmp_path / "ours").mkdir()
    (tmp_path / "file").write_text("")
    run(tool("tar"), "-cf", tmp_path / "a.tar", "-C", tmp_path, "file")
    extract(tmp_path / "a.tar", str(tmp_path / "ours"))
    assert libc.uselocale(None) == before
