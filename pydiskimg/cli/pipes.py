# SPDX-License-Identifier: MIT
"""Find the arguments that are pipes: "-", the names of open descriptors, and named pipes."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager

from pydiskimg.errors import StorageError, storage_error
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DIRECTORIES = ("/dev/fd/", "/proc/self/fd/")
_NAMES = {0: "standard input", 1: "standard output", 2: "standard error"}


class NotOpen:
    """Standard output of a process that was started without one: printing a result is an error, because it would be
    lost.
    """

    def write(self, _: str) -> NoReturn:
        raise OSError(errno.EBADF, "is not open, and the result is lost")

    def flush(self) -> None: ...

    def fileno(self) -> int:
        return 1  # now /dev/null


def is_source_pipe(path: str) -> bool:
    """True if path is to be read in order; a file named by its descriptor can be sought in."""
    return path == "-" or _is(path, stat.S_ISFIFO) or (_number(path) is not None and not _is_file(path))


def is_destination_pipe(path: str) -> bool:
    """True if path is to be written in order: any inherited descriptor except that of a device."""
    return path == "-" or _is(path, stat.S_ISFIFO) or (_number(path) is not None and not _is(path, stat.S_ISBLK))


@contextmanager
def source_pipe(path: str) -> Iterator[tuple[int, str]]:
    """Give (descriptor, name for messages) to read from. Raises StorageError; a named pipe waits for its writer."""
    with _pipe(path, 0, os.O_RDONLY) as (fd, name):
        yield fd, name


@contextmanager
def destination_pipe(path: str) -> Iterator[tuple[int, str]]:
    """Give (descriptor, name for messages) to write to. Raises StorageError; a named pipe waits for its reader."""
    with _pipe(path, 1, os.O_WRONLY) as (fd, name):
        yield fd, name


def write_text(path: str, text: str) -> None:
    """Write text to a pipe or a new file; "-" and /dev/stdout are standard output, also if that is a terminal.

    Raises StorageError; a named pipe waits for its reader.
    """
    if path == "-" or _number(path) == 1:
        sys.stdout.write(text)
    elif is_destination_pipe(path):
        with destination_pipe(path) as (fd, name):
            try:
                with open(fd, "w", closefd=False) as file:
                    file.write(text)
            except OSError as error:
                raise storage_error(error, name, "cannot write") from error
    else:
        from pydiskimg.disks.new_file import new_file  # imported here: a pipe does not need them
        from pydiskimg.linux.fileio import pwrite_all

        with new_file(path) as (fd, name):
            pwrite_all(fd, 0, text.encode(), name=name)


@contextmanager
def _pipe(path: str, standard: int, flags: int) -> Iterator[tuple[int, str]]:
    number = standard if path == "-" else _number(path)
    if number is not None:
        name = _NAMES.get(number, path)
        _check_usable(number, name)
        yield number, name
        return
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, path, "cannot open the pipe") from error
    try:
        yield fd, path
    finally:
        os.close(fd)


def _check_usable(fd: int, name: str) -> None:
    # Descriptors that were closed when the process began are now /dev/null, which accepts and gives anything.
    closed = (fd == 0 and sys.__stdin__ is None) or (fd == 1 and sys.__stdout__ is None)
    try:
        os.fstat(fd)
    except OSError:
        closed = True
    if closed:
        raise StorageError(f"{name}: is not open", errno=errno.EBADF, filename=name)
    if os.isatty(fd):
        raise StorageError(f"{name}: is a terminal; redirect it to a file or a pipe", errno=errno.EINVAL, filename=name)


def _number(path: str) -> int | None:
    for directory in _DIRECTORIES:
        number = path.removeprefix(directory)
        if number != path and number.isdecimal():
            return int(number) if len(number) < 10 else -1  # and is not open, either
    return _STANDARD.get(path)


def _is_file(path: str) -> bool:
    return _is(path, stat.S_ISREG) or _is(path, stat.S_ISBLK)


def _is(path: str, test: Callable[[int], bool]) -> bool:
    try:
        return test(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
