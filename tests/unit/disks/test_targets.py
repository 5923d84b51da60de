# SPDX-License-Identifier: MIT
"""Disks over files, the zeroing ladder with injected errno, regions, and what open_disk() refuses."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.disks.file import FileDisk
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.disks.new_file import new_disk_file
from pydiskimg.disks.store import FixedStore, GrowingFile
from pydiskimg.disks.zeroing import Rung, ZeroLadder
from pydiskimg.errors import InUseError, StorageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.create import new_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.protocols import Disk
from pydiskimg.regions.region import Region, SourceRegion

REFUSALS = [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL, errno.ENODEV, errno.EPERM, errno.EIO]


def failing(number: int, calls: list[str], name: str) -> Rung:
    def zero(offset: int, length: int) -> None:
        calls.append(name)
        raise OSError(number, os.strerror(number))

    return Rung(name, zero)


@pytest.mark.parametrize("number", REFUSALS)
def test_a_rung_that_cannot_is_tried_once(number: int, caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk(100_000, fill=0xFF)
    calls: list[str] = []
    works = Rung("works", disk.zero)
    ladder = ZeroLadder(
        "d", [failing(number, calls, "a"), failing(number, calls, "b"), works], write=disk.write, alignment=512
    )
    with caplog.at_level("INFO"):
        ladder.zero(0, 51_200)
        ladder.zero(51_200, 51_200 - 3000 // 512 * 512)
    assert calls == ["a", "b"]
    assert ladder.current == "works"
    assert "a does not work here" in caplog.text
    assert disk.bytes_written == 0


@pytest.mark.parametrize("number", REFUSALS)
def test_written_zeros_are_the_last_resort(number: int) -> None:
    disk = MemoryDisk(5_000_000, fill=0xFF)
    ladder = ZeroLadder("d", [failing(number, [], "a")], write=disk.write, alignment=4096)
    ladder.zero(1000, 4_000_000)
    assert disk.data == b"\xff" * 1000 + bytes(4_000_000) + b"\xff" * 999_000
    assert ladder.current == "written zeros"


def test_a_true_error_is_not_taken_for_a_missing_feature() -> None:
    ladder = ZeroLadder("/dev/x", [failing(errno.ENOSPC, [], "a")], write=MemoryDisk(9).write, alignment=1)
    with pytest.raises(StorageError, match=r"/dev/x: cannot zero 4096 bytes at offset 0 .*No space left") as caught:
        ladder.zero(0, 4096)
    assert caught.value.errno == errno.ENOSPC
    assert ladder.current == "a"


@given(st.integers(0, 20_000), st.integers(0, 20_000), st.sampled_from([1, 512, 4096]))
def test_ragged_ends_are_written(offset: int, length: int, alignment: int) -> None:
    disk = MemoryDisk(40_000, fill=0xFF)

    def aligned_only(start: int, size: int) -> None:
        assert start % alignment == size % alignment == 0
        disk.zero(start, size)

    ZeroLadder("d", [Rung("r", aligned_only)], write=disk.write, alignment=alignment).zero(offset, length)
    assert disk.data == b"\xff" * offset + bytes(length) + b"\xff" * (40_000 - offset - length)


def test_a_file_is_read_written_and_zeroed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a disk.img"
    path.write_bytes(b"\xff" * 1_000_001)
    inode = path.stat().st_ino
    with open_disk(path, writable=True) as disk:
        assert (disk.size, disk.sector_size, disk.reads_as_zero) == (1_000_001, 512, False)
        disk.zero(10, 900_000)
        disk.write(1_000_000, b"x")
        disk.flush()
        disk.drop_cache()
        with pytest.raises(ValueError, match="outside"):
            disk.write(1_000_001, b"x")
        with pytest.raises(ValueError, match="outside"):
            disk.zero(-1, 2)
    assert path.read_bytes() == b"\xff" * 10 + bytes(900_000) + b"\xff" * (1_000_000 - 900_010) + b"x"
    assert path.stat().st_ino == inode


def test_a_file_that_another_process_locks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InUseError, match="in use") as caught:
            open_disk(path, writable=True)
    assert caught.value.filename == str(path)
    open_disk(path, writable=True).close()


def test_two_openings_for_writing_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")
    with open_disk(path, writable=True), pytest.raises(InUseError):
        open_disk(path, writable=True)


def test_close_may_be_called_again(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")
    opened = open_disk(path)
    opened.close()
    opened.close()


def test_what_is_no_disk_is_refused_in_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, words in (
        (str(tmp_path), "is a directory; expected a block device or a regular file"),
        (str(tmp_path / "fifo"), "is a named pipe"),
        ("/dev/null", "is a character device"),
        (str(tmp_path / "missing"), "cannot open for writing: No such file or directory"),
        ("a\0b", "is not a path"),
    ):
        with pytest.raises(StorageError, match=words):
            open_disk(path, writable=True)


def test_a_region_is_a_disk_with_its_own_bounds() -> None:
    disk = MemoryDisk(100, fill=0xFF)
    region = Region(disk, 10, 20)
    region.write(0, b"ab")
    region.zero(18, 2)
    assert disk.data[9:13] == b"\xffab\xff"
    assert disk.data[27:31] == b"\xff\0\0\xff"
    assert [(e.start, e.length) for e in region.extents()] == [(0, 20)]
    with pytest.raises(ValueError, match="outside"):
        region.write(19, b"ab")
    with pytest.raises(ValueError, match="outside"):
        Region(disk, 90, 11)


def _open_raw(path: Path) -> AbstractContextManager[Disk]:
    path.write_bytes(b"old" * 100_000)
    return open_disk(path, writable=True)


def _open_qcow2(path: Path) -> AbstractContextManager[Disk]:
    with new_image(path, 300_000, format="qcow2"):
        pass
    return open_disk(path, writable=True, format="qcow2")


def _new_qcow2(path: Path) -> AbstractContextManager[Disk]:
    return new_image(path, 300_000, format="qcow2", compress=True)


def _new_raw(path: Path) -> AbstractContextManager[Disk]:
    return new_disk_file(path, 300_000)


OPERATIONS: list[Callable[[Any], object]] = [
    lambda disk: disk.write(0, b"over the next file"),
    lambda disk: disk.write(4096, memoryview(mmap(-1, 4096))),
    lambda disk: disk.zero(0, 4096),
    lambda disk: disk.read_into(0, bytearray(10)),
    lambda disk: disk.flush(),
    lambda disk: disk.drop_cache(),
    lambda disk: list(disk.extents()),
]


@pytest.mark.parametrize("opened", [_open_raw, _open_qcow2, _new_raw, _new_qcow2])
def test_a_closed_disk_writes_to_nobody(tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Disk]]) -> None:
    """The descriptor's number is given to the next file that is opened."""
    others = [tmp_path / f"other {index}" for index in range(8)]
    for other in others:
        other.write_bytes(b"not ours" * 10_000)
    with opened(tmp_path / "disk") as disk:
        disk.write(0, b"ours")
    with ExitStack() as stack:
        for other in others:
            stack.enter_context(other.open("r+b"))
        for operation in OPERATIONS:
            with pytest.raises(StorageError, match=r"/disk: is closed$") as caught:
                operation(disk)
            assert caught.value.errno == errno.EBADF
    assert {other.read_bytes() for other in others} == {b"not ours" * 10_000}


