# SPDX-License-Identifier: MIT
"""What is called of libarchive, declared in one table on the library that libarchive-c has loaded.

libarchive-c's own declarations turn a warning (ARCHIVE_WARN) into a line of log; here a warning is a failed
extraction, so the functions are declared again, without its checks. Return values are for the caller to judge.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_uint, c_void_p
from typing import Any

_SONAME = "libarchive.so.13"  # Debian 10 to 13, Fedora, openSUSE, Arch: the ABI has been this one since 2013


def _load() -> Any:
    """Import libarchive-c without its search for the library, for which ctypes starts ldconfig, gcc and ld.

    libarchive-c (4.0 in Debian 12, 5.1 in Debian 13) takes the library from a variable of the environment, if any.
    """
    is_ours = "LIBARCHIVE" not in os.environ
    os.environ.setdefault("LIBARCHIVE", _SONAME)
    try:
        from libarchive import ffi
    except OSError as error:
        raise ImportError(f"{_SONAME} cannot be loaded ({error}); install libarchive (Debian: libarchive13)") from error
    finally:
        if is_ours:
            del os.environ["LIBARCHIVE"]
    return ffi


_ffi = _load()

OK: int = _ffi.ARCHIVE_OK
EOF: int = _ffi.ARCHIVE_EOF
WARN: int = _ffi.ARCHIVE_WARN
FATAL: int = _ffi.ARCHIVE_FATAL

Callback = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, POINTER(c_void_p))
"""Called as (archive, client_data, buffer): stores the address of a block, returns its length; 0 at the end."""


# Its functions run without giving up the interpreter's lock, which for one that takes no time costs more than the call.
_short = ctypes.PyDLL(_SONAME, handle=_ffi.libarchive._handle)  # noqa: SLF001 - the same library, loaded once


def _function(name: str, argtypes: list[Any], restype: Any, library: Any = _ffi.libarchive) -> Any:
    # By index, not by attribute: that gives a function object of our own, whose types no other code changes.
    function = library[f"archive_{name}"]
    function.argtypes = argtypes
    function.restype = restype
    return function


_archive = c_void_p
_entry = c_void_p

error_string = _function("error_string", [_archive], c_char_p)
_version_number = _function("version_number", [], c_int)

read_new = _function("read_new", [], _archive)
read_free = _function("read_free", [_archive], c_int)
read_support_format_raw = _function("read_support_format_raw", [_archive], c_int)
read_support_format_tar = _function("read_support_format_tar", [_archive], c_int)
read_open = _function("read_open", [_archive, c_void_p, c_void_p, Callback, c_void_p], c_int)
read_next_header = _function("read_next_header", [_archive, POINTER(_entry)], c_int)
read_header_position = _function("read_header_position", [_archive], c_int64, _short)
read_data_block = _function(
    "read_data_block", [_archive, POINTER(c_void_p), POINTER(c_size_t), POINTER(c_int64)], c_int
)

entry_pathname = _function("entry_pathname", [_entry], c_char_p, _short)
entry_hardlink = _function("entry_hardlink", [_entry], c_char_p, _short)
entry_symlink = _function("entry_symlink", [_entry], c_char_p, _short)
entry_mode = _function("entry_mode", [_entry], c_uint, _short)
entry_size = _function("entry_size", [_entry], c_int64, _short)
entry_sparse_reset = _function("entry_sparse_reset", [_entry], c_int)
entry_sparse_next = _function("entry_sparse_next", [_entry, POINTER(c_int64), POINTER(c_int64)], c_int)
entry_mtime = _function("entry_mtime", [_entry], c_int64, _short)


# As libarchive encodes it: 3.7.5 is 3007005.
_BROKEN_SINCE, _MENDED_IN = 3007005, 3007009


def version() -> str:
    """Return libarchive's version: 3.6.2."""
    number = _version_number()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def is_broken() -> bool:
    """True for libarchive 3.7.5 to 3.7.8, which ignore sizes in pax headers and crash on damaged ones."""
    return bool(_BROKEN_SINCE <= _version_number() < _MENDED_IN)


# Filters inside libarchive only. gzip is inflated by us; lzop, grzip and lrzip are external programs (lzop always
# on Debian), uu and rpm wrap nothing that a root file system comes in.
_FILTERS = ("bzip2", "compress", "lz4", "lzip", "lzma", "xz", "zstd")


def _filters_in_library() -> list[Any]:
    """Return the functions that enable the filters which this libarchive does not hand to an external program."""
    scratch = read_new()
    try:
        functions = [_function(f"read_support_filter_{name}", [_archive], c_int) for name in _FILTERS]
        # ARCHIVE_WARN says "using external program": it was built without that compression library.
        return [function for function in functions if function(scratch) == OK]
    finally:
        read_free(scratch)


FILTERS = _filters_in_library()


_memory_view = ctypes.pythonapi.PyMemoryView_FromMemory
_memory_view.argtypes = [c_void_p, c_ssize_t, c_int]
_memory_view.restype = ctypes.py_object
_PYBUF_READ = 0x100


def view(address: int | None, length: int) -> memoryview:
    """Return length bytes of libarchive's memory, not copied: valid until the next call on the archive."""
    if not address or not length:
        return memoryview(b"")
    result: memoryview = _memory_view(address, length, _PYBUF_READ)
    return result
