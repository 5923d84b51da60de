# SPDX-License-Identifier: MIT
"""What is written into a tar archive, by the standard library's tarfile, which reads pax."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pydiskimg import open_disk, open_tree, populate
from pydiskimg.errors import ArchiveError, StorageError
from pydiskimg.files.acl import AclEntry, acl_text, parse
from pydiskimg.files.attributes import ACL_ACCESS
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.files.tar import write_archive
from pydiskimg.files.tar.headers import member_headers
from pydiskimg.files.tar.layout import BLOCK, checksum_is_right
from pydiskimg.fs.ext4.tree.entries import TreeEntries
from pydiskimg.units import GIB, MIB

ACL = [
    AclEntry(b"user", None, 7),
    AclEntry(b"user", 70000, 4),
    AclEntry(b"group", None, 5),
    AclEntry(b"mask", None, 5),
    AclEntry(b"other", None, 0),
]


def regular(
    path: bytes, contents: Contents = (), *, size: int = 0, data: list[tuple[int, int]] | None = None, time: int = 0
) -> Entry:
    return Entry(path, stat.S_IFREG, 0o644, 0, 0, time, time, size=size, contents=contents, data=data)


def packed(entries: Iterable[Entry], path: Path) -> Path:
    with path.open("wb") as file:
        write_archive(entries, file.fileno(), "archive")
    return path


def read(headers: bytes) -> tarfile.TarInfo:
    """Return what tarfile reads in the headers of one member."""
    assert all(checksum_is_right(headers[at : at + BLOCK]) for at in {0, len(headers) - BLOCK} if headers[at:])
    with tarfile.open(fileobj=io.BytesIO(headers + bytes(4 * BLOCK)), errors="surrogateescape") as tar:
        found = tar.next()
    assert found is not None
    return found


@pytest.mark.parametrize("length", [99, 100, 101, 200, 254, 255, 256, 257, 600])
@pytest.mark.parametrize("directory", [b"", b"d/", b"d" * 154 + b"/", b"d" * 155 + b"/", b"d" * 156 + b"/"])
def test_names_of_every_length(directory: bytes, length: int) -> None:
    path = (directory + b"n" * length)[:length]
    assert os.fsencode(read(member_headers(regular(path))).name) == path
    found = read(member_headers(Entry(b"link", stat.S_IFLNK, 0o777, 0, 0, 0, 0, link=path)))
    assert os.fsencode(found.linkname) == path


@pytest.mark.parametrize("name", ["grüße", "e\u0301", "new\nline"])
def test_names_in_utf8(name: str) -> None:
    found = read(member_headers(regular(name.encode())))
    assert found.name == name
    assert "hdrcharset" not in found.pax_headers


def test_names_that_are_not_utf8() -> None:
    found = read(member_headers(regular(b"latin-\xe4")))
    assert os.fsencode(found.name) == b"latin-\xe4"
    assert found.pax_headers["hdrcharset"] == "BINARY"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_700_000_000_250_000_000, "1700000000.25"),
        (-1, "-0.000000001"),
        (-1_500_000_000, "-1.5"),
        (-10_000_000_000, "-10"),
        ((1 << 34) * 1_000_000_000, "17179869184"),
    ],
)
def test_times(nanoseconds: int, text: str) -> None:
    found = read(member_headers(regular(b"file", time=nanoseconds))).pax_headers
    assert found["atime"] == text
    in_header = not nanoseconds % 1_000_000_000 and 0 <= nanoseconds < 8 * GIB * 1_000_000_000
    assert found.get("mtime") == (None if in_header else text)


def test_what_the_header_has_no_room_for() -> None:
    entry = Entry(b"large", stat.S_IFREG, 0o4755, 0xFFFFFFFE, 1 << 21, 0, 0, size=9 * GIB)
    found = read(member_headers(entry))
    assert (found.uid, found.gid, found.size, found.mode) == (0xFFFFFFFE, 1 << 21, 9 * GIB, 0o4755)
    found = read(member_headers(Entry(b"small", stat.S_IFREG, 0, (1 << 21) - 1, 0, 0, 0, size=8 * GIB - 1)))
    assert (found.uid, found.size, {*found.pax_headers}) == ((1 << 21) - 1, 8 * GIB - 1, {"atime"})


@pytest.mark.parametrize("length", [*range(80, 90), *range(970, 980), 65536])
def test_a_record_counts_its_own_length(length: int) -> None:
    entry = regular(b"file")
    entry.xattrs = {b"user.a=b%": b"v" * length}
    assert read(member_headers(entry)).pax_headers["SCHILY.xattr.user.a%3Db%25"] == "v" * length


def test_lists_of_access() -> None:
    entry = Entry(b"directory", stat.S_IFDIR, 0o755, 0, 0, 0, 0, acls={ACL_ACCESS: ACL})
    text = read(member_headers(entry)).pax_headers["SCHILY.acl.access"]
    assert text == "user::rwx,user:70000:r--,group::r-x,mask::r-x,other::---"
    assert parse(acl_text(ACL)) == ACL


def test_kinds_and_devices(tmp_path: Path) -> None:
    kinds = {stat.S_IFDIR: b"5", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6", stat.S_IFREG: b"0"}
    entries = [Entry(b"%o" % kind, kind, 0o600, 0, 0, 0, 0, device=(4095, (1 << 20) - 1)) for kind in kinds]
    entries += [Entry(b"hard", 0, 0o600, 0, 0, 0, 0, link=b"100000"), Entry(b"s", stat.S_IFSOCK, 0, 0, 0, 0, 0)]
    with tarfile.open(packed(entries, tmp_path / "a.tar")) as tar:
        members = tar.getmembers()
    assert [member.type for member in members] == [*kinds.values(), b"1"]
    assert {(member.devmajor, member.devminor) for member in members[1:3]} == {(4095, (1 << 20) - 1)}
    with pytest.raises(ArchiveError, match="entry odd: cannot be packed: tar cannot store a file of type 0o30000"):
        packed([Entry(b"odd", 0o30000, 0, 0, 0, 0, 0)], tmp_path / "b.tar")


def pieces(*found: tuple[int, bytes]) -> Contents:
    buffer = bytearray(MIB)
    for offset, data in found:  # in one buffer: each is valid until the next
        buffer[: len(data)] = data
        yield offset, memoryview(buffer)[: len(data)]


def test_holes_are_left_out_where_the_map_says_so(tmp_path: Path) -> None:
    large = os.urandom(100_000)
    expected = bytes(4096) + b"one" + bytes(MIB - 4099) + large + bytes(9)
    contents = ((4096, b"one"), (MIB, large))
    entries = [
        regular(b"whole", pieces(*contents), size=len(expected)),
        regular(b"sparse", pieces(*contents), size=len(expected), data=[(4000, 200), (MIB, 100_000)]),
        regular(b"hole", size=MIB, data=[]),
        regular(b"empty", data=[]),
        regular(b"after", pieces((0, b"in step")), size=7),
    ]
    path = packed(entries, tmp_path / "a.tar")
    with tarfile.open(path) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert found == {"whole": expected, "sparse": expected, "hole": bytes(MIB), "empty": b"", "after": b"in step"}
    assert path.stat().st_size < 2 * MIB


@pytest.mark.parametrize("data", [None, [(0, 4096)]])
@pytest.mark.parametrize("found", [[(0, b"x" * 4096), (4096, b"more")], [(0, b"two"), (2, b"o")], [(9000, b"far")]])
def test_contents_that_do_not_fit_their_headers_are_refused(
    found: list[tuple[int, bytes]], data: list[tuple[int, int]] | None, tmp_path: Path
) -> None:
    with pytest.raises(
        ArchiveError, match=r"entry file: cannot be packed: its contents (are not|do not have its size)"
    ):
        packed([regular(b"file", pieces(*found), size=8192 if data else 4098, data=data)], tmp_path / "a.tar")


def test_a_reader_that_goes_away_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(StorageError, match="archive: the reader has closed its end"):
            write_archive([regular(b"file")], writing, "archive")
    finally:
        os.close(writing)


def through_pipe(entries: Iterable[Entry]) -> bytes:
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as other, open(reading, "rb") as file:
        found = other.submit(file.read)
        try:
            write_archive(entries, writing, "archive")
        finally:
            os.close(writing)
        return found.result(timeout=60)


def test_contents_are_moved_from_the_files_that_they_lie_in(tmp_path: Path) -> None:
    image, data = tmp_path / "image", os.urandom(300_001)
    image.write_bytes(data)
    with image.open("rb") as file:
        ranges = [(file.fileno(), 200_000, 100_001), (file.fileno(), 0, 200_000)]
        moved = replace(regular(b"moved", size=len(data)), ranges=ranges)
        in_pipe = through_pipe([moved, regular(b"after", pieces((0, b"in step")), size=7)])
    with tarfile.open(fileobj=io.BytesIO(in_pipe)) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert found == {"moved": data[200_000:] + data[:200_000], "after": b"in step"}


@pytest.mark.parametrize("there", [0, 4096, 70_000])
def test_what_cannot_be_moved_is_read(there: int, tmp_path: Path) -> None:
    image, data = tmp_path / "image", os.urandom(100_000)
    image.write_bytes(data[:there])
    read = ((0, data[:60_000]), (60_000, data[60_000:]))
    with image.open("rb") as file:
        entry = replace(regular(b"file", pieces(*read), size=len(data)), ranges=[(file.fileno(), 0, len(data))])
        in_pipe = through_pipe([entry])
    with tarfile.open(fileobj=io.BytesIO(in_pipe)) as tar:
        member = tar.next()
        assert member is not None
        assert tar.extractfile(member).read() == data  # type: ignore[union-attr]


def test_the_contents_of_an_ext_are_moved_from_its_image(tmp_path: Path) -> None:
    image, data = tmp_path / "image", os.urandom(200_001)
    image.write_bytes(bytes(8 * MIB))
    entries = [regular(b"large", pieces((0, data)), size=len(data)), regular(b"small", pieces((0, b"small")), size=5)]
    with open_disk(image, writable=True) as disk:
        populate(disk, entries)
    with open_tree(image) as tree:
        found = {entry.path: entry for entry in TreeEntries(tree, "/").entries()}
        assert [b"".join(os.pread(fd, length, at) for fd, at, length in found[b"large"].ranges)] == [data]
        assert not found[b"small"].ranges
        source = tree.open("/large")
        ranges = source.file_ranges(70_000, 100_000)
        assert ranges is not None
        assert b"".join(os.pread(fd, length, at) for fd, at, length in ranges) == data[70_000:170_000]
        in_pipe = through_pipe(TreeEntries(tree, "/").entries())
    with tarfile.open(fileobj=io.BytesIO(in_pipe)) as tar:
        assert tar.extractfile("large").read() == data  # type: ignore[union-attr]
