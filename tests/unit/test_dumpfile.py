# SPDX-License-Identifier: MIT
"""Dumps built record by record: what comes out, and what is refused."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.dumpfile import Restored, attributes, open_dump, restore_dump
from pydiskimg.dumpfile.layout import (
    DR_EXTATTRIBUTES,
    DR_METAONLY,
    FS_UFS2_MAGIC,
    OFS_MAGIC,
    SPCL,
    TP_BSIZE,
    TS_ADDR,
    TS_BITS,
    TS_CLRI,
    TS_END,
    TS_INODE,
    TS_TAPE,
    Spcl,
)
from pydiskimg.dumpfile.runs import Run, runs
from pydiskimg.errors import InvalidImageError, StorageError, UnsupportedImageError
from tests.fixtures.dumps import (
    DATE,
    EMPTY,
    Dir,
    File,
    built,
    directory_bytes,
    dump,
    summed,
    xattr_block,
)
from tests.fixtures.limits import assert_sentence, limits

REG, LNK = stat.S_IFREG, stat.S_IFLNK


class Trickle:
    """A stream that gives few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._step))


def restored(data: bytes, target: Path) -> Restored:
    with open_dump(io.BytesIO(data), "a.dump") as reader:
        return restore_dump(reader, str(target))


def refused(data: bytes, target: Path) -> str:
    with pytest.raises(InvalidImageError) as caught, limits():
        restored(data, target)
    assert_sentence(str(caught.value))
    assert str(caught.value).startswith("a.dump: ")
    return str(caught.value)


def small_tree() -> dict[int, File | Dir]:
    sparse = bytes(700 * TP_BSIZE) + b"end" + bytes(1021) + b"more"
    return {
        2: Dir([(b"etc", 11), (b"hello", 12), (b"sparse", 14), (b"link", 15)]),
        11: Dir([(b"hello-too", 12), (b"empty", 13), (b"\xff\n", 16)]),
        12: File(data=b"hello\n", nlink=2),
        13: File(),
        14: File(data=sparse, holes=frozenset(range(700))),
        15: File(mode=LNK | 0o777, data=b"etc/empty"),
        16: File(mode=stat.S_IFIFO | 0o640),
    }


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
        found = (reader.label, reader.device, reader.filesystem, reader.host, reader.date, reader.level)
    assert found == ("label", "/dev/sda1", "/", "host", DATE, 0)


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


def test_acls_get_an_id_everywhere() -> None:
    disk = (
        struct.pack("<I", 1) + struct.pack("<HH", 1, 7) + struct.pack("<HHI", 2, 6, 71000) + struct.pack("<HH", 16, 7)
    )
    found = attributes.decode(xattr_block([(2, b"", disk)]))
    expected = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry) for entry in ((1, 7, 0xFFFFFFFF), (2, 6, 71000), (16, 7, 0xFFFFFFFF))
    )
    assert found == {b"system.posix_acl_access": expected}


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
    modes = [0o000, 0o444, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o1644]
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
    assert "was there before" in refused(dump(tree), tmp_path)


def test_a_symlink_in_a_directorys_place_is_not_followed(tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "etc").symlink_to(outside)
    assert "was there before" in refused(dump(small_tree()), target)
    assert not list(outside.iterdir())


# What is refused: each a small tree, or bytes, wrong in one place.


def _directory_of(*entries: tuple[bytes, int]) -> bytes:
    """A dump whose root has these entries, of which 12 and 13 are files, and 11 and 14 directories in it."""
    tree: dict[int, File | Dir] = {2: Dir([(b"d", 11), *entries]), 11: Dir(), 12: File(nlink=9), 13: File(nlink=9)}
    return dump(tree)


