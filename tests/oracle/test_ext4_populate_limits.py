# SPDX-License-Identifier: MIT
"""Tarballs with what is as large as it can be, and one more: kept as it is, or refused with a sentence.

e2fsck judges what was made, and it is read back.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.errors import DiskImageError, FileSystemError
from pydiskimg.files.tar import open_tar
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.images.open_disk import open_disk
from pydiskimg.protocols import read_bytes
from pydiskimg.units import KIB, MIB
from tests.fixtures.limits import assert_sentence, limits
from tests.fixtures.made_entries import filled_file, regular
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

Member = tuple[tarfile.TarInfo, bytes]
SIZE = 40 * MIB
SECOND = 1_000_000_000
LARGEST = ((1 << 32) - 1) * 4 * KIB  # of a file, with blocks of 4 KiB
FIRST, LAST = -(1 << 31), (1 << 34) - (1 << 31) - 1  # seconds that an inode of 256 bytes has


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def sparse(size: int, pieces: list[tuple[int, bytes]]) -> Member:
    """A sparse file in GNU's format 1.0, whose map is text."""
    numbers = [len(pieces), *(number for offset, data in pieces for number in (offset, len(data)))]
    table = "".join(f"{number}\n" for number in numbers).encode()
    data = table + bytes(-len(table) % 512) + b"".join(data for _, data in pieces)
    keywords = {"major": "1", "minor": "0", "name": "file", "realsize": str(size)}
    headers = {f"GNU.sparse.{word}": value for word, value in keywords.items()}
    return member("file", data=data, pax_headers=headers)


def with_attributes(attributes: dict[str, str]) -> Member:
    headers = {f"SCHILY.xattr.{name}": value for name, value in attributes.items()}
    return member("file", data=b"x", pax_headers=headers)


@contextmanager
def unpacked(tool: Tool, directory: Path, members: Iterable[Member], **options: Any) -> Iterator[ExtTree]:
    """Give the files of a file system that is filled from a tarball of members; e2fsck finds it in order."""
    archive, disk = directory / "a.tar", directory / "disk"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    with open_tar(archive) as entries:
        filled_file(disk, SIZE, entries, **{"block_size": 4096, **options})
    run(tool("e2fsck"), "-fn", disk)
    with open_disk(disk) as opened, open_ext_tree(opened) as tree:
        yield tree


def refused(tool: Tool, directory: Path, members: Iterable[Member], text: str, **options: Any) -> None:
    """Check that a tarball is refused in one sentence, and that no file system was made."""
    with pytest.raises(DiskImageError, match=text) as caught, unpacked(tool, directory, members, **options):
        pass
    assert_sentence(str(caught.value))
    with open_disk(directory / "disk") as disk, pytest.raises(FileSystemError):
        open_ext_tree(disk)


def test_the_largest_sparse_file(tool: Tool, tmp_path: Path) -> None:
    pieces = [(0, b"a" * 512), (1 << 41, b"m" * 512), (LARGEST - 512, b"z" * 512)]
    with limits(), unpacked(tool, tmp_path, [sparse(LARGEST, pieces)]) as tree:
        assert tree.stat("/file").st_size == LARGEST
        assert tree.stat("/file").st_blocks == 3 * 8
        file = tree.open("/file")
        for offset, data in pieces:
            assert read_bytes(file, offset, 512) == data
        assert read_bytes(file, LARGEST - 4096, 3584) == bytes(3584)


@pytest.mark.parametrize("size", [LARGEST + 1, 1 << 60, (1 << 63) - 1])
def test_a_larger_sparse_file(tool: Tool, tmp_path: Path, size: int) -> None:
    text = f"entry file: has {size} bytes, and a file here at most {LARGEST}"
    with limits():
        refused(tool, tmp_path, [sparse(size, [(size - 512, b"z" * 512)])], text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(1 << 63, "its size is 9223372036854775808; expected"), (1 << 64, "realsize is not a number")],
)
def test_a_size_that_no_file_has(tool: Tool, tmp_path: Path, size: int, text: str) -> None:
    refused(tool, tmp_path, [sparse(size, [(0, b"z" * 512)])], f"entry file: .*{text}")


def test_as_many_hard_links_as_there_can_be_and_one_more(tool: Tool, tmp_path: Path) -> None:
    names, disk = [b"%d" % number for number in range(1, 65_000)], tmp_path / "disk"
    filled_file(disk, SIZE, [regular("file", b"x", names=names)])
    run(tool("e2fsck"), "-fn", disk)
    with open_disk(disk) as opened, open_ext_tree(opened) as tree:
        assert tree.stat("/64999").st_nlink == 65_000
    with pytest.raises(DiskImageError, match="entry file: its file already has 65000 names"):
        filled_file(disk, SIZE, [regular("file", b"x", names=[*names, b"more"])])


