# SPDX-License-Identifier: MIT
"""Compress a cluster: raw deflate ("zlib" in QEMU's words) or zstd.

The libraries release the interpreter lock while they work, so that several threads compress on several cores.
"""

from __future__ import annotations

import threading
import zlib

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compressed import of_zstd_library
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pydiskimg.protocols import Buffer

Compress: TypeAlias = "Callable[[Buffer], bytes]"
"""Called with the bytes of one cluster, from any thread; the result may be longer than the cluster."""

# QEMU decompresses with a window of 12 bits. zlib itself would accept distances beyond it, because QEMU gives it the
# whole cluster at once; other libraries that QEMU may be built with do not promise that.
_RAW_DEFLATE = -12
_MEMORY_LEVEL = 8

# Of ISA-L's levels, 2 is as fast as 1 and gives smaller results; zlib at its fastest is six times as slow.
_ISAL_LEVEL = 2
_ZLIB_LEVEL = 1
_ZSTD_LEVEL = 1


def compressor(compression_type: str, *, name: str) -> Compress:
    """Return the function for a compression_type ("zlib" or "zstd"), with the fastest library that is installed.

    The same cluster does not always give the same bytes: ISA-L's differ now and then. Raises UnsupportedImageError for
    an unknown type, or if there is no library for zstd; name is the new image's, for its text.
    """
    if compression_type == "zlib":
        return _deflate()
    if compression_type != "zstd":
        expected = " or ".join(layout.COMPRESSION_TYPES)
        raise UnsupportedImageError(
            f"{name}: the compression type {compression_type!r} is not known; expected {expected}"
        )
    problem, advice = f"{name}: cannot be compressed with zstd:", ", or use compression_type=zlib"
    return of_zstd_library(_zstandard, _python_zstd, problem=problem, advice=advice)


def stored_deflate(cluster: Buffer) -> bytes:
    """Return cluster as uncompressed deflate data (RFC 1951, section 3.2.4): a few bytes longer."""
    pieces: list[bytes | memoryview] = []
    with memoryview(cluster) as view:
        for start in range(0, len(view), 0xFFFF):
            piece = view[start : start + 0xFFFF]
            final = start + len(piece) == len(view)
            length = len(piece)
            pieces += (bytes((final,)), length.to_bytes(2, "little"), (length ^ 0xFFFF).to_bytes(2, "little"), piece)
        return b"".join(pieces)


def _deflate() -> Compress:
    try:
        from isal import isal_zlib

        library: Any = isal_zlib
        level = _ISAL_LEVEL
    except ImportError:
        library, level = zlib, _ZLIB_LEVEL
    new, method = library.compressobj, zlib.DEFLATED

    def deflate(cluster: Buffer) -> bytes:
        stream = new(level, method, _RAW_DEFLATE, _MEMORY_LEVEL)
        return bytes(stream.compress(cluster) + stream.flush())

    return deflate


def _zstandard() -> Compress:
    """The package zstandard; two threads must not use one of its compressors at once."""
    import zstandard

    local = threading.local()

    def compress(cluster: Buffer) -> bytes:
        try:
            context = local.context
        except AttributeError:
            context = local.context = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        return bytes(context.compress(cluster))

    return compress


def _python_zstd() -> Compress:
    """The standard library's own, since Python 3.14."""
    from importlib import import_module  # a module that the type checker's Python does not have

    zstd = import_module("compression.zstd")

    def compress(cluster: Buffer) -> bytes:
        return bytes(zstd.compress(cluster, level=_ZSTD_LEVEL))

    return compress