HOSTILE_NAMES: dict[str, tuple[bytes, str]] = {
    "dot dot": (_directory_of((b"f", 12), (b"g", 13), (b"..", 12)), "its entry .. leads to inode 12, or comes twice"),
    "dot": (_directory_of((b"f", 12), (b"g", 13), (b".", 2)), "its entry . leads to inode 2, or comes twice"),
    "slash": (_directory_of((b"f", 12), (b"../../etc/x", 13)), "the name '../../etc/x' cannot be one"),
    "empty": (_directory_of((b"f", 12), (b"", 13)), "the name '' cannot be one"),
    "null": (_directory_of((b"f", 12), (b"a\0b", 13)), "cannot be one"),
    "twice": (_directory_of((b"f", 12), (b"f", 13)), "/f: a name comes twice"),
    "as link twice": (_directory_of((b"f", 12), (b"g", 12), (b"f", 12), (b"h", 13)), "a name comes twice"),
    "file and directory": (_directory_of((b"f", 12), (b"d", 13)), "/d: a name comes twice"),
    "directory twice": (_directory_of((b"f", 12), (b"g", 13), (b"e", 11)), "is a directory that has a name already"),
    "root again": (_directory_of((b"f", 12), (b"g", 13), (b"e", 2)), "is a directory that has a name already"),
    "no name": (_directory_of((b"f", 12)), "no directory names inode 13"),
}


@pytest.mark.parametrize("case", HOSTILE_NAMES)
def test_hostile_names(tmp_path: Path, case: str) -> None:
    data, expected = HOSTILE_NAMES[case]
    target = tmp_path / "target"
    target.mkdir()
    assert expected in refused(data, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]


def test_directories_that_hold_each_other(tmp_path: Path) -> None:
    tree: dict[int, File | Dir] = {
        2: Dir(),
        11: Dir([(b"a", 12)], parent=12),
        12: Dir([(b"b", 11)], parent=11),
    }
    assert "no other directory names it" in refused(dump(tree), tmp_path)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    """One inode number comes as both, or the entry says one thing and the inode another."""
    builder = built({2: Dir([(b"d", 11)]), 11: Dir()})
    ends = [index for index, record in enumerate(builder.records) if record[0] == TS_END]
    del builder.records[ends[0] :]
    builder.file(11, File())
    builder.end()
    assert "inode 11 comes where the map lists none" in refused(builder.stored(), tmp_path)


def test_an_entry_of_another_type(tmp_path: Path) -> None:
    builder = built({2: Dir([(b"f", 12)]), 12: File()})
    wrong = directory_bytes([(b".", 2), (b"..", 2), (b"f", 12)], {2: 4, 12: 10})
    place = next(index for index, record in enumerate(builder.records) if b"..\0" in record)
    builder.records[place] = wrong.ljust(TP_BSIZE, b"\0")
    assert "its directory says it is of the type 10" in refused(builder.stored(), tmp_path)


def test_more_names_than_links(tmp_path: Path) -> None:
    tree: dict[int, File | Dir] = {2: Dir([(b"f", 12), (b"g", 12)]), 12: File(nlink=1)}
    assert "has 2 names where it counts 1" in refused(dump(tree), tmp_path)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([2, 11, 12, 13, 14, 15, 16, 17], "the end comes where inode 17, which the map lists, was expected"),
        ([2, 11, 12, 13, 14, 15], "inode 16 comes where the map lists none"),
        ([2, 10, 11, 12, 13, 14, 15, 16], "inode 12 comes where inode 10, which the map lists, was expected"),
        ([2, 12, 13, 14, 15, 16], "directory inode 11 is not in its turn, or not in the map"),
    ],
)
def test_a_map_that_does_not_agree(tmp_path: Path, listed: list[int], expected: str) -> None:
    assert expected in refused(dump(small_tree(), listed=listed), tmp_path)


def test_a_root_that_is_missing(tmp_path: Path) -> None:
    assert "holds no root directory" in refused(dump({11: Dir(parent=11)}), tmp_path)


