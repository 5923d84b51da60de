# SPDX-License-Identifier: MIT
"""Archives that are truncated, corrupt or contradictory: one clear error each, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import struct
import sys
import tarfile
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, DiskImageError
from pydiskimg.files.tar import extract, files_in_archive
from pydiskimg.transfer.pipe import PipeReader
from tests.archive_trees import walk
from tests.fixtures.limits import assert_sentence, limits

END = bytes(1024)


def header(
    name: bytes, size: int = 0, *, flag: bytes = b"0", magic: bytes = b"ustar\x0000", link: bytes = b""
) -> bytearray:
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = b"%07o\0" % os.getuid()
    block[116:124] = b"%07o\0" % os.getgid()
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 1_000_000_000
    block[156:157] = flag
    block[157 : 157 + len(link)] = link
    block[257:265] = magic
    return summed(block)


def summed(block: bytearray) -> bytearray:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(keyword: bytes, value: bytes) -> bytes:
    length = len(keyword) + len(value) + 3
    while len(str(length)) + len(keyword) + len(value) + 3 != length:
        length = len(str(length)) + len(keyword) + len(value) + 3
    return b"%d %s=%s\n" % (length, keyword, value)


def extended(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    body = b"".join(record(*pair) for pair in records)
    return bytes(header(b"pax", len(body), flag=flag)) + padded(body)


def device(minor: int) -> bytearray:
    block = header(b"device", flag=b"4")
    block[329:345] = b"0000001\0%07o\0" % minor
    return summed(block)


def owned(uid: bytes = b"0000000\0", gid: bytes = b"0000000\0") -> bytes:
    """An empty file of an owner and a group given as the header has them."""
    block = header(b"file")
    block[108:124] = uid + gid
    return bytes(summed(block))


NO = 0xFFFFFFFF


def packed(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the attribute that Linux has: tag, permissions, number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def plain(name: bytes = b"file", data: bytes = b"data") -> bytes:
    return bytes(header(name, len(data))) + padded(data)


def unpack(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.tar").write_bytes(data)
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    extract(tmp_path / "a.tar", str(target))
    return target


def test_the_helpers_make_archives(tmp_path: Path) -> None:
    target = unpack(tmp_path, extended((b"mtime", b"-1.25"), (b"path", "é".encode())) + plain() + END)
    assert (target / "é").read_text() == "data"
    assert (target / "é").stat().st_mtime_ns == -1_250_000_000


GOOD = plain()
BAD: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "a.tar: is empty; an archive was expected"),
    "text": (
        b"this is no archive\n" * 100,
        "a.tar: its first 512 bytes are not a header; it is corrupt or not a tar archive",
    ),
    "one byte": (b"x", "a.tar: "),
    "random": (random.Random(1).randbytes(100_000), "a.tar: "),
    "zeros": (bytes(10240), "the archive has no entries"),
    "one zero": (b"\0", "a.tar: "),
    "a label alone": (bytes(header(b"label", flag=b"V")) + END, "a.tar: the archive has no entries"),
    "an extended header alone": (
        extended((b"path", b"a")) + END,
        "a.tar: the end-of-archive marker at byte 1024 follows extension headers of a member",
    ),
    "no end marker": (GOOD, "no end-of-archive marker"),
    "half an end marker": (GOOD + bytes(511), "a.tar: "),
    "something after the end": (GOOD + END + b"x", "expected only zeros"),
    "another archive after the end": (GOOD + END + GOOD + END, "expected only zeros"),
    "cut in the header": (GOOD + GOOD[:300], "the entry after file: the archive ends in the middle, at byte 1324"),
    "cut in the data": (GOOD[:514], "entry file: the archive ends in the middle, at byte 514"),
    "cut in the padding": (GOOD[:700], "entry file: the archive ends in the middle, at byte 700"),
    "wrong checksum": (GOOD[:20] + b"!" + GOOD[21:] + END, "a.tar: "),
    "second checksum wrong": (
        GOOD + GOOD[:20] + b"!" + GOOD[21:] + END,
        "the entry after file: the header at byte 1024",
    ),
    "no name": (bytes(header(b"")) + END, "name is empty"),
    "unknown type": (bytes(header(b"f", flag=b"Z")) + END, "entry f: entries of its type, 'Z', cannot be unpacked"),
    "multi-volume": (bytes(header(b"f", flag=b"M", magic=b"ustar  \0")) + END, "its type, 'M', cannot"),
    "two extended headers": (
        extended((b"path", b"a")) + extended((b"path", b"b")) + GOOD + END,
        "a.tar: ",
    ),
    "global header": (extended((b"mtime", b"5"), flag=b"g") + GOOD + END, "global extended header sets mtime"),
    "long name and path": (
        bytes(header(b"l", 5, flag=b"L", magic=b"ustar  \0"))
        + padded(b"long\0")
        + extended((b"path", b"a"))
        + GOOD
        + END,
        "its path is given twice",
    ),
    "bad time": (extended((b"mtime", b"noon")) + GOOD + END, "entry file: "),
    "bad size": (extended((b"size", b"-1")) + GOOD + END, "a.tar: "),
    "huge size": (extended((b"size", b"9" * 30)) + GOOD + END, "a.tar: "),
    "size beyond the file": (extended((b"size", b"999999")) + GOOD + END, "entry file: the archive ends in the middle"),
    "bad record": (bytes(header(b"p", 9, flag=b"x")) + padded(b"9 noequal") + GOOD + END, "a.tar: "),
    "record too long": (bytes(header(b"p", 9, flag=b"x")) + padded(b"99 a=bcd\n") + GOOD + END, "a.tar: "),
    "record of no length": (bytes(header(b"p", 9, flag=b"x")) + padded(b"0 a=bcde\n") + GOOD + END, "a.tar: "),
    "null byte in the path": (extended((b"path", b"a\0b")) + GOOD + END, "null byte"),
    "null byte in an xattr": (extended((b"SCHILY.xattr.user.%00", b"")) + GOOD + END, "null byte"),
    "bad base64": (extended((b"LIBARCHIVE.xattr.user.a", b"***")) + GOOD + END, "entry file: "),
    "bad ACL": (extended((b"SCHILY.acl.access", b"user:rw")) + GOOD + END, "entry file: "),
    "bad ACL and a name": (
        extended((b"SCHILY.acl.access", b"nobody"), (b"path", "é".encode())) + GOOD + END,
        "entry é: its ACL entry 'nobody' is malformed",
    ),
    "bad ACL attribute": (extended((b"SCHILY.xattr.system.posix_acl_access", b"abc")) + GOOD + END, "is malformed"),
    "NFSv4 ACL": (extended((b"SCHILY.acl.ace", b"owner@:rwx::allow")) + GOOD + END, "NFSv4 ACL"),
    "huge device number": (bytes(device(0o7777777)) + END, "Linux does not support its device number 1:2097151"),
    "negative owner": (extended((b"uid", b"-5")) + GOOD + END, "entry file: "),
    "huge group": (extended((b"gid", b"4294967295")) + GOOD + END, "entry file: its group is 4294967295; expected"),
    "huge owner": (extended((b"uid", b"4294967295")) + GOOD + END, "its owner is 4294967295; expected a number from 0"),
    "owner beyond 32 bits": (extended((b"uid", b"4294967296")) + GOOD + END, "its owner is 4294967296; expected"),
    "owner beyond 64 bits": (extended((b"uid", b"9" * 19)) + GOOD + END, "its owner is 9999999999999999999; expected"),
    "owner of 20 digits": (extended((b"uid", b"9" * 20)) + GOOD + END, "entry file: its uid is not a number"),
    "owner by name": (extended((b"gid", b"root")) + GOOD + END, "entry file: its gid is not a number"),
    "owner -1 in base 256": (owned(b"\xff" * 8) + END, "entry file: its owner is -1; expected a number from 0"),
    "owner 2^32-1 in base 256": (owned(b"\x80\0\0\0\xff\xff\xff\xff") + END, "its owner is 4294967295; expected"),
    "owner 2^32 in base 256": (owned(b"\x80\0\0\1\0\0\0\0") + END, "its owner is 4294967296; expected"),
    "group -2 in base 256": (owned(gid=b"\xff" * 7 + b"\xfe") + END, "entry file: its group is -2; expected"),
    "owner -1 in octal": (GOOD + owned(b"-000001\0") + END, "entry file: its owner is -1; expected"),
    "ACL without a mask": (
        extended((b"SCHILY.acl.access", b"user::rw-,user:web:r--:1000,group::r--,other::r--")) + GOOD + END,
        "a.tar: entry file: its ACL names users or groups but has no entry mask::",
    ),
    "ACL without a mask, packed": (
        extended((b"SCHILY.xattr.system.posix_acl_access", packed((1, 6, NO), (2, 4, 1000), (4, 4, NO), (32, 4, NO))))
        + GOOD
        + END,
        "a.tar: entry file: its ACL names users or groups but has no entry mask::",
    ),
    "ACL without the owner": (
        extended((b"SCHILY.acl.access", b"user:web:r--:1000,group::r--,mask::r--,other::r--")) + GOOD + END,
        "entry file: its ACL has no entry user::, which every ACL has",
    ),
    "ACL without the group": (
        extended((b"SCHILY.acl.access", b"user::rw-,user:web:r--:1000,mask::r--,other::r--")) + GOOD + END,
        "entry file: its ACL has no entry group::",
    ),
    "default ACL without others": (
        extended((b"SCHILY.acl.default", b"user::rwx,group::r-x")) + bytes(header(b"d/", flag=b"5")) + END,
        "entry d/: its default ACL has no entry other::",
    ),
    "default ACL without a mask": (
        extended((b"SCHILY.acl.default", b"user::rwx,group::r-x,group:web:r-x:5,other::r-x"))
        + bytes(header(b"d/", flag=b"5"))
        + END,
        "entry d/: its default ACL names users or groups but has no entry mask::",
    ),
    "default ACL of a file": (
        extended((b"SCHILY.acl.default", b"user::rwx,group::r-x,other::r-x")) + GOOD + END,
        "entry file: it has a default ACL, which only a directory can have",
    ),
    "ACL that contradicts itself": (
        extended((b"SCHILY.acl.access", b"user::rw-,user:a:r--:7,user:b:rw-:7,group::r--,mask::rw-,other::r--"))
        + GOOD
        + END,
        "entry file: its ACL has two entries user:7: with different permissions",
    ),
    "ACL of an unknown tag": (
        extended((b"SCHILY.acl.access", b"user::rw-,everyone::r--,group::r--,other::r--")) + GOOD + END,
        "entry file: its ACL entry 'everyone::r--' is malformed",
    ),
    "ACL for nobody": (
        extended((b"SCHILY.acl.access", b"user::rw-,user:x:r--:4294967295,group::r--,mask::r--,other::r--"))
        + GOOD
        + END,
        "entry file: its ACL gives user the number 4294967295",
    ),
    "attribute without a name": (extended((b"SCHILY.xattr.", b"x")) + GOOD + END, "an extended attribute is empty"),
    "star's sparse format": (
        bytes(header(b"f", 4, flag=b"S")) + padded(b"data") + END,
        "sparse in a format other than GNU",
    ),
    "xstar's sparse format": (extended((b"SCHILY.realsize", b"9")) + GOOD + END, "sparse in a format other than GNU"),
    "Solaris' sparse format": (extended((b"SUN.holesdata", b" 0 4")) + GOOD + END, "sparse in a format other than GNU"),
    "sparse of no version": (
        extended((b"GNU.sparse.major", b"7"), (b"GNU.sparse.minor", b"0")) + GOOD + END,
        "a.tar: ",
    ),
    "sparse directory": (extended((b"GNU.sparse.map", b"0,1")) + bytes(header(b"d/", flag=b"5")) + END, "a.tar: "),
    "sparse 0.1, odd map": (
        extended((b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,4,7"))
        + GOOD
        + END,
        "its sparse map has an odd number of values",
    ),
    "sparse 0.1, descending": (
        extended((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"50,2,0,2")) + GOOD + END,
        "sparse map places 2 bytes at 0, outside of 52 to 99",
    ),
    "sparse 0.1, overlapping": (
        extended((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"0,3,2,1")) + GOOD + END,
        "sparse map places",
    ),
    "sparse 0.1, beyond the size": (
        extended((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"8,4")) + GOOD + END,
        "sparse map places 4 bytes at 8, outside of 0 to 9",
    ),
    "sparse 0.1, less than stored": (
        extended((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,2")) + GOOD + END,
        "its sparse map lists 2 bytes of data, but 4 are stored",
    ),
    "sparse 0.1, more than stored": (
        extended((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"0,2,20,70")) + GOOD + END,
        "sparse map lists 72 bytes",
    ),
    "sparse 1.0, no map": (
        extended((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")) + GOOD + END,
        "a.tar: ",
    ),
    "a size of thousands of digits": (
        extended((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,4"), (b"size", b"0" * 5000 + b"4")) + GOOD + END,
        "entry file: its size is not a number",
    ),
    "a device number that is none": (
        extended((b"SCHILY.devmajor", b"five")) + bytes(device(1)) + END,
        "entry device: its SCHILY.devmajor is not a number",
    ),
    "an ACL for a number of thousands of digits": (
        extended((b"SCHILY.acl.access", b"user:a:rwx:" + b"7" * 5000)) + GOOD + END,
        "entry file: its ACL entry 'user:a:rwx:7777",
    ),
    "a time of thousands of bytes": (extended((b"mtime", b"n" * 5000)) + GOOD + END, "entry file: 'nnnn"),
    "a global header's keyword of thousands of bytes": (
        extended((b"n" * 5000, b"5"), flag=b"g") + GOOD + END,
        "global extended header sets nnnn",
    ),
    "hard link with a body": (
        GOOD + bytes(header(b"b", 4, flag=b"1", link=b"nowhere")) + padded(b"evil") + END,
        "entry b: it is a hard link to nowhere, which does not exist",
    ),
}


def test_a_sparse_member_larger_than_the_file_system_takes(tmp_path: Path) -> None:
    data = extended((b"GNU.sparse.size", b"9223372036854775807"), (b"GNU.sparse.map", b"0,4")) + GOOD + END
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, before[1]))  # tmpfs takes any size
    try:
        with pytest.raises(DiskImageError, match=r"file: .*File too large"):
            unpack(tmp_path, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", BAD)
def test_one_sentence_each(name: str, tmp_path: Path) -> None:
    data, reason = BAD[name]
    with pytest.raises(DiskImageError) as caught:
        unpack(tmp_path, data)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 500


IN_A_PIPE = {
    "empty file": "pipe: is empty; an archive was expected",
    "huge device number": "pipe: device is neither a file nor a directory",
    "hard link with a body": "pipe: b is neither a file nor a directory",
    "ACL that contradicts itself": "",
    "ACL for nobody": "",
}


@pytest.mark.parametrize("name", BAD)
def test_what_comes_through_a_pipe_is_refused_no_other_way(name: str, tmp_path: Path) -> None:
    """It is refused for the same reason, but for what only matters where the files are made."""
    (tmp_path / "a.tar").write_bytes(BAD[name][0])
    said = ""
    with (tmp_path / "a.tar").open("rb") as file, limits():
        try:
            for found in files_in_archive(PipeReader(file.fileno(), "pipe")):
                while found.read(1 << 20):
                    pass
        except DiskImageError as error:
            said = str(error)
    if name in IN_A_PIPE:
        assert said == IN_A_PIPE[name]
        return
    assert_sentence(said)
    assert BAD[name][1].replace("a.tar", "pipe") in said


def test_a_name_in_a_message_is_not_longer_than_a_path(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"its path of 900000 bytes is longer than the kernel accepts") as caught:
        unpack(tmp_path, extended((b"path", b"n" * 900_000)) + GOOD + END)
    assert len(str(caught.value)) < 5000


def test_a_name_that_comes_through_a_pipe_is_shown_safely(tmp_path: Path) -> None:
    for name, kind in ((b"a\x1b[2J\n" + b"n" * 900_000, b"0"), (b"a\x1b[2J\n" + b"n" * 900_000, b"6")):
        (tmp_path / "a.tar").write_bytes(extended((b"path", name)) + bytes(header(b"f", flag=kind)) + END)
        with (tmp_path / "a.tar").open("rb") as file:
            files = files_in_archive(PipeReader(file.fileno(), "pipe"))
            try:
                shown = next(files).name
            except ArchiveError as error:
                shown = str(error)
        assert shown.startswith("pipe: a\\x1b[2J\\nnnn")
        assert len(shown) < 5000


def test_gzip_is_checked_to_its_last_byte(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD + END)
    assert (unpack(tmp_path, whole) / "file").read_text() == "data"
    assert (unpack(tmp_path, whole + bytes(5000)) / "file").read_text() == "data"
    halves = gzip.compress(GOOD[:100]) + gzip.compress(GOOD[100:]) + gzip.compress(b"") + gzip.compress(END)
    assert (unpack(tmp_path, halves) / "file").read_text() == "data"
    for length in range(1, len(whole)):
        with pytest.raises(ArchiveError, match=r"a\.tar"):
            unpack(tmp_path, whole[:length])
    for position in range(len(whole) - 8, len(whole)):
        with pytest.raises(ArchiveError, match=r"a\.tar: the gzip data before byte \d+ of the file are corrupt"):
            unpack(tmp_path, whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    with pytest.raises(ArchiveError, match="are not gzip data"):
        unpack(tmp_path, whole + b"garbage")


def test_gzip_without_isal_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    test_gzip_is_checked_to_its_last_byte(tmp_path)


def seeds() -> dict[str, bytes]:
    """Small archives with everything in them that is parsed."""
    owner = (b"uid", b"%d" % os.getuid()), (b"gid", b"%d" % os.getgid())
    pax = (
        extended(*owner, (b"path", "é/x".encode()), (b"mtime", b"-1.5"), (b"SCHILY.xattr.user.a", b"b"))
        + plain()
        + extended((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9000"))
        + bytes(header(b"GNUSparseFile.0/s", 516))
        + padded(b"1\n4096\n4\n")
        + padded(b"data")
        + extended((b"GNU.sparse.size", b"9000"), (b"GNU.sparse.map", b"0,2,4096,2"))
        + plain(b"t")
        + extended((b"SCHILY.acl.access", b"user::rw-,user:7:r--,group::r--,mask::r--,other::r--"))
        + plain(b"acl")
        + END
    )
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, link in (
            ("n" * 150, tarfile.REGTYPE, ""),
            ("d", tarfile.DIRTYPE, ""),
            ("d/s", tarfile.SYMTYPE, "../" + "l" * 150),
            ("d/h", tarfile.LNKTYPE, "n" * 150),
            ("f", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.uid, info.gid = kind, link, os.getuid(), os.getgid()
            archive.addfile(info)
    sparse = header(b"old", 4, flag=b"S", magic=b"ustar  \0")
    sparse[386:410] = b"%011o\0%011o\0" % (4096, 4)
    sparse[483:495] = b"%011o\0" % 9000
    return {"pax": pax, "gnu": stream.getvalue()[:8192], "sparse": bytes(summed(sparse)) + padded(b"data") + END}


@pytest.mark.parametrize("name", ["pax", "gnu", "sparse"])
@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_an_error_or_stays_inside(name: str, compressed: bool, tmp_path: Path) -> None:
    """Change bytes at random; half of the time the header checksum is right, or the code after it would not run."""
    whole = seeds()[name]
    unpack(tmp_path, whole)
    source = random.Random(f"{name} {compressed}")
    outcomes = {True: 0, False: 0}
    for _ in range(400):
        data = damaged(whole, source)
        if compressed:
            data = gzip.compress(data, 1)
            if source.random() < 0.3:
                data = damaged(data, source)
        try:
            unpack(tmp_path, data)
            outcomes[True] += 1
        except DiskImageError:
            outcomes[False] += 1
        clear(tmp_path / "target")
        assert sorted(os.listdir(tmp_path)) == ["a.tar", "target"]
    assert outcomes[False] > 50


def damaged(whole: bytes, source: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        position = source.randrange(len(data))
        data[position] = source.choice((0, 0x20, 0x2F, 0x30, 0x37, 0x80, 0xFF, source.randrange(256)))
        block = position // 512 * 512
        if source.random() < 0.7 and data[block + 257 : block + 262] == b"ustar":
            data[block : block + 512] = summed(data[block : block + 512])
    if source.random() < 0.1:
        del data[source.randrange(len(data)) :]
    return bytes(data)


def clear(target: Path) -> None:
    """Empty the directory; modes may be anything."""
    for path in walk(os.fsencode(target)):
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)  # before walk() lists it
    for path in sorted(walk(os.fsencode(target)), key=len, reverse=True):
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
        elif path != os.fsencode(target):
            os.rmdir(path)


BOMBS = {
    "one long sparse map": lambda: (
        extended((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        + bytes(header(b"f", 200 << 20))
        + b"99999999\n"
        + b"0\n0\n" * (50 << 20)
    ),
    "old sparse map without an end": lambda: (
        bytes(old_sparse_with_extension()) + (b"%011o\0%011o\0" % (0, 0) * 21 + b"\1" + bytes(7)) * 200_000
    ),
    "extended header of 4 GiB": lambda: bytes(header(b"x", (1 << 32) - 1, flag=b"x")) + bytes(100 << 20),
    "extended headers without an end": lambda: extended((b"comment", b"c" * 1000)) * 100_000,
    "long names without an end": lambda: (bytes(header(b"l", 1 << 20, flag=b"L")) + b"n" * (1 << 20)) * 100,
}


def old_sparse_with_extension() -> bytearray:
    block = header(b"f", 4, flag=b"S", magic=b"ustar  \0")
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[482] = 1
    block[483:495] = b"%011o\0" % 9000
    return summed(block)


@pytest.mark.parametrize("name", BOMBS)
def test_memory_stays_bounded(name: str, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.tar", "wb", compresslevel=1) as file:
        file.write(BOMBS[name]())
    (tmp_path / "target").mkdir()
    with limits(60, 250 << 20), pytest.raises(ArchiveError):
        extract(tmp_path / "a.tar", str(tmp_path / "target"))
