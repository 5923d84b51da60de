# SPDX-License-Identifier: MIT
"""A checksum of all bytes of a Source, including holes: that of a raw file with the same contents."""

from __future__ import annotations

from functools import partial

from pydiskimg.extents import Kind
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Progress, Source
    from pydiskimg.transfer.ordered import Buffers

ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "sha3-256")
"""The algorithms of digest(): the names of coreutils and openssl."""

_READERS = 1  # reading is then some pieces ahead; the hash itself cannot be divided


def digest(source: Source, algorithm: str = "sha256", *, progress: Progress | None = None) -> str:
    """Return the checksum of source in hexadecimal, as sha256sum and others print it for a raw file of its contents.

    Holes and zeros are not read, but hashed as zeros. progress counts all bytes. Raises ValueError for an algorithm
    that is not in ALGORITHMS, and as reading source does.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{printable(algorithm)} is not a checksum that is known; expected {', '.join(ALGORITHMS)}")
    import hashlib  # imported here: the --help of hash needs nothing but ALGORITHMS

    from pydiskimg.transfer.meter import Meter
    from pydiskimg.transfer.ordered import Buffers, items_at_once, ordered
    from pydiskimg.transfer.pieces import CHUNK_SIZE, pieces

    zeros = b""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    meter = Meter(progress, source.size)
    buffers = Buffers(items_at_once(_READERS), CHUNK_SIZE)
    for piece, buffer in ordered(pieces(source, 1), partial(_read, source, buffers), workers=_READERS):
        if buffer is None:
            zeros = zeros or bytes(CHUNK_SIZE)
            for at in range(0, piece.length, CHUNK_SIZE):
                length = min(CHUNK_SIZE, piece.length - at)
                hasher.update(zeros[:length])
                meter.advance(length)
        else:
            hasher.update(buffer[: piece.length])
            buffers.give(buffer)
            meter.advance(piece.length)
    return hasher.hexdigest()


def _read(source: Source, buffers: Buffers, piece: Extent) -> tuple[Extent, memoryview | None]:
    """Return the piece and a buffer of its data; without one if it is zero."""
    if piece.kind is not Kind.DATA:
        return piece, None
    buffer = buffers.take()
    source.read_into(piece.start, buffer[: piece.length])
    return piece, buffer
