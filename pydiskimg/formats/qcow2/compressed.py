# SPDX-License-Identifier: MIT
"""One compressed cluster becomes its bytes: raw deflate ("zlib" in QEMU's words) or zstd.

What comes out is never longer than a cluster, whatever the input says: reading stops there, as the specification
has it. All of the libraries give up the interpreter lock while they work.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

from pydiskimg.errors import UnsupportedImageError

Decompress: TypeAlias = Callable[[memoryview, int], bytes]
"""Called with (compressed, size): returns at most size bytes. Raises ValueError when the data is corrupt."""

# RFC 8878 asks every decoder for 8 MiB; a cluster has 2 MiB at most, so a larger window only costs memory.
ZSTD_WINDOW_LOG = 23

# QEMU compresses with a window of 12 bits; 15 reads that and what other writers make.
_RAW_DEFLATE = -15


def decompressor(compression_type: str, *, name: str) -> Decompress:
    """Return the function for a compression_type ("zlib" or "zstd"), with the fastest library that is installed.

    Raises UnsupportedImageError when there is none for zstd; name is the image's, for its text.
    """
    if compression_type == "zlib":
        return _deflate()
    for find in (_zstandard, _python_zstd):
        try:
            return find()
        except ImportError:
            continue
    raise UnsupportedImageError(
        f"{name}: has clusters compressed with zstd, and no zstd library is installed for this Python; "
        "install the package python3-zstandard"
    )


def _deflate() -> Decompress:
    try:
        library: Any = importlib.import_module("isal.isal_zlib")
    except ImportError:
        library = zlib
    new, corrupt = library.decompressobj, (zlib.error, library.error)

    def inflate(data: memoryview, size: int) -> bytes:
        try:
            return bytes(new(_RAW_DEFLATE).decompress(data, size))
        except corrupt as error:
            raise ValueError(str(error)) from error

    return inflate


def _zstandard() -> Decompress:
    """The package zstandard; a decompressor of it must not be used by two threads at once."""
    zstandard = importlib.import_module("zstandard")
    local = threading.local()

    def decompress(data: memoryview, size: int) -> bytes:
        try:
            context = local.context
        except AttributeError:
            context = local.context = zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG)
        try:
            with context.stream_reader(data) as reader:
                return bytes(reader.read(size))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return decompress


def _python_zstd() -> Decompress:
    """The standard library's own, since Python 3.14."""
    zstd = importlib.import_module("compression.zstd")
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}

    def decompress(data: memoryview, size: int) -> bytes:
        try:
            return bytes(zstd.ZstdDecompressor(options=options).decompress(data, size))
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error

    return decompress
