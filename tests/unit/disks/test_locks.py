# SPDX-License-Identifier: MIT
"""Locks on images as QEMU places them: which programs we refuse, which may read, and what is locked while we write."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.disks.new_file import new_disk_file, new_file
from pydiskimg.errors import InUseError
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk

FLOCK = struct.Struct("hhqqi0q")
# What QEMU 7.2 and 10 were seen to hold: uses from 100 on, what they do not bear in others from 200 on.
WRITER = (100, 101, 103, 201, 203)
READER = (100, 201)
WRITER_BESIDE_OTHERS = (100, 101)
READER_BESIDE_WRITERS = (100,)


@contextmanager
def locked(path: Path, places: tuple[int, ...]) -> Iterator[None]:
    with path.open("rb") as file:
        for place in places:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, 0, place, 1, 0))
        yield


def locks_seen(path: Path) -> set[int]:
    with path.open("r+b") as file:
        answers = {
            place: fcntl.fcntl(file, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, 0, place, 1, 0))
            for place in range(300)
        }
    return {place for place, answer in answers.items() if FLOCK.unpack(answer)[0] != fcntl.F_UNLCK}


@pytest.fixture(params=["raw", "qcow2"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "x.img"
    with new_image(path, 1 << 20, format=request.param):
        pass
    return path, request.param


@pytest.mark.parametrize("places", [WRITER, READER, WRITER_BESIDE_OTHERS])
def test_what_a_machine_uses_is_not_written(image: tuple[Path, str], places: tuple[int, ...]) -> None:
    path, form = image
    before = path.read_bytes()
    with locked(path, places):
        with pytest.raises(InUseError, match=r"is in use \(.* as QEMU does\); nothing was written") as caught:
            open_disk(path, writable=True, format=form)  # both are known
        assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(path))
        with open_image(path, format=form) as source:
            assert source.size == 1 << 20
    open_disk(path, writable=True).close()
    assert path.read_bytes() == before


def test_a_reader_that_bears_writers_is_no_hindrance(image: tuple[Path, str]) -> None:
    with locked(image[0], READER_BESIDE_WRITERS), open_disk(image[0], writable=True) as disk:
        disk.write(0, b"x")


def test_the_locks_of_a_writer_are_held_while_it_is_open(image: tuple[Path, str]) -> None:
    path, form = image
    with open_disk(path, writable=True, format=form):  # both are known
        assert locks_seen(path) == {100, 101, 102, 103, 150, 201, 202, 203}
    assert locks_seen(path) == set()
    with open_disk(path):
        assert locks_seen(path) == set()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_such_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")

    def refuse(fd: int, command: int, argument: object = 0) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with open_disk(path, writable=True) as disk:
        disk.write(0, b"new")
    assert path.read_bytes() == b"new"


def _new_image(path: Path) -> object:
    return new_image(path, 1 << 20, format="qcow2")


def _new_disk_file(path: Path) -> object:
    return new_disk_file(path, 1 << 20)


@contextmanager
def _flocked(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def _machine(path: Path) -> Iterator[None]:
    with locked(path, WRITER):
        yield


@pytest.mark.parametrize("make", [_new_image, _new_disk_file, new_file])
@pytest.mark.parametrize("holding", [_flocked, _machine])
def test_a_file_in_use_is_not_replaced(tmp_path: Path, make: Callable[[Path], object], holding: object) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")
    before = path.stat()
    with (
        holding(path),  # type: ignore[operator]  # a context manager of the two above
        pytest.raises(InUseError, match=r"is in use \(.*\); nothing was written"),
        make(path),  # type: ignore[attr-defined]  # a context manager
    ):
        pytest.fail("it was begun")
    assert (path.read_bytes(), path.stat().st_ino) == (b"old", before.st_ino)
    assert os.listdir(tmp_path) == ["disk"]
    with make(path):  # type: ignore[attr-defined]  # a context manager
        assert locks_seen(path) >= {101, 201}
    assert path.read_bytes() != b"old"


def test_a_file_that_may_not_be_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")
    path.chmod(0o200)
    with new_disk_file(path, 5):
        pass
    path.chmod(0o600)
    assert path.read_bytes() == bytes(5)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF])
def test_a_file_is_replaced_where_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """EBADF: NFS locks for writing only what is open for writing."""
    path = tmp_path / "disk"
    path.write_bytes(b"old")

    def refuse(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with new_disk_file(path, 5):
        pass
    assert path.read_bytes() == bytes(5)


def test_the_file_to_be_replaced_is_open_for_writing_when_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"old")
    modes = []
    true_flock = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
        true_flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with new_disk_file(path, 5):
        pass
    assert modes == [os.O_RDWR]


def test_who_holds_a_lock_may_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc."""
    path = tmp_path / "disk"
    path.write_bytes(b"old")

    def refuse(path: str) -> str:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    with locked(path, WRITER):
        monkeypatch.setattr(os, "readlink", refuse)
        with pytest.raises(InUseError, match="a virtual machine or another program has locked it as QEMU does"):
            open_disk(path, writable=True)
