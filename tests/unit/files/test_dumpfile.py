# SPDX-License-Identifier: MIT
"""Dumps built record by record: what comes out of them."""

from __future__ import annotations

import io
import os
import stat
import struct
from pathlib import Path

import pytest

from pydiskimg.files.acl import AclNames, encode
from pydiskimg.files.dump import Restored, attributes, open_dump, restore_dump
from pydiskimg.files.dump.layout import TP_BSIZE
from tests.fixtures.dumps import (
    DATE,
    Dir,
    File,
    Trickle,
    dump,
    refused,
    restored,
    small_tree,
    xattr_block,
)

REG, LNK = stat.S_IFREG, stat.S_IFLNK


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("method", ["", "zlib", "bzlib"])
def test_everything_comes_out(tmp_path: Path, order: str, method: str) -> None:
    done = restored(dump(small_tree(), order=order, method=method), tmp_path)
    assert done == Restored(directories=2, files=5, links=1, bytes=6 + 701 * TP_BSIZE + 4)
    assert sorted(os.listdir(os.fsencode(tmp_path))) == [b"etc", b"hello", b"link", b"sparse"]
    assert sorted(os.listdir(os.fsencode(tmp_path / "etc"))) == [b"empty", b"hello-too", b"\xff\n"]
    assert (tmp_path / "hello").read_bytes() == b"hello\n"
    assert (tmp_path / "hello").samefile(tmp_path / "etc/hello-too")
    assert (tmp_path / "hello").stat().st_mtime_ns == (DATE - 12) * 10**9 + 250_000_000
    assert (tmp_path / "sparse").read_bytes() == bytes(700 * TP_BSIZE) + b"end" + bytes(1021) + b"more"
    assert (tmp_path / "sparse").stat().st_blocks * 512 < 64 << 10
    assert os.readlink(tmp_path / "link") == "etc/empty"
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o755
    assert os.lstat(os.fsencode(tmp_path / "etc") + b"/\xff\n").st_mode == stat.S_IFIFO | 0o640


def test_what_a_dump_says_of_itself() -> None:
    with open_dump(io.BytesIO(dump(small_tree())), "a.dump") as reader:
        found = (reader.label, reader.device, reader.filesystem, reader.host, reader.date)
    assert found == ("label", "/dev/sda1", "/", "host", DATE)


@pytest.mark.parametrize("method", ["", "zlib"])
@pytest.mark.parametrize("step", [1, 1000, 1025])
def test_short_reads(tmp_path: Path, method: str, step: int) -> None:
    with open_dump(Trickle(dump(small_tree(), method=method), step), "a.dump") as reader:
        assert restore_dump(reader, str(tmp_path)).files == 5


def test_from_a_descriptor_with_progress(tmp_path: Path) -> None:
    data = dump(small_tree())
    (tmp_path / "a.dump").write_bytes(data)
    (tmp_path / "target").mkdir()
    seen: list[tuple[int, int]] = []
    fd = os.open(tmp_path / "a.dump", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDONLY)
    try:
        with open_dump(fd, "a.dump") as reader:
            restore_dump(reader, target, progress=lambda done, total: seen.append((done, total)))
        assert os.fstat(target).st_nlink == 3
    finally:
        os.close(fd)
        os.close(target)
    assert seen
    assert seen == sorted(seen)
    assert seen[-1] == (len(data), 0)


def test_a_large_directory_and_a_deep_one(tmp_path: Path) -> None:
    tree: dict[int, File | Dir] = {2: Dir([(b"d" * 255, 10)])}
    many = [(b"%d-" % number + b"n" * 200, number) for number in range(1000, 2000)]
    for number in range(10, 60):
        tree[number] = Dir([(b"d" * 255, number + 1)], parent=2 if number == 10 else number - 1)
    tree[60] = Dir(many, parent=59)
    tree.update({number: File(data=b"%d" % number) for _, number in many})
    assert restored(dump(tree, method="zlib"), tmp_path).files == 1000
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(51):  # the path is longer than one that the kernel takes
            os.chdir(b"d" * 255)
        assert sorted(os.listdir(b".")) == sorted(name for name, _ in many)
        assert Path(os.fsdecode(many[7][0])).read_bytes() == b"1007"
    finally:
        os.chdir(before)


def test_attributes(tmp_path: Path) -> None:
    long = b"v" * 1500
    tree = small_tree()
    tree[12] = File(
        data=b"hello\n",
        nlink=2,
        attributes=[xattr_block([(1, b"in", b"inode")], in_inode=True), xattr_block([(1, b"block", long)])],
    )
    tree[11] = Dir([(b"hello-too", 12), (b"empty", 13), (b"p", 16)], attributes=[xattr_block([(1, b"dir", b"")])])
    restored(dump(tree), tmp_path)
    assert os.getxattr(tmp_path / "hello", "user.in") == b"inode"
    assert os.getxattr(tmp_path / "hello", "user.block") == long
    assert os.getxattr(tmp_path / "etc", "user.dir") == b""