ODD_FILES: dict[str, tuple[File, str]] = {
    "long link": (File(mode=LNK | 0o777, data=b"x" * 5000), "a symlink to a path of 5000 bytes"),
    "empty link": (File(mode=LNK | 0o777), "a symlink to a path of 0 bytes"),
    "hole in a link": (File(mode=LNK | 0o777, size=70, holes=frozenset({0})), "with a hole or null bytes"),
    "null in a link": (File(mode=LNK | 0o777, data=b"a\0b"), "with a hole or null bytes"),
    "no type": (File(mode=0o644), "its mode 0o644 is that of no file"),
    "unknown type": (File(mode=0o30644), "its mode 0o30644 is that of no file"),
    "attributes without mark": (File(attributes=[bytes(256)]), "begin with 0x0, which is no mark"),
    "attributes without end": (
        File(attributes=[xattr_block([(1, b"a" * 230, b"")], in_inode=True)[:100]]),
        "its extended attributes have no end",
    ),
    "attribute of an encrypted file": (File(attributes=[xattr_block([(9, b"c", b"")])]), "of the kind 9 is the key"),
    "attribute twice": (File(attributes=[xattr_block([(1, b"a", b""), (1, b"a", b"")])]), "comes twice"),
    "attribute twice in two": (File(attributes=[xattr_block([(1, b"a", b"")])] * 2), "has an extended attribute twice"),
    "attributes without end in sight": (
        File(attributes=[xattr_block([(1, b"%d" % number, b"")]) for number in range(9)]),
        "has more extended attributes than there is room for",
    ),
    "malformed acl": (File(attributes=[xattr_block([(2, b"", b"\1\0\0\0\3\0")])]), "its ACL is malformed"),
}


@pytest.mark.parametrize("case", ODD_FILES)
def test_odd_files(tmp_path: Path, case: str) -> None:
    file, expected = ODD_FILES[case]
    assert expected in refused(dump({2: Dir([(b"f", 12)]), 12: file}), tmp_path)


def test_a_value_in_another_inode(tmp_path: Path) -> None:
    block = bytearray(xattr_block([(1, b"a", b"value")]))
    block[36:40] = struct.pack("<I", 77)
    file = File(attributes=[bytes(block)])
    assert "is in an inode of its own (77)" in refused(dump({2: Dir([(b"f", 12)]), 12: file}), tmp_path)


def test_more_names_than_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydiskimg.dumpfile.names._LARGEST", 5000)
    tree: dict[int, File | Dir] = {2: Dir([(b"%d" % number, number) for number in range(12, 90)])}
    tree.update({number: File() for number in range(12, 90)})
    assert "its directories and names need more than 5000 bytes" in refused(dump(tree), tmp_path)


# Headers: each case changes the fields of the first record of a type and makes its checksum right again.


def with_header(kind: int, *, number: int = 0, **fields: int) -> bytes:
    builder = built(small_tree())
    for index, record in enumerate(builder.records):
        found = Spcl._make(SPCL["<"].unpack(record))
        if found.c_type == kind and found.c_magic == EMPTY.c_magic and found.c_inumber >= number:
            builder.records[index] = summed(SPCL["<"].pack(*found._replace(**fields)))  # type: ignore[arg-type]
            return builder.stored()
    raise AssertionError(kind)


HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "another dump's": (lambda: with_header(TS_INODE, c_date=1), "a header of another dump"),
    "of another place": (lambda: with_header(TS_INODE, c_tapea=1), "a header that says it is record 1"),
    "of another volume": (lambda: with_header(TS_INODE, c_volume=2), "of volume 2"),
    "no magic": (lambda: with_header(TS_INODE, c_magic=7), "a header that says it is record"),
    "many entries": (lambda: with_header(TS_INODE, number=12, c_count=513), "has 513 entries; there can be 512"),
    "negative entries": (lambda: with_header(TS_INODE, number=12, c_count=-1), "has -1 entries"),
    "no entries": (lambda: with_header(TS_INODE, number=12, c_count=0), "the checksum of the header is wrong"),
    "huge size": (lambda: with_header(TS_INODE, number=12, di_size=1 << 62), "ends after 1024 of"),
    "huge directory": (lambda: with_header(TS_INODE, di_size=1 << 62), "directory inode 2 has 4611686018427387904"),
    "another's end": (lambda: with_header(TS_ADDR, c_inumber=99), "inode 99 goes on where 14 was expected to"),
    "no start": (lambda: with_header(TS_INODE, number=12, c_type=TS_ADDR), "goes on"),
    "end too early": (lambda: with_header(TS_INODE, number=12, c_type=TS_END), "the end comes where inode 12"),
    "a tape again": (lambda: with_header(TS_INODE, number=12, c_type=TS_TAPE), "a record of the type 1 where"),
    "unknown": (lambda: with_header(TS_INODE, number=12, c_type=42), "a record of the type 42 where"),
    "no map": (lambda: with_header(TS_BITS, c_type=TS_INODE), "where the map TS_BITS was expected"),
    "huge map": (lambda: with_header(TS_CLRI, c_count=1 << 30), "the map TS_CLRI has 1073741824 records"),
    "negative map": (lambda: with_header(TS_BITS, c_count=-5), "the map TS_BITS has -5 records"),
    "long map": (lambda: with_header(TS_BITS, c_count=300), "ends after"),
    "metadata only": (lambda: with_header(TS_INODE, number=12, c_flags=2 | DR_METAONLY), "without its contents"),
    "attributes first": (lambda: with_header(TS_INODE, c_flags=2 | DR_EXTATTRIBUTES), "without a file before"),
    "attributes of another": (
        lambda: with_header(TS_INODE, number=13, c_flags=2 | DR_EXTATTRIBUTES),
        "attributes of inode 13 come after inode 12",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie(tmp_path: Path, case: str) -> None:
    make, expected = HEADERS[case]
    assert expected in refused(make(), tmp_path)


def first_header(**fields: int) -> bytes:
    return with_header(TS_TAPE, **fields)


@pytest.mark.parametrize(
    ("data", "error", "expected"),
    [
        (b"", InvalidImageError, "has 0 bytes; a dump has 1024 at least"),
        (bytes(4096), InvalidImageError, "is no dump"),
        (b"x" * 4096, InvalidImageError, "is no dump"),
        (dump(small_tree())[1024:], InvalidImageError, "begins with record 1 of the type 6"),
        (first_header(c_level=3, c_ddate=5), UnsupportedImageError, "is a dump of level 3, which holds changes only"),
        (first_header(c_ddate=5), UnsupportedImageError, "is a dump of level 0, which holds changes only"),
        (first_header(c_volume=2), UnsupportedImageError, "is volume 2 of a dump"),
        (first_header(c_magic=OFS_MAGIC), UnsupportedImageError, "by another system than Linux"),
        (first_header(c_magic=FS_UFS2_MAGIC), UnsupportedImageError, "by another system than Linux"),
        (first_header(c_flags=0), UnsupportedImageError, "as before 4.4BSD"),
        (first_header(c_flags=0x82, c_ntrec=0), InvalidImageError, "tape blocks have 0 records"),
        (first_header(c_flags=0x82, c_ntrec=1 << 30), InvalidImageError, "tape blocks have 1073741824 records"),
        (first_header(c_flags=0x82, c_ntrec=1000), InvalidImageError, "ends within its first tape block"),
        (dump(small_tree())[:28] + b"\1" + dump(small_tree())[29:], InvalidImageError, "the checksum of the first"),
    ],
)
def test_what_is_no_dump_of_ours(data: bytes, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected) as caught:
        open_dump(io.BytesIO(data), "a.dump")
    assert_sentence(str(caught.value))


@pytest.mark.parametrize("method", ["", "zlib", "bzlib"])
def test_every_truncation_is_seen(tmp_path: Path, method: str) -> None:
    """At the end mark nothing is missing any more, but the rest of the last block has to be there."""
    data = dump(small_tree(), method=method)
    last = data.index(b"\5\0\0\0", len(data) - 11 * TP_BSIZE) if not method else len(data)
    for number, length in enumerate(range(0, last, 251 if not method else 13)):
        target = tmp_path / str(number)
        target.mkdir()
        with pytest.raises(InvalidImageError):
            restored(data[:length], target)


@pytest.mark.parametrize(
    ("word", "error", "expected"),
    [
        (1 | 2 << 1 | 100 << 4, UnsupportedImageError, "is compressed with LZO"),
        (1 | 5 << 1 | 100 << 4, InvalidImageError, "has the compression 5, which there is not"),
        (1 | 0xFFFFFFF << 4, InvalidImageError, "says that it has 268435455 bytes"),
        (0 | 100 << 4, InvalidImageError, "says that it has 100 bytes, where blocks have 10240"),
        (1, InvalidImageError, "says that it has 0 bytes"),
        (1 | 100 << 4, InvalidImageError, "the dump is damaged"),
        (1 | 1 << 1 | 100 << 4, InvalidImageError, "the dump is damaged"),
    ],
)
def test_tape_blocks_that_lie(tmp_path: Path, word: int, error: type[Exception], expected: str) -> None:
    data = bytearray(dump(small_tree(), method="zlib"))
    data[10240:10244] = struct.pack("<I", word)
    with limits(), pytest.raises(error, match=expected):
        restored(bytes(data), tmp_path)


@pytest.mark.parametrize(("ntrec", "bomb_size", "given"), [(10, 9 << 20, 9 << 20), (1000, 200 << 20, 1_024_001)])
def test_a_block_that_inflates_without_end(tmp_path: Path, ntrec: int, bomb_size: int, given: int) -> None:
    """A small one gives at most 16 MiB; of a large one no more is decompressed than a block has."""
    block_size = ntrec * 1024
    bomb = zlib.compress(bytes(bomb_size), 9)
    assert len(bomb) < block_size
    first = first_header(c_flags=0x82, c_ntrec=ntrec)[:block_size].ljust(block_size, b"\0")
    forged = first + struct.pack("<I", 1 | len(bomb) << 4) + bomb
    assert f"it gives {given} of {block_size} bytes" in refused(forged, tmp_path)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_changed_byte_in_compressed_data_is_seen(tmp_path: Path, at: float) -> None:
    tree: dict[int, File | Dir] = {2: Dir([(b"f", 12)]), 12: File(data=bytes(range(251)) * 400)}
    data = bytearray(dump(tree, method="zlib"))
    position = 10240 + int((len(data) - 10240) * at)
    data[position] ^= 0x10
    refused(bytes(data), tmp_path)


def test_reading_fails(tmp_path: Path) -> None:
    class Broken(Trickle):
        def read(self, size: int) -> bytes:
            if self._file.tell() > 20_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with (
        pytest.raises(StorageError, match=r"a.dump: cannot read after \d+ bytes: Input/output error"),
        open_dump(Broken(dump(small_tree()), 1024), "a.dump") as reader,
    ):
        restore_dump(reader, str(tmp_path))


def test_packed_lists_of_blocks() -> None:
    """As dump 0.4b49 and later write them."""
    listed = bytes([0b0000_0011, 0b0111_1110, 0b1000_0001, 0, 0b1111_1110, 255])
    header = EMPTY._replace(c_count=len(listed), c_addr=listed)
    data, hole = True, False
    assert runs(header) == [Run(2, data), Run(64, hole), Run(65, data), Run(64 * 255 + 63 + 65, hole)]
    with pytest.raises(ValueError, match="ends within an entry"):
        runs(header._replace(c_count=len(listed) - 1))


@given(st.lists(st.booleans(), max_size=512))
def test_runs_are_the_list(entries: list[bool]) -> None:
    found = runs(EMPTY._replace(c_count=len(entries), c_addr=bytes(entries)))
    assert [kind for length, kind in found for _ in range(length)] == entries
    assert all(length > 0 for length, _ in found)


SEEDS: Mapping[str, bytes] = {method or "plain": dump(small_tree(), method=method) for method in ("", "zlib")}


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_mutations(tmp_path_factory: pytest.TempPathFactory, seed: str, data: st.DataObject) -> None:
    """Whatever is changed: an error of ours, or a success that has all files; nothing outside of the target."""
    original = SEEDS[seed]
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position] = data.draw(st.integers(0, 255))
    if seed == "plain" and data.draw(st.booleans()):  # headers whose checksum is right again reach deeper
        for start in range(0, len(changed), TP_BSIZE):
            if changed[start : start + TP_BSIZE] != original[start : start + TP_BSIZE]:
                changed[start : start + TP_BSIZE] = summed(bytes(changed[start : start + TP_BSIZE]))
    work = tmp_path_factory.mktemp("mutations")
    target = work / "target"
    target.mkdir()
    try:
        done = restored(bytes(changed), target)
    except (InvalidImageError, UnsupportedImageError, StorageError) as error:
        assert_sentence(str(error))
    else:
        assert done.files + done.unnamed == 5
    assert os.listdir(work) == ["target"]
