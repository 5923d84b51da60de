# SPDX-License-Identifier: MIT
"""Files that libarchive inflates, by its format "raw", through the library that libarchive-c has loaded.

libarchive-c's own declarations turn a warning (ARCHIVE_WARN) into a line of log; here a warning is a failure, so the
functions are declared again, without its checks. Return values are for the caller to judge.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_void_p
from functools import cache
from typing import Any

from pydiskimg.errors import ArchiveError
from pydiskimg.files.tar.inflate import READ, ArchiveInput, Inflated
from pydiskimg.text import printable

_SONAME = "libarchive.so.13"  # Debian 10 to 13, Fedora, openSUSE, Arch: the ABI has been the same since 2013


def _load() -> Any:
    """Import libarchive-c without its search for the library, for which ctypes starts ldconfig, gcc and ld.

    libarchive-c (2.9 in Debian 12, 5.1 in Debian 13) takes the library from a variable of the environment, if any.
    """
    is_ours = "LIBARCHIVE" not in os.environ
    os.environ.setdefault("LIBARCHIVE", _SONAME)
    try:
        from libarchive import ffi
    except (ImportError, OSError) as error:
        raise ArchiveError(
            f"a file that is compressed otherwise than with gzip or bzip2 needs libarchive-c, which cannot be loaded "
            f"({error}); install Debian's package python3-libarchive-c, or libarchive13 and run: "
            "pip install libarchive-c"
        ) from error
    finally:
        if is_ours:
            del os.environ["LIBARCHIVE"]
    return ffi


_ffi = _load()

_OK: int = _ffi.ARCHIVE_OK
_EOF: int = _ffi.ARCHIVE_EOF
_FATAL: int = _ffi.ARCHIVE_FATAL

_Callback = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, POINTER(c_void_p))
"""Called as (archive, client_data, buffer): stores the address of a block, returns its length; 0 at the end."""


def _function(name: str, argtypes: list[Any], restype: Any) -> Any:
    # By index, not by attribute: that gives a new function object, whose types no other code changes.
    function = _ffi.libarchive[f"archive_{name}"]
    function.argtypes = argtypes
    function.restype = restype
    return function


_archive = c_void_p
_entry = c_void_p

_error_string = _function("error_string", [_archive], c_char_p)
_read_new = _function("read_new", [], _archive)
_read_free = _function("read_free", [_archive], c_int)
_read_support_format_raw = _function("read_support_format_raw", [_archive], c_int)
_read_open = _function("read_open", [_archive, c_void_p, c_void_p, _Callback, c_void_p], c_int)
_read_next_header = _function("read_next_header", [_archive, POINTER(_entry)], c_int)
_read_data_block = _function(
    "read_data_block", [_archive, POINTER(c_void_p), POINTER(c_size_t), POINTER(c_int64)], c_int
)


# Only filters inside libarchive. gzip is inflated in inflate.py; lzop, grzip and lrzip are external programs (lzop
# always on Debian), and root file systems do not come in uu or rpm.
_FILTERS = ("bzip2", "compress", "lz4", "lzip", "lzma", "xz", "zstd")


@cache
def _filters_in_library() -> list[Any]:
    """Return the functions that enable the filters for which this libarchive does not run an external program."""
    scratch = _read_new()
    try:
        functions = [_function(f"read_support_filter_{name}", [_archive], c_int) for name in _FILTERS]
        # ARCHIVE_WARN means "using external program": libarchive was built without that compression library.
        return [function for function in functions if function(scratch) == _OK]
    finally:
        _read_free(scratch)


def inflate_any(file: ArchiveInput) -> Generator[Inflated, None, None]:
    """Yield the rest of a file, inflated, from any compression. Raises ArchiveError for an unknown one."""
    archive, feed = _read_new(), _Feed(file)
    try:
        for enable in _filters_in_library():
            enable(archive)
        _read_support_format_raw(archive)
        entry = ctypes.c_void_p()
        _check(archive, _read_open(archive, None, None, feed.callback, None), feed)
        _check(archive, _read_next_header(archive, ctypes.byref(entry)), feed)
        address, size, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int64()
        arguments = ctypes.byref(address), ctypes.byref(size), ctypes.byref(offset)
        while _check(archive, _read_data_block(archive, *arguments), feed):
            if address.value and size.value:
                data = ctypes.string_at(address.value, size.value)
                yield Inflated(data, file.position)
    finally:
        _read_free(archive)


class _Feed:
    """Passes the bytes of a file to libarchive; error is the reason of a failure."""

    def __init__(self, file: ArchiveInput) -> None:
        self.file = file
        self.error: BaseException | None = None
        self.callback = _Callback(self._read)
        self._data = b""  # the block that libarchive is reading

    def _read(self, _archive: int, _data: int, buffer: ctypes._Pointer[ctypes.c_void_p]) -> int:
        try:
            self._data = self.file.read(READ)
        except BaseException as error:  # noqa: BLE001 - nothing may pass through C; raised again after it
            self.error = error
            return _FATAL
        buffer[0] = ctypes.cast(ctypes.c_char_p(self._data), ctypes.c_void_p)
        return len(self._data)


def _check(archive: int, result: int, feed: _Feed) -> bool:
    """Return False at the end; any result other than that or success means corrupt or truncated data."""
    if feed.error is not None:
        raise feed.error
    if result in (_OK, _EOF):
        return result == _OK
    message = printable(_error_string(archive) or b"no reason given").rstrip(".")
    raise ArchiveError(
        f"{feed.file.name}: the data before byte {feed.file.position} of the file cannot be inflated: {message}; "
        "the file is truncated, corrupt or not an archive"
    )