def test_attributes_that_the_file_system_cannot_hold_are_left_out(tmp_path: Path) -> None:
    tree = small_tree()
    tree[12] = File(data=b"hello\n", nlink=2, attributes=[xattr_block([(7, b"nfs4_acl", b"1"), (1, b"a", b"kept")])])
    link = tree[15]
    assert isinstance(link, File)
    link.attributes = [xattr_block([(1, b"b", b"2")])]
    done = restored(dump(tree), tmp_path)
    assert (done.attributes_left_out.count, done.attributes_left_out.first) == (2, "system.nfs4_acl of /hello")
    assert os.getxattr(tmp_path / "hello", "user.a") == b"kept"


def test_attributes_of_what_its_owner_may_not_write(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    user = os.geteuid()
    if user == 0:
        os.chown(fd, 65534, 0)
        os.seteuid(65534)
    try:
        block = xattr_block([(1, b"a", b"value")], in_inode=True)
        tree: dict[int, File | Dir] = {2: Dir([(b"f", 12)]), 12: File(mode=REG | 0o444, data=b"x", attributes=[block])}
        with open_dump(io.BytesIO(dump(tree)), "a.dump") as reader:
            restore_dump(reader, fd)
    finally:
        os.seteuid(user)
        os.close(fd)
    assert os.getxattr(tmp_path / "f", "user.a") == b"value"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o444


def test_acls_get_an_id_everywhere() -> None:
    disk = (
        struct.pack("<I", 1) + struct.pack("<HH", 1, 7) + struct.pack("<HHI", 2, 6, 71000) + struct.pack("<HH", 16, 7)
    )
    xattrs, acls = attributes.decode(xattr_block([(2, b"", disk)]))
    found = {name: encode(entries, AclNames(lambda _path, _limit: b"").number) for name, entries in acls.items()}
    expected = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry) for entry in ((1, 7, 0xFFFFFFFF), (2, 6, 71000), (16, 7, 0xFFFFFFFF))
    )
    assert (xattrs, found) == ({}, {b"system.posix_acl_access": expected})


@pytest.mark.parametrize("size", [0, 5, 60, 100])
def test_inline_data_is_taken_from_the_inode(tmp_path: Path, size: int) -> None:
    """dump(8) writes a hole for it; its parts are i_block and the attribute system.data."""
    data = bytes(range(1, 101))[:size]
    more = [xattr_block([(7, b"data", data[60:])], in_inode=True)] if size > 60 else []
    tree: dict[int, File | Dir] = {
        2: Dir([(b"inline", 12), (b"link", 13)]),
        12: File(size=size, holes=frozenset({0}), flags=0x10000000, block=data[:60], attributes=more),
        13: File(
            mode=LNK | 0o777,
            size=80,
            holes=frozenset({0}),
            flags=0x10000000,
            block=b"t" * 60,
            attributes=[xattr_block([(7, b"data", b"u" * 20)], in_inode=True)],
        ),
    }
    restored(dump(tree), tmp_path)
    assert (tmp_path / "inline").read_bytes() == data
    assert os.readlink(tmp_path / "link") == "t" * 60 + "u" * 20


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_umask_does_not_count(tmp_path: Path, umask: int) -> None:
    modes = [0o000, 0o200, 0o444, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o1644]
    names = [(b"%o" % mode, number) for number, mode in enumerate(modes, 12)]
    tree: dict[int, File | Dir] = {2: Dir(names)}
    tree.update({number: File(mode=REG | mode, data=b"x") for number, mode in enumerate(modes, 12)})
    before = os.umask(umask)
    try:
        restored(dump(tree), tmp_path)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.lstat(os.fsencode(tmp_path) + b"/" + name).st_mode) for name, _ in names] == modes


def test_inline_data_that_is_not_all_there(tmp_path: Path) -> None:
    tree: dict[int, File | Dir] = {
        2: Dir([(b"inline", 12)]),
        12: File(size=100, holes=frozenset({0}), flags=0x10000000),
    }
    assert "60 of its 100 bytes are in the inode" in refused(dump(tree), tmp_path)


def test_own_files_and_excluded_names(tmp_path: Path) -> None:
    """Quota and orphan files have no name; names whose inodes the map does not list were excluded by dump's options."""
    tree: dict[int, File | Dir] = {
        2: Dir([(b"excluded", 99), (b"kept", 12)]),
        3: File(mode=REG | 0o600, data=b"quota", uid=0),
        12: File(data=b"x"),
    }
    done = restored(dump(tree), tmp_path)
    assert (done.unnamed, done.left_out, done.files) == (1, 1, 1)
    assert os.listdir(tmp_path) == ["kept"]


def test_what_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    tree: dict[int, File | Dir] = {2: Dir([(b"lost+found", 11), (b"f", 12)]), 11: Dir(), 12: File()}
    restored(dump(tree), tmp_path)
    assert "already exists" in refused(dump(tree), tmp_path)


def test_a_symlink_in_a_directorys_place_is_not_followed(tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "etc").symlink_to(outside)
    assert "already exists" in refused(dump(small_tree()), target)
    assert not list(outside.iterdir())
