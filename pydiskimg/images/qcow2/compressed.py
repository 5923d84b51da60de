# SPDX-License-Identifier: MIT
"""Decompress a cluster: raw deflate ("zlib" in QEMU's words) or zstd.

The result is never longer than a cluster, for any input: reading stops there, as specified. All of the libraries
release the interpreter lock while they work.
"""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.startup import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pydiskimg.protocols import Buffer

    Decode: TypeAlias = Callable[[memoryview, memoryview], None]
    DecodeAll: TypeAlias = Callable[[memoryview, memoryview], memoryview]

Function = TypeVar("Function")

# RFC 8878 recommends 8 MiB for every decoder; a cluster has at most 2 MiB, so a larger window only costs memory.
ZSTD_WINDOW_LOG = 23

# QEMU compresses with a window of 12 bits; 15 also reads the results of other writers.
RAW_DEFLATE = -15


# ISA-L reads ahead, and up to version 1.8 it does not return the last 8 bytes in unused_data.
_READ_AHEAD = bytes(16)


class ClusterDecoder:
    """Decompresses the clusters of one image, with the fastest library installed; safe from several threads.

    compression_type is "zlib" or "zstd"; name is the image's, for messages. The library is loaded for the first
    cluster, because most images have none to decompress.
    """

    def __init__(self, compression_type: str, *, name: str) -> None:
        self._is_zlib = compression_type == "zlib"
        self._name = name
        self._functions: tuple[Decode, DecodeAll] | None = None

    def require_library(self) -> None:
        """Raise UnsupportedImageError if there is no library for zstd."""
        if not self._is_zlib:
            self._load()

    def decode(self, data: memoryview, cluster: memoryview) -> None:
        """Fill cluster from data; following bytes in data are ignored.

        Raises ValueError, whose text is a predicate of the data, if they are corrupt or not a whole cluster.
        """
        (self._functions or self._load())[0](data, cluster)

    def decode_all(self, data: memoryview, cluster: memoryview) -> memoryview:
        """Fill cluster from data, and return the bytes after the compressed data. Errors as for decode()."""
        return (self._functions or self._load())[1](data, cluster)

    def _load(self) -> tuple[Decode, DecodeAll]:
        self._functions = found = _deflate() if self._is_zlib else _zstd(self._name)
        return found


def _check_length(length: int, cluster: memoryview) -> None:
    if length != len(cluster):
        more = "at least " if length > len(cluster) else ""
        raise ValueError(f"decompresses to {more}{length} bytes, expected {len(cluster)}")


def _deflate() -> tuple[Decode, DecodeAll]:
    new, corrupt = deflate_library()

    def inflated(decompressor: Any, data: Buffer, most: int) -> bytes:
        try:
            found: bytes = decompressor.decompress(data, most)
        except corrupt as error:
            raise ValueError(f"does not decompress ({error})") from error
        return found

    def decode(data: memoryview, cluster: memoryview) -> None:
        found = inflated(new(RAW_DEFLATE), data, len(cluster))
        _check_length(len(found), cluster)
        cluster[:] = found

    def decode_all(data: memoryview, cluster: memoryview) -> memoryview:
        decompressor = new(RAW_DEFLATE)
        # One byte more than a cluster: otherwise the end mark may not have been read.
        found = inflated(decompressor, b"".join((data, _READ_AHEAD)), len(cluster) + 1)
        _check_length(len(found), cluster)
        unused = len(decompressor.unused_data) - len(_READ_AHEAD)  # unused_data is empty if no end was found
        if unused < 0:
            raise ValueError("does not decompress (its end is missing)")
        cluster[:] = found
        return data[len(data) - unused :]

    return decode, decode_all


def deflate_library() -> tuple[Any, Any]:
    """Return zlib.decompressobj or a faster equivalent, and the errors that its results raise."""
    import zlib

    library: Any = zlib
    try:  # noqa: SIM105 - contextlib is slow to import
        from isal import isal_zlib as library
    except ImportError:
        pass
    return library.decompressobj, (zlib.error, library.error)


def _zstd(name: str) -> tuple[Decode, DecodeAll]:
    read = _zstd_reader(name)

    def decode(data: memoryview, cluster: memoryview) -> None:
        try:
            length = read(data, cluster)
        except ValueError as error:
            raise ValueError(f"does not decompress ({error})") from error
        _check_length(length, cluster)

    def decode_all(data: memoryview, cluster: memoryview) -> memoryview:
        decode(data, cluster)
        return data[frame_length(data) :]

    return decode, decode_all


def _zstd_reader(name: str) -> Callable[[memoryview, memoryview], int]:
    """The function that fills a cluster from data and returns how many bytes that were."""
    return of_zstd_library(_zstandard, _python_zstd, problem=f"{name}: has clusters compressed with zstd, and")


def of_zstd_library(*makers: Callable[[], Function], problem: str, advice: str = "") -> Function:
    """Return the result of the first of makers whose zstd library is installed; UnsupportedImageError if none is."""
    for make in makers:
        try:
            return make()
        except ImportError:
            continue
    raise UnsupportedImageError(
        f"{problem} no zstd library is installed for this Python; install the package python3-zstandard{advice}"
    )


def _zstandard() -> Callable[[memoryview, memoryview], int]:
    """The package zstandard; two threads must not use one of its decompressors at once."""
    import threading

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


def _python_zstd() -> Callable[[memoryview, memoryview], int]:
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


_MAGIC = b"\x28\xb5\x2f\xfd"
# Bytes of the dictionary's number and of the content's size, by their flags in the frame header's descriptor.
_DICTIONARY_SIZE = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)
_SINGLE_SEGMENT, _CHECKSUM = 1 << 5, 1 << 2
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3
_BLOCK_HEADER_SIZE, _CHECKSUM_SIZE = 3, 4


def frame_length(data: memoryview) -> int:
    """Return the bytes of the frame at the beginning of data. Raises ValueError if it is invalid or incomplete."""
    if data[:4] != _MAGIC or len(data) < len(_MAGIC) + 1:
        raise ValueError("does not decompress (it does not begin with a zstd frame)")
    descriptor = data[4]
    at = 5 + _DICTIONARY_SIZE[descriptor & 3] + _CONTENT_SIZE[descriptor >> 6]
    if not descriptor & _SINGLE_SEGMENT:
        at += 1  # the window's descriptor
    elif not descriptor >> 6:
        at += 1  # a content's size of one byte
    is_last = False
    while not is_last:
        header = int.from_bytes(data[at : at + _BLOCK_HEADER_SIZE], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if at + _BLOCK_HEADER_SIZE > len(data) or kind == _RESERVED_BLOCK:
            raise ValueError("does not decompress (its last block is missing)")
        at += _BLOCK_HEADER_SIZE + (1 if kind == _RLE_BLOCK else size)
    if descriptor & _CHECKSUM:
        at += _CHECKSUM_SIZE
    if at > len(data):
        raise ValueError("does not decompress (its end is missing)")
    return at
