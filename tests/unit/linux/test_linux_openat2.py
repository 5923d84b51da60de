# SPDX-License-Identifier: MIT
"""openat2(2) as we call it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg.errors import StorageError
from pydiskimg.linux import libc
from pydiskimg.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_text("inside")
    (tmp_path / "absolute").symlink_to("/file")
    (tmp_path / "up").symlink_to("../../../file")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


@pytest.mark.parametrize("path", ["file", "/file", b"file", "absolute", "up", "../../file"])
def test_root_is_the_directory(root: int, path: str | bytes) -> None:
    assert read(openat2(root, path, os.O_RDONLY, resolve=RESOLVE_IN_ROOT)) == b"inside"


@pytest.mark.parametrize(
    ("path", "resolve", "expected"),
    [
        ("absolute", RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("absolute", RESOLVE_BENEATH, errno.EXDEV),
        ("../x", RESOLVE_BENEATH, errno.EXDEV),
        ("missing", RESOLVE_IN_ROOT, errno.ENOENT),
        ("file/x", RESOLVE_IN_ROOT, errno.ENOTDIR),
        ("file", 1 << 40, errno.EINVAL),
        ("nul\0byte", 0, errno.EINVAL),
        (b"nul\0byte", 0, errno.EINVAL),
        ("x" * 5000, 0, errno.ENAMETOOLONG),
    ],
)
def test_refusals_have_errno_and_path(root: int, path: str | bytes, resolve: int, expected: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is looked at below
        openat2(root, path, os.O_RDONLY, resolve=resolve)
    assert (caught.value.errno, caught.value.filename) == (expected, path)


def test_magic_links_are_refused() -> None:
    fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links") as caught:
            openat2(fd, "exe", os.O_PATH, resolve=RESOLVE_NO_MAGICLINKS)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(fd)


def test_descriptor_is_not_inherited(root: int) -> None:
    fd = openat2(root, "file", os.O_RDONLY)
    try:
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        os.close(fd)


def test_made_with_the_mode(root: int, tmp_path: Path) -> None:
    os.close(openat2(root, "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600, resolve=RESOLVE_IN_ROOT))
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o600


def failing(number: int, times: int, calls: list[int]) -> Callable[..., int]:
    """A system call that fails this many times, then works: what another process's renames would do."""
    real = libc.syscall

    def syscall(*arguments: object) -> int:
        calls.append(number)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number))
        return real(*arguments)  # type: ignore[arg-type]  # passed through untouched

    return syscall


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR])
def test_interruptions_are_retried(root: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    calls: list[int] = []
    monkeypatch.setattr(libc, "syscall", failing(number, 3, calls))
    os.close(openat2(root, "file", os.O_RDONLY, resolve=RESOLVE_IN_ROOT))
    assert len(calls) == 4


def test_endless_renames_end(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(libc, "syscall", failing(errno.EAGAIN, 1 << 60, calls))
    with pytest.raises(BlockingIOError):
        openat2(root, "file", os.O_RDONLY, resolve=RESOLVE_IN_ROOT)
    assert len(calls) < 1000


def test_old_kernel_gets_a_sentence(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "syscall", failing(errno.ENOSYS, 1, []))
    with pytest.raises(StorageError, match=r"Linux 5\.6 is needed"):
        openat2(root, "file", os.O_RDONLY)
