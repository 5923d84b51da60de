# SPDX-License-Identifier: MIT
"""One compressed cluster becomes its bytes: raw deflate ("zlib" in QEMU's words) or zstd.

What comes out is never longer than a cluster, whatever the input says: reading stops there, as the specification
has it. All of the libraries give up the interpreter lock while they work.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from pydiskimg.errors import UnsupportedImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

Decompress: TypeAlias = "Callable[[memoryview, int], bytes]"
"""Called with (compressed, size): returns at most size bytes. Raises ValueError when the data is corrupt."""

DecompressInto: TypeAlias = "Callable[[memoryview, memoryview], int]"
"""Called with (compressed, cluster): fills cluster from its beginning and returns how many bytes that were.

Never writes beyond cluster; inside it, what follows those bytes is undefined. Raises ValueError when the data is
corrupt.
"""

# RFC 8878 asks every decoder for 8 MiB; a cluster has 2 MiB at most, so a larger window only costs memory.
ZSTD_WINDOW_LOG = 23

# QEMU compresses with a window of 12 bits; 15 reads that and what other writers make.
RAW_DEFLATE = -15


def decompressor(compression_type: str, *, name: str) -> Decompress:
    """Return the function for a compression_type ("zlib" or "zstd") that returns bytes.

    Raises UnsupportedImageError when there is no library for zstd; name is the image's, for its text.
    """
    into = decompressor_into(compression_type, name=name)

    def decompress(data: memoryview, size: int) -> bytes:
        cluster = bytearray(size)
        with memoryview(cluster) as view:
            length = into(data, view)
        del cluster[length:]
        return bytes(cluster)

    return decompress


def decompressor_into(compression_type: str, *, name: str) -> DecompressInto:
    """Return the function for a compression_type that writes into a buffer, with the fastest library installed.

    It may be called by several threads at once. Errors as for decompressor().
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


def _deflate() -> DecompressInto:
    library: list[tuple[Any, Any]] = []

    def inflate(data: memoryview, cluster: memoryview) -> int:
        if not library:  # only now, as most images that are looked at have no cluster to decompress
            library.append(deflate_library())
        new, corrupt = library[0]
        try:
            found = new(RAW_DEFLATE).decompress(data, len(cluster))
        except corrupt as error:
            raise ValueError(str(error)) from error
        cluster[: len(found)] = found
        return len(found)

    return inflate


def deflate_library() -> tuple[Any, Any]:
    """Return zlib.decompressobj or what is faster, and the errors that its results raise."""
    import zlib

    library: Any = zlib
    with suppress(ImportError):
        from isal import isal_zlib as library
    return library.decompressobj, (zlib.error, library.error)


def _zstandard() -> DecompressInto:
    """The package zstandard; a decompressor of it must not be used by two threads at once."""
    import zstandard

    local = threading.local()

    def decompress(data: memoryview, cluster: memoryview) -> int:
        try:
            context = local.context
        except AttributeError:
            context = local.context = zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG)
        try:
            with context.stream_reader(data) as reader:
                return int(reader.readinto(cluster))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return decompress


def _python_zstd() -> DecompressInto:
    """The standard library's own, since Python 3.14."""
    from importlib import import_module

    zstd: Any = import_module("compression.zstd")
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}

    def decompress(data: memoryview, cluster: memoryview) -> int:
        try:
            found = zstd.ZstdDecompressor(options=options).decompress(data, len(cluster))
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        cluster[: len(found)] = found
        return len(found)

    return decompress
