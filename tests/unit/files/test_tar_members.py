# SPDX-License-Identifier: MIT
"""Members as various writers of tar archives make them, read as they were meant."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError
from pydiskimg.files.entry import Entry
from pydiskimg.files.tar import open_tar
from tests.fixtures.limits import limits
from tests.unit.files.test_archive_damage import END, extended, header, padded, plain, record, summed, unpack


def entries(tmp_path: Path, data: bytes) -> list[tuple[Entry, bytes]]:
    """Return each entry with its contents, holes as zeros."""
    (tmp_path / "a.tar").write_bytes(data)
    found = []
    with open_tar(tmp_path / "a.tar") as read:
        for entry in read:
            contents = bytearray(entry.size)
            for offset, piece in entry.contents:
                contents[offset : offset + len(piece)] = piece
            found.append((entry, bytes(contents)))
    return found


def names(tmp_path: Path, data: bytes) -> list[bytes]:
    return [entry.path for entry, _ in entries(tmp_path, data)]


def test_a_name_in_two_fields(tmp_path: Path) -> None:
    block = header(b"name")
    block[345:351] = b"a/dir/"
    assert names(tmp_path, bytes(summed(block)) + END) == [b"a/dir/name"]
    block[257:265] = b"ustar  \0"  # GNU tar has times and a sparse map there
    assert names(tmp_path, bytes(summed(block)) + END) == [b"name"]
    block[257:265] = bytes(8)
    assert names(tmp_path, bytes(summed(block)) + END) == [b"name"]


@pytest.mark.parametrize("size", [0, 1, 700])
def test_a_directory_of_the_oldest_archives(size: int, tmp_path: Path) -> None:
    """Its name ends with a slash, its size is not that of a body."""
    block = header(b"old/", size, flag=b"\0", magic=bytes(8))
    found = entries(tmp_path, bytes(block) + plain() + END)
    assert [(entry.path, entry.kind) for entry, _ in found] == [(b"old/", stat.S_IFDIR), (b"file", stat.S_IFREG)]


@pytest.mark.parametrize("flag", [b"2", b"3", b"4", b"5", b"6"])
def test_sizes_of_what_has_no_body_do_not_count(flag: bytes, tmp_path: Path) -> None:
    assert names(tmp_path, bytes(header(b"x", 4096, flag=flag, link=b"y")) + plain() + END) == [b"x", b"file"]


@pytest.mark.parametrize("after", [plain(), b""])
@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)])
def test_a_hard_link_with_the_size_of_its_file_and_no_body(magic: bytes, after: bytes, tmp_path: Path) -> None:
    link = header(b"b", 4096, flag=b"1", magic=magic, link=b"file")
    assert names(tmp_path, plain() + bytes(link) + after + END)[:2] == [b"file", b"b"]


def test_a_body_of_a_hard_link_is_passed_over(tmp_path: Path) -> None:
    linked = bytes(header(b"b", 4, flag=b"1", link=b"file")) + padded(b"evil")
    target = unpack(tmp_path, extended((b"comment", b"this is pax")) + plain() + linked + plain(b"after") + END)
    assert (target / "b").read_text() == "data"
    assert (target / "after").read_text() == "data"


def test_a_sparse_member_with_its_whole_size_in_the_extended_header(tmp_path: Path) -> None:
    """bsdtar 3.1 wrote both sizes so; the header's is that of the body."""
    data = (
        extended(
            (b"size", b"9000"),
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"9000"),
        )
        + bytes(header(b"s", 516))
        + padded(b"#a comment\n1\n4096\n4\n")
        + padded(b"data")
        + plain()
        + END
    )
    (sparse, contents), (after, _) = entries(tmp_path, data)
    assert (sparse.size, contents) == (9000, bytes(4096) + b"data" + bytes(4900))
    assert after.path == b"file"


def old_sparse(pieces: int, realsize: int) -> bytes:
    """A member of GNU tar's old format with that many pieces of one byte, 4096 apart."""
    table = b"".join(b"%011o\0%011o\0" % (4096 * piece, 1) for piece in range(pieces))
    block = header(b"old", pieces, flag=b"S", magic=b"ustar  \0")
    block[386 : 386 + len(table[:96])] = table[:96]
    block[482] = len(table) > 96
    block[483:495] = b"%011o\0" % realsize
    more = b""
    for at in range(96, len(table), 504):
        more += table[at : at + 504].ljust(504, b"\0") + bytes([at + 504 < len(table)]) + bytes(7)
    return bytes(summed(block)) + more + padded(b"x" * pieces)


