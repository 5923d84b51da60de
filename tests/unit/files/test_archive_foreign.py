# SPDX-License-Identifier: MIT
"""Archives of other systems: attributes that Linux does not have, and global headers that only inform."""

from __future__ import annotations

import base64
import errno
import os
import tarfile
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, StorageError
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.tar import Extracted, extract

Records = dict[str, str]


def packed(path: Path, records: Records, *, kind: bytes = tarfile.REGTYPE, shared: Records | None = None) -> Path:
    """An archive of "first", which has these records, and of a plain file after it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=shared or {}) as archive:
        for name in ("first", "second"):
            member = tarfile.TarInfo(name)
            member.uid, member.gid = os.getuid(), os.getgid()
            if name == "first":
                member.type, member.linkname, member.pax_headers = kind, "nowhere", records
            archive.addfile(member)
    return path


def unpacked(tmp_path: Path, archive: Path) -> Extracted:
    target = tmp_path / "target"
    target.mkdir()
    done = extract(archive, str(target))
    assert sorted(os.listdir(target)) == ["first", "second"]
    return done


FOREIGN = {
    "SCHILY.xattr.com.apple.provenance": "com.apple.provenance of first",
    "LIBARCHIVE.xattr.com.apple.provenance": "com.apple.provenance of first",
    "SCHILY.xattr.btrfs.compression": "btrfs.compression of first",
    "SCHILY.xattr.system.nfs4_acl": "system.nfs4_acl of first",
    "SCHILY.xattr.system.ntfs_attrib": "system.ntfs_attrib of first",
    "SCHILY.xattr.osx.a": "osx.a of first",
    "SCHILY.xattr.no-namespace": "no-namespace of first",
    "SCHILY.xattr.com.apple.%0A": "com.apple.\\n of first",
    "SCHILY.xattr.com.apple." + "n" * 300: "com.apple." + "n" * 245 + " of first",
}


@pytest.mark.parametrize("keyword", FOREIGN)
def test_an_attribute_of_another_system_is_left_out(keyword: str, tmp_path: Path) -> None:
    done = unpacked(tmp_path, packed(tmp_path / "a.tar", {keyword: base64.b64encode(b"value").decode()}))
    assert (done.left_out.count, done.left_out.first) == (1, FOREIGN[keyword])
    assert str(done.left_out) == (
        f"an extended attribute that the file system cannot hold is left out: {FOREIGN[keyword]}"
    )


def test_a_value_longer_than_any_of_linux(tmp_path: Path) -> None:
    done = unpacked(tmp_path, packed(tmp_path / "a.tar", {"SCHILY.xattr.com.apple.ResourceFork": "r" * 300_000}))
    assert done.left_out.first == "com.apple.ResourceFork of first"


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_of_every_kind_of_file(kind: bytes, tmp_path: Path) -> None:
    done = unpacked(tmp_path, packed(tmp_path / "a.tar", {"SCHILY.xattr.com.apple.quarantine": "q"}, kind=kind))
    assert done.left_out.count == 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_user_attributes_of_what_has_none_on_linux(kind: bytes, tmp_path: Path) -> None:
    done = unpacked(tmp_path, packed(tmp_path / "a.tar", {"SCHILY.xattr.user.a": "1"}, kind=kind))
    assert (done.left_out.count, done.left_out.first) == (1, "user.a of first")


def test_the_count_and_the_first() -> None:
    left_out = AttributesLeftOut()
    assert not left_out
    left_out.add(b"com.apple.a", b"x\n")
    left_out.add(b"com.apple.b", b"y")
    assert left_out
    assert str(left_out) == (
        "2 extended attributes that the file system cannot hold are left out; the first: com.apple.a of x\\n"
    )


def test_an_attribute_that_linux_has_stays_an_error_where_it_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"a\.tar: entry first: cannot set the attribute user\.a of 70000 bytes: Arg"
    ):
        unpacked(tmp_path, packed(tmp_path / "a.tar", {"SCHILY.xattr.user.a": "x" * 70_000}))


@pytest.mark.parametrize("name", ["security.a", "trusted.a"])
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.E2BIG, errno.EPERM, errno.EINVAL, errno.EACCES])
def test_what_protects_a_system_is_an_error(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(StorageError, match=f"entry first: cannot set the attribute {name} of 1 bytes") as caught:
        unpacked(tmp_path, packed(tmp_path / "a.tar", {f"SCHILY.xattr.{name}": "1"}))
    assert caught.value.errno == number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("com.apple.a", errno.EIO),
        ("com.apple.a", errno.EROFS),
        ("btrfs.compression", errno.EINVAL),
        ("user.a", errno.EPERM),
        ("user.a", errno.EDQUOT),
    ],
)
def test_other_failures_are_errors(name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(StorageError, match=os.strerror(number)):
        unpacked(tmp_path, packed(tmp_path / "a.tar", {f"SCHILY.xattr.{name}": "1"}))


INFORMS: Records = {
    "comment": "0123456789abcdef0123456789abcdef01234567",
    "charset": "ISO-IR 10646 2000 UTF-8",
    "hdrcharset": "BINARY",
    "ctime": "1",
    "GNU.volume.label": "a label",
    "LIBARCHIVE.creationtime": "1700000000",
    "SCHILY.archtype": "exustar",
    "SCHILY.release": "star 1.5.3",
    "SCHILY.volhdr.label": "x",
    "SCHILY.volhdr.blocksize": "20",
    "VENDOR.keyword": "x",
    "GOLANG.pkg": "tar",
    "MSWINDOWS.rawsd": "AQ==",
    "path": "",  # takes back what was never given
}


@pytest.mark.parametrize("keyword", INFORMS)
def test_a_global_header_that_informs_is_passed_over(keyword: str, tmp_path: Path) -> None:
    assert unpacked(tmp_path, packed(tmp_path / "a.tar", {}, shared={keyword: INFORMS[keyword]})).entries == 2


CHANGES: Records = {
    "path": "other",
    "linkpath": "other",
    "size": "0",
    "uid": "1",
    "gid": "1",
    "uname": "root",
    "gname": "root",
    "mtime": "5",
    "atime": "5",
    "SCHILY.xattr.user.a": "1",
    "SCHILY.acl.access": "user::rwx",
    "SCHILY.devmajor": "1",
    "SCHILY.realsize": "1",
    "SCHILY.fflags": "schg",
    "SCHILY.filetype": "sparse",
    "LIBARCHIVE.xattr.user.a": "MQ==",
    "GNU.sparse.major": "1",
    "GNU.volume.offset": "512",
    "GNU.volume.filename": "first",
    "GNU.dumpdir": "Y",
    "RHT.security.selinux": "a",
    "SUN.holesdata": " 0",
    "security.a": "1",
    "unknown": "1",
}


@pytest.mark.parametrize("keyword", CHANGES)
def test_a_global_header_that_would_change_members_is_refused(keyword: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=rf"a\.tar: .*a global extended header sets {keyword}, which is not applied"):
        unpacked(tmp_path, packed(tmp_path / "a.tar", {}, shared={"comment": "x", keyword: CHANGES[keyword]}))


def test_an_owner_that_is_given_empty_is_the_headers(tmp_path: Path) -> None:
    unpacked(tmp_path, packed(tmp_path / "a.tar", {"uid": "", "gid": ""}))
    status = (tmp_path / "target/first").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