def test_a_path_of_a_thousand_components_and_names_of_255_bytes(tool: Tool, tmp_path: Path) -> None:
    deep, long = "d/" * 1000 + "file", "n" * 255
    members = [member(deep, data=b"deep"), member(long, data=b"long"), member(f"{long}-d"[3:] + "/" + long)]
    with unpacked(tool, tmp_path, members) as tree:
        assert (tree.read(f"/{deep}"), tree.read(f"/{long}")) == (b"deep", b"long")
        assert tree.exists("/" + f"{long}-d/"[3:] + long)
        assert sum(1 for _ in tree.walk()) == (1000 + 1) + 1 + (1 + 1) + 1  # with /lost+found


@pytest.mark.parametrize("name", ["n" * 256, "n" * 256 + "/file", "d/" + "n" * 256])
def test_a_name_of_256_bytes(tool: Tool, tmp_path: Path, name: str) -> None:
    text = r"a name of 256 bytes in its path is longer than the kernel accepts \(255\)"
    refused(tool, tmp_path, [member(name)], text)


def test_a_path_of_4096_bytes(tool: Tool, tmp_path: Path) -> None:
    with unpacked(tool, tmp_path, [member("d/" * 2047 + "f", data=b"x")]) as tree:
        assert tree.read("/" + "d/" * 2046 + "d/f") == b"x"
    longer = unpacked(tool, tmp_path, [member("d/" * 2047 + "ff")])
    with (
        pytest.raises(DiskImageError, match=r"its path of 4096 bytes is longer .* accepts \(4095\)"),
        longer,
    ):
        pass


@pytest.mark.parametrize(("block_size", "longest"), [(1024, 1023), (2048, 2047), (4096, 4095)])
def test_the_longest_symlink_and_one_more(tool: Tool, tmp_path: Path, block_size: int, longest: int) -> None:
    lengths = (1, 59, 60, 61, longest)
    members = [member(f"s{length}", tarfile.SYMTYPE, linkname="t" * length) for length in lengths]
    with unpacked(tool, tmp_path, members, block_size=block_size) as tree:
        assert all(tree.readlink(f"/s{length}") == "t" * length for length in lengths)
    longer = member("s", tarfile.SYMTYPE, linkname="t" * (longest + 1))
    refused(tool, tmp_path, [longer], f"a symlink here at most {longest}", block_size=block_size)


def test_as_many_attributes_as_fit(tool: Tool, tmp_path: Path) -> None:
    block = {"user.large": "v" * (4096 - 32 - 16 - 8 - 4)}  # header, the attribute's own, its name, the end
    inode = {"user.small": "i" * 40}
    with unpacked(tool, tmp_path, [with_attributes(block | inode)]) as tree:
        assert tree.attributes("/file") == {name: value.encode() for name, value in (block | inode).items()}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"user.large": "v" * 4041}, "the attribute user.large of 4041 bytes does not fit"),
        ({"user.large": "v" * (64 * KIB + 1)}, "the attribute user.large of 65537 bytes does not fit"),
        ({f"user.{number}": "v" * 10 for number in range(400)}, r"the attribute user\.\d+ of 10 bytes does not fit"),
        ({"user." + "n" * 251: "v"}, "Numerical result out of range"),
    ],
    ids=["one block", "any", "many", "name"],
)
def test_attributes_that_are_too_large(tool: Tool, tmp_path: Path, attributes: dict[str, str], text: str) -> None:
    refused(tool, tmp_path, [with_attributes(attributes)], text)


def test_the_largest_ids(tool: Tool, tmp_path: Path) -> None:
    largest = (1 << 32) - 2
    with unpacked(tool, tmp_path, [member("file", uid=largest, gid=largest)]) as tree:
        status = tree.stat("/file")
        assert (status.st_uid, status.st_gid) == (largest, largest)


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "-1"])
@pytest.mark.parametrize("field", ["uid", "gid"])
def test_ids_that_no_file_has(tool: Tool, tmp_path: Path, field: str, number: str) -> None:
    file = member("file", pax_headers={field: number})
    refused(tool, tmp_path, [file], f"entry file: its {'owner' if field == 'uid' else 'group'} is {number}; expected")


def test_times_from_1901_to_2446_and_the_nearest_to_others(tool: Tool, tmp_path: Path) -> None:
    seconds = [FIRST - 1, FIRST, -1, (1 << 31) - 1, 1 << 31, 1 << 32, LAST - 1, LAST + 1, 1 << 34, 10**12]
    seconds.append(-(10**11))
    files = [member(f"{number}", pax_headers={"mtime": f"{time}.5"}) for number, time in enumerate(seconds)]
    with unpacked(tool, tmp_path, files) as tree:
        for number, time in enumerate(seconds):
            found = tree.stat(f"/{number}").st_mtime_ns
            expected = time * SECOND + SECOND // 2  # also before 1970: "-1.5" is half a second before -1
            if time < 0:
                expected = time * SECOND - SECOND // 2
            assert found == min(max(expected, FIRST * SECOND), LAST * SECOND), time


@pytest.mark.parametrize("time", ["1e300", "nan", "9" * 40, str(1 << 63)])
def test_what_is_not_a_time(tool: Tool, tmp_path: Path, time: str) -> None:
    refused(tool, tmp_path, [member("file", pax_headers={"mtime": time})], "entry file: .* is not a time")