@pytest.mark.parametrize("pieces", [0, 1, 4, 5, 25, 26, 1000])
def test_maps_of_any_length_in_the_old_format(pieces: int, tmp_path: Path) -> None:
    size = 4096 * pieces + 10
    (sparse, contents), (after, _) = entries(tmp_path, old_sparse(pieces, size) + plain() + END)
    assert (sparse.size, after.path) == (size, b"file")
    assert contents == (b"x" + bytes(4095)) * pieces + bytes(10)
    with tarfile.open(fileobj=io.BytesIO(old_sparse(pieces, size) + END)) as tar:
        assert tar.extractfile("old").read() == contents  # type: ignore[union-attr]


def sparse_0_0(*pairs: tuple[bytes, bytes]) -> bytes:
    body = record(b"GNU.sparse.size", b"9000") + record(b"GNU.sparse.numblocks", b"2")
    body += b"".join(record(b"GNU.sparse." + keyword, value) for keyword, value in pairs)
    return bytes(header(b"pax", len(body), flag=b"x")) + padded(body) + plain() + END


def test_records_in_order_are_the_map_of_format_0_0(tmp_path: Path) -> None:
    pairs = (b"offset", b"0"), (b"numbytes", b"2"), (b"offset", b"4096"), (b"numbytes", b"2")
    ((_, contents),) = entries(tmp_path, sparse_0_0(*pairs))
    assert contents == b"da" + bytes(4094) + b"ta" + bytes(4902)
    for wrong in (pairs[1:], pairs[:3], (pairs[0], *pairs), (pairs[0], (b"numbytes", b"-2"))):
        with pytest.raises(ArchiveError, match=r"entry file: its sparse map (has an odd number|has '-2', expected)"):
            entries(tmp_path, sparse_0_0(*wrong))


BEYOND = {
    "size": (124, b"\x80" + bytes(2) + b"\xff" * 9, "its size is 4722366482869645213695; expected a number from 0 to"),
    "negative size": (124, b"\xff" * 12, "its size is negative"),
    "time": (136, b"\x80" + bytes(2) + b"\xff" * 9, "its time is beyond what 64 bits of seconds hold"),
    "time before": (136, b"\xff\xff" + bytes(10), "its time is beyond what 64 bits of seconds hold"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_numbers_beyond_what_linux_has(name: str, tmp_path: Path) -> None:
    at, field, reason = BEYOND[name]
    block = header(b"file")
    block[at : at + 12] = field
    with pytest.raises(ArchiveError, match=f"entry file: {reason}"):
        entries(tmp_path, bytes(summed(block)) + END)


@pytest.mark.parametrize("number", [b"7", b"2"])
def test_other_versions_of_the_sparse_format_are_refused(number: bytes, tmp_path: Path) -> None:
    data = extended((b"GNU.sparse.major", number), (b"GNU.sparse.realsize", b"9")) + plain() + END
    with pytest.raises(ArchiveError, match=rf"it is sparse in version '{number.decode()}'\.'' of GNU tar's format"):
        entries(tmp_path, data)


def of_small_records() -> bytes:
    count = (7 << 20) // 11
    return bytes(header(b"x", 11 * count, flag=b"x")) + padded(
        b"".join(b"11 %d=\n" % (100_000 + n) for n in range(count))
    )


def of_small_pieces() -> bytes:
    text = b",".join(b"%d,1" % (2 * at) for at in range(700_000))
    return extended((b"GNU.sparse.size", b"9" * 9), (b"GNU.sparse.map", text))


@pytest.mark.parametrize("headers", [of_small_records, of_small_pieces])
def test_headers_of_millions_of_parts_stay_bounded(headers: Callable[[], bytes], tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.tar", "wb", compresslevel=1) as file:
        file.write(headers() + plain(data=b"") + END)
    with limits(30, 250 << 20), open_tar(tmp_path / "a.tar") as read:
        if headers is of_small_records:
            assert [entry.path for entry in read] == [b"file"]
            return
        with pytest.raises(ArchiveError, match="lists 700000 bytes of data, but 0 are stored"):
            next(read)


def test_gzip_needs_no_libarchive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libarchive", None)
    monkeypatch.delitem(sys.modules, "pydiskimg.files.tar.libarchive", raising=False)
    assert names(tmp_path, gzip.compress(plain() + END)) == [b"file"]
    with pytest.raises(ArchiveError, match="needs libarchive-c"):
        names(tmp_path, os.urandom(1000))
