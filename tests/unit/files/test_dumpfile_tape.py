# SPDX-License-Identifier: MIT
"""The records of a dump: headers and compressed blocks that lie or are cut off, and maps of blocks."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.errors import InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.files.dump import open_dump, restore_dump
from pydiskimg.files.dump.layout import (
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
from pydiskimg.files.dump.record_runs import Run, runs
from tests.fixtures.dumps import (
    EMPTY,
    Dir,
    File,
    Trickle,
    built,
    dump,
    refused,
    restored,
    small_tree,
    summed,
    xattr_block,
)
from tests.fixtures.limits import assert_sentence, limits

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
    "another's end": (lambda: with_header(TS_ADDR, c_inumber=99), "inode 99 continues, expected 14 to continue"),
    "no start": (lambda: with_header(TS_INODE, number=12, c_type=TS_ADDR), "continues"),
    "end too early": (lambda: with_header(TS_INODE, number=12, c_type=TS_END), "found the end, expected inode 12"),
    "a tape again": (lambda: with_header(TS_INODE, number=12, c_type=TS_TAPE), "a record of the type 1, expected"),
    "unknown": (lambda: with_header(TS_INODE, number=12, c_type=42), "a record of the type 42, expected"),
    "no map": (lambda: with_header(TS_BITS, c_type=TS_INODE), "expected the map TS_BITS"),
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
        (b"", InvalidImageError, "has 0 bytes; a dump has at least 1024"),
        (bytes(4096), InvalidImageError, "is not a dump"),
        (b"x" * 4096, InvalidImageError, "is not a dump"),
        (dump(small_tree())[1024:], InvalidImageError, "begins with record 1 of the type 6"),
        (
            first_header(c_level=3, c_ddate=5),
            UnsupportedImageError,
            "is a dump of level 3, which contains only changes",
        ),
        (first_header(c_ddate=5), UnsupportedImageError, "is a dump of level 0, which contains only changes"),
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


def test_what_follows_the_end_mark(tmp_path: Path) -> None:
    """The rest of a tape, but not as much as a sparse file in a tar has for nothing."""
    (tmp_path / "first").mkdir()
    assert restored(dump(small_tree()) + bytes(1 << 20), tmp_path / "first").files == 5
    assert "bytes follow the end mark after record" in refused(dump(small_tree()) + bytes(24 << 20), tmp_path)


@pytest.mark.parametrize(
    ("word", "error", "expected"),
    [
        (1 | 2 << 1 | 100 << 4, UnsupportedImageError, "is compressed with LZO"),
        (1 | 5 << 1 | 100 << 4, InvalidImageError, "has the unknown compression 5"),
        (1 | 0xFFFFFFF << 4, InvalidImageError, "states 268435455 bytes"),
        (0 | 100 << 4, InvalidImageError, "states 100 bytes, but blocks have 10240"),
        (1, InvalidImageError, "states 0 bytes"),
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


def with_packed_attributes(listed: bytes) -> bytes:
    """A dump whose attribute block of 4096 bytes has this packed list."""
    tree = small_tree()
    tree[12] = File(data=b"hello\n", nlink=2, attributes=[xattr_block([(1, b"block", b"v" * 1500)])])
    builder = built(tree)
    for index, record in enumerate(builder.records):
        found = Spcl._make(SPCL["<"].unpack(record))
        if found.c_magic == EMPTY.c_magic and found.c_flags & DR_EXTATTRIBUTES:
            packed = found._replace(c_count=len(listed), c_addr=listed)
            builder.records[index] = summed(SPCL["<"].pack(*packed))
            return builder.stored()
    raise AssertionError(tree)


def test_packed_lists_of_attributes(tmp_path: Path) -> None:
    """As dump 0.4b49 and later write them: a block of attributes has one entry, of all its records."""
    restored(with_packed_attributes(bytes([3 << 1 | 1])), tmp_path)
    assert os.getxattr(tmp_path / "hello", "user.block") == b"v" * 1500


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (bytes([3 << 1]), "inode 12: its extended attributes have a hole"),
        (bytes([0x81, 0]), "inode 12 has more extended attributes than possible"),
        (bytes([0x81]), "inode 12: its list of blocks ends within an entry"),
        (bytes([2 << 1 | 1]), "is not within its 3072 bytes"),
    ],
)
def test_packed_lists_of_attributes_that_cannot_be(tmp_path: Path, listed: bytes, said: str) -> None:
    assert said in refused(with_packed_attributes(listed), tmp_path)


@given(st.lists(st.booleans(), max_size=512))
def test_runs_are_the_list(entries: list[bool]) -> None:
    found = runs(EMPTY._replace(c_count=len(entries), c_addr=bytes(entries)))
    assert [kind for length, kind in found for _ in range(length)] == entries
    assert all(length > 0 for length, _ in found)
