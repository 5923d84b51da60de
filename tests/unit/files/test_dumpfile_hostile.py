# SPDX-License-Identifier: MIT
"""Dumps with invalid directories and inodes, and dumps with bytes changed at random."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.errors import InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.files.dump.layout import TP_BSIZE, TS_BITS, TS_CLRI, TS_END, TS_INODE, TS_TAPE
from tests.fixtures.dumps import (
    Builder,
    Dir,
    File,
    built,
    directory_bytes,
    dump,
    refused,
    restored,
    small_tree,
    summed,
    xattr_block,
)
from tests.fixtures.limits import assert_sentence

REG, LNK = stat.S_IFREG, stat.S_IFLNK


def _directory_of(*entries: tuple[bytes, int]) -> bytes:
    """A dump whose root has these entries; 12 and 13 are files, 11 and 14 are directories in it."""
    tree: dict[int, File | Dir] = {2: Dir([(b"d", 11), *entries]), 11: Dir(), 12: File(nlink=9), 13: File(nlink=9)}
    return dump(tree)


HOSTILE_NAMES: dict[str, tuple[bytes, str]] = {
    "dot dot": (_directory_of((b"f", 12), (b"g", 13), (b"..", 12)), "its entry .. leads to inode 12, or occurs twice"),
    "dot": (_directory_of((b"f", 12), (b"g", 13), (b".", 2)), "its entry . leads to inode 2, or occurs twice"),
    "slash": (_directory_of((b"f", 12), (b"../../etc/x", 13)), "the name '../../etc/x' is invalid"),
    "empty": (_directory_of((b"f", 12), (b"", 13)), "the name '' is invalid"),
    "null": (_directory_of((b"f", 12), (b"a\0b", 13)), "is invalid"),
    "twice": (_directory_of((b"f", 12), (b"f", 13)), "/f: duplicate name"),
    "as link twice": (_directory_of((b"f", 12), (b"g", 12), (b"f", 12), (b"h", 13)), "duplicate name"),
    "file and directory": (_directory_of((b"f", 12), (b"d", 13)), "/d: duplicate name"),
    "directory twice": (_directory_of((b"f", 12), (b"g", 13), (b"e", 11)), "is a directory that already has a name"),
    "root again": (_directory_of((b"f", 12), (b"g", 13), (b"e", 2)), "is a directory that already has a name"),
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


@pytest.mark.parametrize("addr", [b"\0\1", b"\1\0", b"\0\0"])
def test_a_directory_with_a_hole(tmp_path: Path, addr: bytes) -> None:
    """Wherever it is, names would be lost without a word: a file of root's without one is taken for a quota."""
    builder = Builder()
    builder.header(TS_TAPE)
    builder.map(TS_CLRI, [2, 11])
    builder.map(TS_BITS, [2, 11])
    builder.directory(2, Dir([(b"d", 11)]), {})
    builder.header(TS_INODE, c_inumber=11, di_mode=stat.S_IFDIR, di_size=2 * TP_BSIZE, c_count=2, c_addr=addr)
    builder.data(directory_bytes([(b".", 11), (b"..", 2)], {}).ljust(TP_BSIZE, b"\0") * addr.count(1))
    builder.end()
    assert "directory inode 11 has a hole" in refused(builder.stored(), tmp_path)


def test_directories_deeper_than_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is found by walking there, so that the time for a chain of them grows with its square."""
    monkeypatch.setattr("pydiskimg.files.dump.names._DEEPEST", 20)
    tree: dict[int, File | Dir] = {2: Dir([(b"d", 10)])}
    tree.update({at: Dir([(b"d", at + 1)], parent=2 if at == 10 else at - 1) for at in range(10, 29)})
    tree[29] = Dir(parent=28)
    assert restored(dump(tree), tmp_path).directories == 21
    tree[29], tree[30] = Dir([(b"d", 30)], parent=28), Dir(parent=29)
    with pytest.raises(UnsupportedImageError, match=r"\(inode 29\) lies 20 levels deep, and has subdirectories"):
        restored(dump(tree), tmp_path)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    """One inode number comes as both, or the entry says one thing and the inode another."""
    builder = built({2: Dir([(b"d", 11)]), 11: Dir()})
    ends = [index for index, record in enumerate(builder.records) if record[0] == TS_END]
    del builder.records[ends[0] :]
    builder.file(11, File())
    builder.end()
    assert "found inode 11, expected the end by its map" in refused(builder.stored(), tmp_path)


def test_an_entry_of_another_type(tmp_path: Path) -> None:
    builder = built({2: Dir([(b"f", 12)]), 12: File()})
    wrong = directory_bytes([(b".", 2), (b"..", 2), (b"f", 12)], {2: 4, 12: 10})
    place = next(index for index, record in enumerate(builder.records) if b"..\0" in record)
    builder.records[place] = wrong.ljust(TP_BSIZE, b"\0")
    assert "its directory says it is of the type 10" in refused(builder.stored(), tmp_path)


def test_more_names_than_links(tmp_path: Path) -> None:
    tree: dict[int, File | Dir] = {2: Dir([(b"f", 12), (b"g", 12)]), 12: File(nlink=1)}
    assert "has 2 names, but its link count is 1" in refused(dump(tree), tmp_path)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([2, 11, 12, 13, 14, 15, 16, 17], "found the end, expected inode 17 by its map"),
        ([2, 11, 12, 13, 14, 15], "found inode 16, expected the end by its map"),
        ([2, 10, 11, 12, 13, 14, 15, 16], "found inode 12, expected inode 10 by its map"),
        ([2, 12, 13, 14, 15, 16], "directory inode 11 is out of order, or not in the map"),
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
    "no type": (File(mode=0o644), "its mode 0o644 is not that of a file"),
    "unknown type": (File(mode=0o30644), "its mode 0o30644 is not that of a file"),
    "attributes without mark": (File(attributes=[bytes(256)]), "begin with 0x0, which is not their magic"),
    "attributes without end": (
        File(attributes=[xattr_block([(1, b"a" * 230, b"")], in_inode=True)[:100]]),
        "its extended attributes have no end",
    ),
    "attribute of an encrypted file": (File(attributes=[xattr_block([(9, b"c", b"")])]), "of the kind 9 is the key"),
    "attribute twice": (
        File(attributes=[xattr_block([(1, b"a", b""), (1, b"a", b"")])]),
        "has an extended attribute twice",
    ),
    "attribute twice in two": (File(attributes=[xattr_block([(1, b"a", b"")])] * 2), "has an extended attribute twice"),
    "attributes without end in sight": (
        File(attributes=[xattr_block([(1, b"%d" % number, b"")]) for number in range(9)]),
        "has more extended attributes than possible",
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
    monkeypatch.setattr("pydiskimg.files.dump.names._LARGEST", 5000)
    tree: dict[int, File | Dir] = {2: Dir([(b"%d" % number, number) for number in range(12, 90)])}
    tree.update({number: File() for number in range(12, 90)})
    assert "its directories and names need more than 5000 bytes" in refused(dump(tree), tmp_path)


SEEDS: Mapping[str, bytes] = {method or "plain": dump(small_tree(), method=method) for method in ("", "zlib")}


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