def test_a_closed_growing_disk(tmp_path: Path) -> None:
    with open_disk(_file(tmp_path / "disk", 4096), writable=True) as disk:
        stores: list[Any] = [FixedStore(disk), GrowingFile(disk.fd, disk.name)]
    stores[1].release()
    for store in stores:
        for operation in OPERATIONS[:1] + OPERATIONS[3:6]:
            with pytest.raises(StorageError, match=r"/disk: is closed$"):
                operation(store)


def _file(path: Path, size: int) -> Path:
    path.write_bytes(bytes(size))
    return path


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_was_opened_for_reading_is_not_written(tmp_path: Path, form: str) -> None:
    path = tmp_path / "disk"
    with new_image(path, 300_000, format=form) as made:
        made.write(0, b"old")
    before = path.read_bytes()
    with open_disk(path, format=form) as disk:  # both are known
        for operation in OPERATIONS[:3]:
            with pytest.raises(StorageError, match=r"/disk: was opened for reading only$") as caught:
                operation(disk)
            assert caught.value.errno == errno.EBADF
        for operation in OPERATIONS[3:]:
            operation(disk)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [FileDisk, GrowingFile])
def test_a_flush_that_failed_once_is_never_a_success(
    kind: type[FileDisk | GrowingFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with (tmp_path / "file").open("wb+") as file:
        target = kind(file.fileno(), "file")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fails)
            with pytest.raises(StorageError, match="cannot flush"):
                target.flush()
        with pytest.raises(StorageError, match="cannot flush"):
            target.flush()


def test_extents_after_a_region_are_not_asked_for() -> None:
    """A small part of an image with millions of extents: the fuzzer saw dd go through all of them."""
    taken: list[int] = []

    class Counted(MemoryDisk):
        def extents(self) -> Iterator[Extent]:
            for start in range(self.size):
                taken.append(start)
                yield Extent(start, 1, Kind.DATA if start % 2 else Kind.HOLE)

    region = SourceRegion(Counted(1000), 10, 5)
    assert [extent.start for extent in region.extents()] == [0, 1, 2, 3, 4]
    assert len(taken) == 15
